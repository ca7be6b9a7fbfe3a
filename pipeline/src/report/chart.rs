//! The drawings of a report, as SVG.
//!
//! Invariant: a drawing shows measured points only; where there are too few of them there is none.

use crate::cli::figures::clock_of_seconds;
use crate::evidence::{Evidence, Point};
use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 280);
const CLOCK_SIZE: (u32, u32) = (900, 120);
/// Room for the half of the last number of an axis.
const RIGHT: u32 = 48;
/// Family and size of all texts.
const LABELS: (&str, i32) = ("sans-serif", 14);

/// Draws rows per second over time; `None` for fewer than three points.
pub(super) fn throughput(processes: &[Vec<Point>]) -> Option<String> {
    let start = processes.first()?.first()?.at_ms;
    let seconds = |at_ms: i64| (at_ms - start) as f64 / 1e3;
    let lines: Vec<Vec<(f64, f64)>> = processes
        .iter()
        .map(|points| points.windows(2).filter_map(|two| speed(two, &seconds)).collect())
        .collect();
    let all = || lines.iter().flatten();
    if all().count() < 2 {
        return None;
    }
    let end = all().map(|(at, _)| *at).fold(0.0, f64::max);
    let most = all().map(|(_, rows)| *rows).fold(1.0, f64::max);
    let ends = processes
        .iter()
        .skip(1)
        .filter_map(|points| points.first())
        .map(|point| seconds(point.at_ms));
    let mut svg = String::new();
    draw_throughput(&mut svg, &lines, &ends.collect::<Vec<_>>(), (end, most)).ok()?;
    Some(svg)
}

/// The middle of two neighbouring points, and the rows per second between them.
fn speed(two: &[Point], seconds: &dyn Fn(i64) -> f64) -> Option<(f64, f64)> {
    let [before, after] = two else { return None };
    let passed = (after.at_ms - before.at_ms) as f64 / 1e3;
    let carried = after.rows.saturating_sub(before.rows) as f64;
    (passed > 0.05).then(|| (seconds(before.at_ms) + passed / 2.0, carried / passed))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_throughput(
    svg: &mut String,
    lines: &[Vec<(f64, f64)>],
    ends: &[f64],
    (end, most): (f64, f64),
) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .margin_right(RIGHT)
        .x_label_area_size(40)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..end * 1.02, 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("time since the start")
        .y_desc("rows per second")
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|at| clock_of_seconds(*at))
        .label_style(LABELS)
        .axis_desc_style(LABELS)
        .y_label_formatter(&|rows| crate::cli::figures::per_second(*rows))
        .light_line_style(WHITE)
        .draw()?;
    for line in lines {
        chart.draw_series(LineSeries::new(line.iter().copied(), BLUE.stroke_width(2)))?;
    }
    for at in ends {
        chart.draw_series(DashedLineSeries::new(
            [(*at, 0.0), (*at, most * 1.1)],
            6,
            4,
            RED.stroke_width(1),
        ))?;
    }
    root.present()?;
    Ok(())
}

/// Draws the time from the loss to the end beside the RTO; `None` where it was not measured.
pub(super) fn clock(evidence: &Evidence) -> Option<String> {
    let rto = evidence
        .objectives
        .iter()
        .find(|objective| objective.name == "RTO" && objective.measured_seconds.is_some())?;
    let measured = rto.measured_seconds?;
    let summary = &evidence.summary;
    let own = summary["seconds"].as_f64().unwrap_or(0.0).min(measured);
    let mut svg = String::new();
    draw_clock(&mut svg, (measured - own, own), rto.target_seconds as f64).ok()?;
    Some(svg)
}

fn draw_clock(svg: &mut String, (before, own): (f64, f64), rto: f64) -> Drawn {
    let root = SVGBackend::with_string(svg, CLOCK_SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let end = (before + own).max(rto) * 1.05;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .margin_right(RIGHT)
        .x_label_area_size(40)
        .build_cartesian_2d(0.0..end, 0.0..1.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_x_mesh()
        .x_desc(format!(
            "grey: before the last process, {}; blue: the last process, {}; red: the RTO",
            clock_of_seconds(before),
            clock_of_seconds(own)
        ))
        .x_labels(8)
        .x_label_formatter(&|at| clock_of_seconds(*at))
        .label_style(LABELS)
        .axis_desc_style(LABELS)
        .draw()?;
    let bar = |from: f64, to: f64| [(from, 0.25), (to, 0.75)];
    chart.draw_series([
        Rectangle::new(bar(0.0, before), RGBColor(170, 170, 170).filled()),
        Rectangle::new(bar(before, before + own), BLUE.filled()),
    ])?;
    chart.draw_series(DashedLineSeries::new(
        [(rto, 0.0), (rto, 1.0)],
        6,
        4,
        RED.stroke_width(2),
    ))?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_drawn_per_process_and_a_dashed_one_between() {
        let process = |from: i64, rows: u64| {
            (0..10)
                .map(|i| Point {
                    at_ms: from + i * 1_000,
                    rows: rows + i.unsigned_abs() * 500,
                    bytes: 0,
                })
                .collect::<Vec<_>>()
        };
        let svg = throughput(&[process(1_000, 0), process(20_000, 5_000)]).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("rows per second"), "{svg}");
        assert!(svg.matches("<polyline").count() >= 2, "{svg}");
        assert_eq!(throughput(&[]), None);
        assert_eq!(throughput(&[process(0, 0)[..2].to_vec()]), None);
    }

    #[test]
    fn speeds_lie_between_their_points() {
        let point = |at_ms, rows| Point { at_ms, rows, bytes: 0 };
        let seconds = |at_ms: i64| at_ms as f64 / 1e3;
        assert_eq!(speed(&[point(1_000, 10), point(3_000, 50)], &seconds), Some((2.0, 20.0)));
        // Two points of one moment say nothing.
        assert_eq!(speed(&[point(1_000, 10), point(1_010, 50)], &seconds), None);
    }
}
