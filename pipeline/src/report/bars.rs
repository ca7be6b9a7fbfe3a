//! Bars of time below one another, each with its name and its value.
//!
//! Invariant: every bar of a drawing has the same scale, which its axis states; the value is written beside the name, so a
//! bar that is too short to be seen is read all the same.

use crate::cli::figures::{clock_of_seconds, seconds};
use plotters::prelude::*;

/// Width of a drawing in pixels: a page of a browser is wider, and paper scales it.
const WIDTH: u32 = 900;
/// Family and size of all texts; SVG has them 1.24 times smaller. On paper that is what can still be read.
const LABELS: (&str, i32) = ("sans-serif", 18);
/// Height of one bar, and of what is around them.
const BAR: u32 = 34;
const AROUND: u32 = 80;
/// Room for the names and values, and at the right for the half of the last number of the axis.
const NAMES: u32 = 310;
const RIGHT: u32 = 48;
/// A mark that lies so many times beyond the last bar would leave nothing to be seen of the bars.
const MARK_TIMES_MAX: f64 = 20.0;

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub(super) name: String,
    /// Where it begins and ends, in seconds.
    pub(super) from: f64,
    pub(super) to: f64,
}

/// What the bars are drawn on.
pub(super) struct Axis<'a> {
    /// What it shows.
    pub(super) title: &'a str,
    /// What the mark is, and where it lies in seconds.
    pub(super) mark: (&'a str, f64),
    pub(super) colour: RGBColor,
}

/// Draws bars; `None` where no time passed in any.
pub(super) fn drawn(bars: &[Bar], axis: &Axis<'_>) -> Option<String> {
    let last = bars.iter().map(|bar| bar.to).fold(0.0, f64::max);
    if last <= 0.0 {
        return None;
    }
    let mut svg = String::new();
    draw(&mut svg, bars, axis, last).ok()?;
    Some(svg)
}

/// The name of a bar with its value.
fn label(bar: &Bar) -> String {
    format!("{}, {}", bar.name, seconds(bar.to - bar.from))
}

