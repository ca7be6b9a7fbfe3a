//! What a report says of a drill: its phases beside the RTO, the steps around the tool, the reads, and what became of the
//! scratch targets.
//!
//! Invariant: a step that nobody timed is shown as UNKNOWN, and no bar is drawn for it.

use super::{Part, list, pairs};
use crate::cli::figures::{clock_of_seconds, count, seconds};
use crate::drill::{COMMAND, DrillReport, Phase, Step};
use plotters::prelude::*;
use serde_json::Value;

const WIDTH: u32 = 900;
const LABELS: (&str, i32) = ("sans-serif", 14);
/// Height of one bar, and of what is around them.
const BAR: u32 = 34;
const AROUND: u32 = 80;
/// Room for the names of phases and steps.
const NAMES: u32 = 260;

/// Returns the parts of a drill; none for anything else.
pub(super) fn parts(summary: &Value) -> Vec<Part> {
    if summary["command"].as_str() != Some(COMMAND) {
        return Vec::new();
    }
    let Ok(drill) = serde_json::from_value::<DrillReport>(summary.clone()) else {
        return Vec::new();
    };
    let mut parts = vec![Part::Heading("What the drill showed"), Part::Paragraph(sentence(&drill))];
    parts.extend([Part::Heading("Time by phase"), phases(&drill.phases)]);
    parts.extend(drawn(&drill).map(|svg| Part::Drawing {
        svg,
        caption: "Time from the declared loss by phase (blue), steps around the tool that were timed (grey), the RTO (red, dashed)",
    }));
    parts.extend([Part::Heading("Steps around the tool"), steps(&drill.steps)]);
    parts.extend([Part::Heading("The runs it is made of"), runs(&drill)]);
    parts.extend([Part::Heading("Integrity"), integrity(&drill)]);
    parts.extend([Part::Heading("Reads with a known answer"), reads(&drill)]);
    parts.extend([
        Part::Heading("The scratch targets afterwards"),
        list(&drill.torn_down, "It did not come so far."),
    ]);
    parts
}

fn sentence(drill: &DrillReport) -> String {
    let lost = match drill.lose.word() {
        "both" => "redis and bigquery were lost",
        "bigquery" => "bigquery was lost",
        _ => "redis was lost",
    };
    let at = drill.lost_at.as_deref().unwrap_or("an unknown time");
    format!("It was declared that {lost} at {at}. Verdict: {}.", drill.verdict)
}

fn phases(phases: &[Phase]) -> Part {
    let row = |phase: &Phase| {
        vec![
            phase.name.clone(),
            phase.started_at.clone(),
            seconds(phase.seconds),
            phase.since_loss.map_or_else(|| "not on the clock".to_owned(), clock_of_seconds),
            phase.outcome.clone(),
        ]
    };
    Part::Table {
        head: vec!["phase", "began (UTC)", "took", "from the loss to its end", "outcome"],
        rows: phases.iter().map(row).collect(),
    }
}

fn steps(steps: &[Step]) -> Part {
    let row = |step: &Step| {
        vec![
            step.name.clone(),
            step.what.clone(),
            step.owner.clone(),
            step.minutes.map_or_else(|| "UNKNOWN".to_owned(), |minutes| format!("{minutes} min")),
        ]
    };
    Part::Table {
        head: vec!["step", "what", "owner", "timed"],
        rows: steps.iter().map(row).collect(),
    }
}

fn runs(drill: &DrillReport) -> Part {
    let row = |part: &crate::drill::Part| {
        vec![
            part.command.clone(),
            part.run_id.clone(),
            part.status.clone(),
            count(part.rows),
            seconds(part.seconds),
        ]
    };
    Part::Table {
        head: vec!["command", "run", "ended as", "rows", "took"],
        rows: drill.parts.iter().map(row).collect(),
    }
}

fn integrity(drill: &DrillReport) -> Part {
    pairs(vec![
        ("compared at tier", drill.verified.tier.clone()),
        ("keys and rows that were compared", count(drill.verified.keys_compared)),
        ("differences", count(drill.verified.differences)),
        ("rows rejected", count(drill.carried.rejects)),
        ("what it detects", drill.verified.detects.clone()),
    ])
}

fn reads(drill: &DrillReport) -> Part {
    let row = |read: &crate::drill::Read| {
        let asked = if read.asked.is_empty() { "not asked" } else { &read.asked };
        vec![read.route.clone(), asked.to_owned(), read.note.clone()]
    };
    Part::Table {
        head: vec!["route", "asked", "answer"],
        rows: drill.reads.iter().map(row).collect(),
    }
}

/// One bar: its name, where it begins and ends in seconds, and its colour.
type Bar = (String, f64, f64, RGBColor);

/// Phases lie where they were; steps that were timed are added behind them.
fn bars(drill: &DrillReport) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    for phase in &drill.phases {
        if let Some(end) = phase.since_loss {
            bars.push((phase.name.clone(), (end - phase.seconds).max(0.0), end, BLUE));
        }
    }
    let mut end = bars.last().map_or(0.0, |(_, _, end, _)| *end);
    for step in &drill.steps {
        if let Some(minutes) = step.minutes.filter(|minutes| *minutes > 0.0) {
            let took = minutes * 60.0;
            bars.push((step.name.clone(), end, end + took, RGBColor(150, 150, 150)));
            end += took;
        }
    }
    bars
}

