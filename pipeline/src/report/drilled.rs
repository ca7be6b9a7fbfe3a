//! What a report says of a drill: its phases beside the RTO, the steps around the tool, the reads, and what became of the
//! scratch targets.
//!
//! Invariant: a step that nobody timed is shown as UNKNOWN, and no bar is drawn for it.

use super::bars::{self, Axis, Bar};
use super::{Part, list, pairs};
use crate::cli::figures::{clock_of_seconds, count, seconds};
use crate::drill::{COMMAND, DrillReport, Phase, Step};
use plotters::style::{BLUE, RGBColor};
use serde_json::Value;

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
    parts.extend(drawn(&drill));
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

/// Phases lie where they were since the loss.
fn own_bars(drill: &DrillReport) -> Vec<Bar> {
    let bar = |phase: &Phase| {
        let to = phase.since_loss?;
        Some(Bar { name: phase.name.clone(), from: (to - phase.seconds).max(0.0), to })
    };
    drill.phases.iter().filter_map(bar).collect()
}

/// Steps that were timed, one after the other.
fn step_bars(drill: &DrillReport) -> Vec<Bar> {
    let mut end = 0.0;
    let mut bars = Vec::new();
    for step in &drill.steps {
        if let Some(minutes) = step.minutes.filter(|minutes| *minutes > 0.0) {
            let from = end;
            end += minutes * 60.0;
            bars.push(Bar { name: step.name.clone(), from, to: end });
        }
    }
    bars
}

/// The time of the tool and that of the steps around it, each on an axis of its own: seconds beside hours are not seen.
fn drawn(drill: &DrillReport) -> Vec<Part> {
    let rto = drill.rto_seconds as f64;
    let own = own_bars(drill);
    let end = own.last().map_or(0.0, |bar| bar.to);
    let of_phases =
        Axis { title: "since the declared loss", mark: ("the RTO is", rto), colour: BLUE };
    let of_steps = Axis {
        title: "the steps in turn",
        mark: ("the RTO leaves them", rto - end),
        colour: RGBColor(150, 150, 150),
    };
    let phases = bars::drawn(&own, &of_phases).map(|svg| Part::Drawing {
        svg,
        caption: "Time of the tool by phase, from the declared loss (blue); the RTO (red, dashed) where it lies within the axis",
    });
    let steps = bars::drawn(&step_bars(drill), &of_steps).map(|svg| Part::Drawing {
        svg,
        caption: "Steps around the tool that were timed (grey), on another axis than the phases; what the RTO leaves for them (red, dashed) where it lies within the axis",
    });
    phases.into_iter().chain(steps).collect()
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
        let told = |bars: Vec<Bar>| -> Vec<(String, f64, f64)> {
            bars.into_iter().map(|bar| (bar.name, bar.from, bar.to)).collect()
        };
        assert_eq!(
            told(own_bars(&drill)),
            [
                ("restore bigquery".to_owned(), 0.0, 120.0),
                ("rebuild redis".to_owned(), 120.0, 240.0),
            ]
        );
        assert_eq!(told(step_bars(&drill)), [("create-instance".to_owned(), 0.0, 720.0)]);
    }

    #[test]
    fn phases_and_steps_are_drawn_apart_each_on_its_own_axis() {
        let drill: DrillReport = serde_json::from_value(summary()).unwrap();
        let svgs = |drill: &DrillReport| -> Vec<String> {
            let svg = |part| match part {
                Part::Drawing { svg, .. } => svg,
                other => panic!("{other:?}"),
            };
            drawn(drill).into_iter().map(svg).collect()
        };
        let found = svgs(&drill);
        assert_eq!(found.len(), 2);
        let shown = [
            "restore bigquery, 00:02:00",
            "rebuild redis, 00:02:00",
            "since the declared loss; the RTO is 01:00:00",
        ];
        for text in shown {
            assert!(found[0].contains(text) && !found[1].contains(text), "{text}: {}", found[0]);
        }
        for text in ["create-instance, 00:12:00", "the RTO leaves them 00:56:00"] {
            assert!(found[1].contains(text) && !found[0].contains(text), "{text}: {}", found[1]);
        }
        assert!(found.iter().all(|svg| !svg.contains("repoint")));
        // Where nobody timed a step there is nothing to be drawn of any.
        let untimed: Vec<Step> =
            drill.steps.iter().map(|step| Step { minutes: None, ..step.clone() }).collect();
        assert_eq!(svgs(&DrillReport { steps: untimed, ..drill }).len(), 1);
    }

    #[test]
    fn only_a_drill_has_these_parts() {
        assert!(parts(&json!({"command": "rebuild redis", "phases": []})).is_empty());
        assert!(parts(&summary()).len() > 10);
    }
}