fn draw(
    svg: &mut String,
    bars: &[Bar],
    axis: &Axis<'_>,
    last: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let rows = u32::try_from(bars.len())?;
    let root = SVGBackend::with_string(svg, (WIDTH, rows * BAR + AROUND)).into_drawing_area();
    root.fill(&WHITE)?;
    let (mark, at) = axis.mark;
    let is_shown = (0.0..=last * MARK_TIMES_MAX).contains(&at);
    let end = if is_shown { last.max(at) } else { last } * 1.05;
    let beyond = match (is_shown, at < 0.0) {
        (true, _) => "",
        (false, true) => ", which is passed already",
        (false, false) => ", beyond the right edge",
    };
    let height = f64::from(rows);
    // Clocks of whole seconds would be the same at every mark of a short axis.
    let told = |at: &f64| if end < 60.0 { seconds(*at) } else { clock_of_seconds(*at) };
    let sign = if at < 0.0 { "-" } else { "" };
    let mark_told = format!("{mark} {sign}{}{beyond}", clock_of_seconds(at.abs()));
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .margin_right(RIGHT)
        .x_label_area_size(44)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..end, 0.0..height)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc(format!("{}; {mark_told}", axis.title))
        .x_labels(6)
        .y_labels(0)
        .x_label_formatter(&told)
        .label_style(LABELS)
        .axis_desc_style(LABELS)
        .light_line_style(WHITE)
        .draw()?;
    let middles = (0..rows).map(|row| height - f64::from(row) - 0.5);
    for (bar, middle) in bars.iter().zip(middles) {
        let corners = [(bar.from, middle - 0.3), (bar.to, middle + 0.3)];
        chart.draw_series([Rectangle::new(corners, axis.colour.filled())])?;
        let (_, pixel) = chart.backend_coord(&(bar.from, middle));
        root.draw(&Text::new(label(bar), (16, pixel - 7), LABELS.into_font()))?;
    }
    if is_shown {
        let line = [(at, 0.0), (at, height)];
        chart.draw_series(DashedLineSeries::new(line, 6, 4, RED.stroke_width(2)))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, from: f64, to: f64) -> Bar {
        Bar { name: name.to_owned(), from, to }
    }

    fn svg(bars: &[Bar], at: f64) -> String {
        let axis = Axis { title: "time since the loss", mark: ("the RTO is", at), colour: BLUE };
        drawn(bars, &axis).unwrap()
    }

    /// Numbers of an attribute of all elements of a kind.
    fn numbers(svg: &str, element: &str, attribute: &str) -> Vec<f64> {
        let of = |text: &str| {
            let text = text.split('>').next()?;
            let from = text.split(&format!(" {attribute}=\"")).nth(1)?;
            from.split('"').next()?.parse().ok()
        };
        svg.split(&format!("<{element}")).skip(1).filter_map(of).collect()
    }

    /// Where every text begins and ends, at 7.5 px for each of its characters.
    fn texts(svg: &str) -> Vec<(f64, f64)> {
        let starts = numbers(svg, "text", "x");
        let all = svg.split("<text").skip(1).zip(starts);
        let place = |(text, x): (&str, f64)| {
            let (attributes, rest) = text.split_once('>').unwrap();
            let wide = 7.5 * rest.split("</text>").next().unwrap().trim().len() as f64;
            let before = match attributes {
                of if of.contains("\"middle\"") => wide / 2.0,
                of if of.contains("\"end\"") => wide,
                _ => 0.0,
            };
            (x - before, x - before + wide)
        };
        all.map(place).collect()
    }

    #[test]
    fn every_bar_has_its_name_and_value_and_the_axis_says_what_it_is() {
        let bars = [bar("rebuild redis", 0.0, 240.0), bar("verify redis", 240.0, 240.25)];
        let svg = svg(&bars, 3_600.0);
        for text in [
            "rebuild redis, 00:04:00",
            "verify redis, 0.25 s",
            "time since the loss; the RTO is 01:00:00",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert!(!svg.contains("beyond the right edge"), "{svg}");
    }

    #[test]
    fn a_mark_far_away_or_passed_is_told_and_not_drawn() {
        let bars = [bar("rebuild redis", 0.0, 3.0)];
        let far = svg(&bars, 86_400.0);
        assert!(far.contains("the RTO is 24:00:00, beyond the right edge"), "{far}");
        let passed = svg(&bars, -60.0);
        assert!(passed.contains("the RTO is -00:01:00, which is passed already"), "{passed}");
        let red = "#FF0000";
        assert!(svg(&bars, 4.0).contains(red) && !far.contains(red) && !passed.contains(red));
        // Marks of a short axis are told apart.
        assert!(far.contains("1.00 s") && far.contains("2.00 s"), "{far}");
        let none = Axis { title: "", mark: ("", 1.0), colour: BLUE };
        assert_eq!(drawn(&[], &none), None);
        assert_eq!(drawn(&[bar("nothing", 0.0, 0.0)], &none), None);
    }

    #[test]
    fn nothing_is_cut_off_at_an_edge() {
        let bars: Vec<Bar> = (0..8)
            .map(|i| f64::from(i) * 450.0)
            .map(|from| bar("ask bigquery what is known", from, from + 450.0))
            .collect();
        let svg = svg(&bars, 86_400.0);
        let (width, height) = (f64::from(WIDTH), f64::from(8 * BAR + AROUND));
        assert!(svg.contains(&format!("viewBox=\"0 0 {width} {height}\"")), "{svg}");
        // A character of that size is 8 px wide at most, on average.
        let longest = 8.0 * label(&bars[7]).len() as f64;
        assert!(16.0 + longest <= f64::from(NAMES), "{longest}");
        let texts = texts(&svg);
        assert!(texts.len() > 8, "{texts:?}");
        for (from, to) in texts {
            assert!(from >= 0.0 && to <= width, "{from} to {to}");
        }
        assert!(numbers(&svg, "text", "y").iter().all(|y| (0.0..=height).contains(y)), "{svg}");
        let ends: Vec<f64> = numbers(&svg, "rect", "x")
            .into_iter()
            .zip(numbers(&svg, "rect", "width"))
            .map(|(x, wide)| x + wide)
            .collect();
        assert!(ends.len() > 8 && ends.iter().all(|end| *end <= width), "{ends:?}");
    }
}