fn drawn(drill: &DrillReport) -> Option<String> {
    let bars = bars(drill);
    let last = bars.last().map(|(_, _, end, _)| *end).filter(|end| *end > 0.0)?;
    let mut svg = String::new();
    draw(&mut svg, &bars, (last, drill.rto_seconds as f64)).ok()?;
    Some(svg)
}

fn draw(
    svg: &mut String,
    bars: &[Bar],
    (last, rto): (f64, f64),
) -> Result<(), Box<dyn std::error::Error>> {
    let rows = u32::try_from(bars.len())?;
    let root = SVGBackend::with_string(svg, (WIDTH, rows * BAR + AROUND)).into_drawing_area();
    root.fill(&WHITE)?;
    // An RTO far away would leave nothing to be seen of the phases; then the axis says that it lies beyond.
    let is_shown = rto <= last * 20.0;
    let end = if is_shown { last.max(rto) } else { last } * 1.05;
    let beyond = if is_shown { "" } else { ", beyond the right edge" };
    let height = f64::from(rows);
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..end, 0.0..height)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc(format!(
            "time since the declared loss; the RTO is {}{beyond}",
            clock_of_seconds(rto)
        ))
        .x_labels(8)
        .y_labels(0)
        .x_label_formatter(&|at| clock_of_seconds(*at))
        .label_style(LABELS)
        .axis_desc_style(LABELS)
        .light_line_style(WHITE)
        .draw()?;
    let middles = (0..rows).map(|row| height - f64::from(row) - 0.5);
    for ((name, from, to, colour), middle) in bars.iter().zip(middles) {
        let corners = [(*from, middle - 0.3), (*to, middle + 0.3)];
        chart.draw_series([Rectangle::new(corners, colour.filled())])?;
        let (_, pixel) = chart.backend_coord(&(*from, middle));
        root.draw(&Text::new(name.clone(), (16, pixel - 7), LABELS.into_font()))?;
    }
    if is_shown {
        let line = [(rto, 0.0), (rto, height)];
        chart.draw_series(DashedLineSeries::new(line, 6, 4, RED.stroke_width(2)))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The summary of a made-up drill of both.
    const DRILL: &str = r#"{
        "command": "drill", "run_id": "d1", "status": "done", "lose": "both",
        "lost_at": "2026-11-29T12:00:00Z", "clock_from": "loss",
        "started_at": "2026-11-29T11:59:59Z", "ended_at": "2026-11-29T12:05:00Z",
        "seconds": 301.0, "seconds_since_loss": 240.0, "seconds_with_steps": 960.0,
        "rto_seconds": 3600, "within_rto": true, "data_as_of": "2026-11-29T11:00:00Z",
        "rpo_seconds": 3600.0, "within_rpo": true, "verdict": "the measured part fits",
        "steps": [
            {"name": "create-instance", "what": "create it", "owner": "platform", "minutes": 12.0},
            {"name": "repoint", "what": "repoint it", "owner": "application", "minutes": null}
        ],
        "unknown_steps": ["repoint"],
        "parts": [
            {"command": "rebuild redis", "run_id": "r1", "status": "done", "rows": 1000, "seconds": 100.0}
        ],
        "reads": [
            {"route": "builds", "asked": "HMGET build:7", "is_as_known": true, "note": "as the row says"}
        ],
        "torn_down": ["redis at h:1/0 holds 0 keys", "dataset d does not exist"],
        "objectives": [], "differences": [], "not_tested": ["a thing"],
        "rows": 2000, "bytes": 5, "written": 2000, "kept": 0, "expired": 0, "rejects": 0,
        "rows_per_second": 10.0, "peak_rss_bytes": 5, "resumed": 0, "routes": [], "warnings": [],
        "verified": {
            "tier": "full", "keys_counted": 2000, "keys_compared": 2000, "differences": 0,
            "newer": 0, "detects": "anything"
        }
    }"#;

    fn summary() -> Value {
        let phase = |name: &str, seconds: f64, since: Option<f64>| {
            json!({"name": name, "started_at": "2026-11-29T12:00:00Z", "seconds": seconds,
                "since_loss": since, "outcome": "done"})
        };
        let mut drill: Value = serde_json::from_str(DRILL).unwrap();
        drill["phases"] = json!([
            phase("empty the scratch targets", 1.0, None),
            phase("restore bigquery", 120.0, Some(120.0)),
            phase("rebuild redis", 120.0, Some(240.0)),
            phase("take the scratch targets down", 1.0, None),
        ]);
        drill
    }

    #[test]
    fn timed_steps_have_a_bar_and_unknown_ones_have_none() {
        let drill: DrillReport = serde_json::from_value(summary()).unwrap();
        let found = bars(&drill);
        let told: Vec<(&str, f64, f64)> =
            found.iter().map(|(name, from, to, _)| (name.as_str(), *from, *to)).collect();
        assert_eq!(
            told,
            [
                ("restore bigquery", 0.0, 120.0),
                ("rebuild redis", 120.0, 240.0),
                ("create-instance", 240.0, 960.0),
            ]
        );
        let svg = drawn(&drill).unwrap();
        for name in ["restore bigquery", "rebuild redis", "create-instance", "the RTO is 01:00:00"]
        {
            assert!(svg.contains(name), "{name}: {svg}");
        }
        assert!(!svg.contains("repoint"), "{svg}");
    }

    #[test]
    fn only_a_drill_has_these_parts() {
        assert!(parts(&json!({"command": "rebuild redis", "phases": []})).is_empty());
        assert!(parts(&summary()).len() > 10);
    }
}
