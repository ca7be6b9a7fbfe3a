//! What a report says of a bench: its measured runs, the line fitted to them with its band, and production on it.
//!
//! Invariant: the line is fitted anew to the runs that the evidence holds, so a drawing never shows another one than they make.

use super::{Part, number, pairs};
use crate::bench::{Against, Needed, Quota, Sample, TableModel, Total, verdict};
use crate::cli::figures::{bytes, clock_of_seconds, count, per_second, seconds};
use crate::growth::Growth;
use crate::model::{Model, Observation};
use crate::plan::{Predicted, WHOLE};
use plotters::prelude::*;
use serde_json::Value;

const SIZE: (u32, u32) = (900, 360);
const LABELS: (&str, i32) = ("sans-serif", 14);
/// Points of the line and of each side of its band.
const STEPS: u32 = 60;

/// Returns the parts of a bench; none for anything else.
pub(super) fn parts(summary: &Value) -> Vec<Part> {
    let samples = serde_json::from_value::<Vec<Sample>>(summary["samples"].clone());
    let predicted = serde_json::from_value::<Predicted>(summary["predicted"].clone());
    let Ok(samples) = samples else { return Vec::new() };
    let Ok(predicted) = predicted else {
        if let Some(parts) = tables(summary, &samples) {
            return parts;
        }
        // It did not come to its end.
        return vec![Part::Heading("What was measured"), measured(&samples)];
    };
    let rows = summary["rows"].as_u64().unwrap_or(0);
    let rto = summary["rto_seconds"].as_u64().unwrap_or(0);
    let mut says = vec![
        ("written into", written_into(summary)),
        ("rows, by the statistics of the sources", count(rows)),
        ("time of a rebuild", predicted.line()),
        ("RTO", clock_of_seconds(rto as f64)),
        ("rows that the RTO has time for", number(summary, "rows_within_rto")),
    ];
    says.extend(needed(summary));
    let mut parts = vec![Part::Heading("What was measured"), measured(&samples)];
    parts.extend([Part::Heading("What that says of production"), pairs(says)]);
    parts.extend(limits(summary));
    parts.extend(drawn(&samples, (rows, grown(&predicted)), rto).map(|svg| Part::Drawing {
        svg,
        caption: "Seconds by rows, both on logarithmic scales: measured runs (blue), the fitted line with its 95 % band (grey), production (red), the RTO (dashed)",
    }));
    parts
}

/// What a bench of BigQuery says; `None` for anything else.
fn tables(summary: &Value, samples: &[Sample]) -> Option<Vec<Part>> {
    let of = |name: &str| serde_json::from_value::<Total>(summary[name].clone()).ok();
    let tables = serde_json::from_value::<Vec<TableModel>>(summary["tables"].clone()).ok()?;
    let (backup, restore) = (of("backup")?, of("restore")?);
    let row = |table: &TableModel| {
        vec![
            table.table.clone(),
            count(table.rows),
            bytes(table.bytes),
            table.backup.line(),
            table.restore.line(),
        ]
    };
    let verdict = verdict(summary["within_rto"] == true, &quotas(summary));
    let rto = clock_of_seconds(summary["rto_seconds"].as_u64().unwrap_or(0) as f64);
    let mut says = vec![
        ("backup of all tables", backup.line()),
        ("restore of all tables", restore.line()),
        ("RTO", format!("{rto}: {verdict} by prediction")),
    ];
    says.extend(needed(summary));
    let mut parts = vec![
        Part::Heading("What was measured"),
        measured(samples),
        Part::Heading("What that says of production"),
        Part::Table {
            head: vec!["table", "rows", "bytes", "backup", "restore"],
            rows: tables.iter().map(row).collect(),
        },
        pairs(says),
    ];
    parts.extend(limits(summary));
    Some(parts)
}

/// What would meet the RTO; of an earlier version no more than its advice.
fn needed(summary: &Value) -> Vec<(&'static str, String)> {
    let advice = summary["advice"].as_str().unwrap_or("unknown").to_owned();
    let mut rows = vec![("what would meet it", advice.clone())];
    let Ok(needed) = serde_json::from_value::<Needed>(summary["needed"].clone()) else {
        return rows;
    };
    let more = |of: Option<u64>| of.map_or_else(|| "more would not help".to_owned(), count);
    let lanes = match (needed.lanes, needed.lanes_measured.is_empty()) {
        (Some(lanes), _) => count(lanes as u64),
        (None, true) => "not measured".to_owned(),
        (None, false) => "none of those measured".to_owned(),
    };
    rows.extend([
        ("fewest lanes, of those measured", lanes),
        ("Redis nodes", more(needed.redis_nodes)),
        ("machines like this one", more(needed.machines)),
    ]);
    rows.extend(needed.beside(&advice).map(|told| ("", told.clone())));
    rows
}

fn written_into(summary: &Value) -> String {
    let target = summary["target"].as_str().unwrap_or("unknown");
    match serde_json::from_value::<Against>(summary["against"].clone()) {
        Ok(Against { address, prefix, removed_keys }) => format!(
            "the plan's own redis at {address} ({target}), under {prefix}*: {} keys, all removed",
            count(removed_keys)
        ),
        Err(_) => format!("a throwaway server of the machine ({target})"),
    }
}

/// The limits that a bench has found; none where it knew of none.
fn quotas(summary: &Value) -> Vec<Quota> {
    serde_json::from_value(summary["quotas"].clone()).unwrap_or_default()
}

/// Limits that production would meet, where any are known.
fn limits(summary: &Value) -> Option<Part> {
    let quotas = quotas(summary);
    let row = |quota: &Quota| vec![quota.line()];
    (!quotas.is_empty()).then(|| Part::Table {
        head: vec!["limits of others, and how much of each production would take"],
        rows: quotas.iter().map(row).collect(),
    })
}

fn measured(samples: &[Sample]) -> Part {
    let row = |sample: &Sample| {
        vec![
            sample.kind.clone(),
            sample.routes.join(", "),
            count(sample.rows),
            seconds(sample.seconds),
            per_second(sample.rows_per_second),
            sample.waited_for(),
        ]
    };
    Part::Table {
        head: vec!["run", "routes", "rows", "time", "rows per second", "waited for"],
        rows: samples.iter().map(row).collect(),
    }
}

/// What is drawn, in rows and seconds.
struct Drawing {
    points: Vec<(f64, f64)>,
    line: Vec<(f64, f64)>,
    band: Vec<(f64, f64)>,
    production: (f64, f64),
    rto: f64,
}

/// The growth that a prediction was made with; an earlier version made it without.
fn grown(predicted: &Predicted) -> Growth {
    if predicted.growth > 1.0 { predicted.fitted_to.growth() } else { Growth::NONE }
}

fn drawn(samples: &[Sample], (rows, growth): (u64, Growth), rto: u64) -> Option<String> {
    let runs: Vec<Observation> =
        samples.iter().filter(|sample| sample.kind == WHOLE).map(Sample::observation).collect();
    let model = Model::fit(&runs)?.growing(growth);
    let at = |rows: f64| model.predict_rows(rows);
    let (first, last) = (model.range.0, model.range.1.max(rows as f64));
    let step = |step: u32| first * (last / first).powf(f64::from(step) / f64::from(STEPS));
    let along = |of: &dyn Fn(f64) -> Option<f64>| -> Vec<(f64, f64)> {
        (0..=STEPS).map(step).filter_map(|rows| Some((rows, of(rows)?))).collect()
    };
    let mut band = along(&|rows| at(rows).interval.map(|(least, _)| least));
    let upper = along(&|rows| at(rows).interval.map(|(_, most)| most));
    band.extend(upper.into_iter().rev());
    let drawing = Drawing {
        points: runs.iter().map(|run| (run.rows, run.seconds)).collect(),
        line: along(&|rows| Some(at(rows).seconds)),
        band,
        production: (rows as f64, at(rows as f64).seconds),
        rto: rto as f64,
    };
    let mut svg = String::new();
    draw(&mut svg, &drawing).ok()?;
    Some(svg)
}

fn draw(svg: &mut String, drawing: &Drawing) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let all = || drawing.points.iter().chain(&drawing.line).chain([&drawing.production]);
    let least = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(f64::INFINITY, f64::min).max(1e-3);
    let most = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(1e-3, f64::max);
    let (left, right) = (least(|at| at.0) / 1.5, most(|at| at.0) * 1.5);
    let (low, high) = (least(|at| at.1) / 2.0, most(|at| at.1).max(drawing.rto) * 2.0);
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(90)
        .build_cartesian_2d((left..right).log_scale(), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("rows")
        .y_desc("time")
        .x_label_formatter(&|rows| per_second(*rows))
        .y_label_formatter(&|time| seconds(*time))
        .label_style(LABELS)
        .axis_desc_style(LABELS)
        .light_line_style(WHITE)
        .draw()?;
    let band = drawing.band.iter().map(|(rows, time)| (*rows, time.max(low)));
    chart
        .draw_series([Polygon::new(band.collect::<Vec<_>>(), RGBColor(220, 220, 220).filled())])?;
    chart.draw_series(LineSeries::new(drawing.line.iter().copied(), BLACK.stroke_width(1)))?;
    chart.draw_series(DashedLineSeries::new(
        [(left, drawing.rto), (right, drawing.rto)],
        6,
        4,
        RED.stroke_width(1),
    ))?;
    let dot =
        |at: &(f64, f64), size: i32, colour: RGBColor| Circle::new(*at, size, colour.filled());
    chart.draw_series(drawing.points.iter().map(|at| dot(at, 3, BLUE)))?;
    chart.draw_series([dot(&drawing.production, 5, RED)])?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::FittedTo;

    fn sample(rows: u64, seconds: f64) -> Sample {
        Sample {
            kind: WHOLE.to_owned(),
            routes: vec!["builds".to_owned()],
            rows,
            bytes: rows * 100,
            seconds,
            rows_per_second: rows as f64 / seconds,
            lanes: 4,
            limit: "target".to_owned(),
            limit_share: Some(0.61),
        }
    }

    #[test]
    fn measured_runs_their_line_and_production_are_drawn() {
        let samples = [sample(200_000, 1.0), sample(500_000, 2.3), sample(1_000_000, 4.4)];
        let svg = drawn(&samples, (10_000_000, Growth::NONE), 86_400).unwrap();
        assert_eq!(svg.matches("<circle").count(), 4, "{svg}");
        assert!(svg.matches("<polygon").count() == 1 && svg.contains("<polyline"), "{svg}");
        // What is no measured run of everything makes no line.
        let alone = [Sample { kind: "route".to_owned(), ..sample(5, 1.0) }];
        assert_eq!(drawn(&alone, (10, Growth::NONE), 10), None);
    }

    #[test]
    fn production_is_drawn_where_the_text_of_its_evidence_has_it() {
        let samples = [sample(200_000, 1.0), sample(500_000, 2.3), sample(1_000_000, 4.4)];
        let runs: Vec<Observation> = samples.iter().map(Sample::observation).collect();
        let rows = 10_000_000;
        let now = Predicted::of(&runs, FittedTo::Benches, rows, 86_400).unwrap();
        let earlier = Predicted { growth: 1.0, ..now.clone() };
        let at = |predicted: &Predicted| {
            let model = Model::fit(&runs).unwrap().growing(grown(predicted));
            model.predict_rows(rows as f64).seconds
        };
        assert!((at(&now) - now.seconds).abs() < 1e-9, "{now:?}");
        assert!(at(&earlier) < now.seconds * 0.9);
        let drawing = |predicted| drawn(&samples, (rows, grown(predicted)), 86_400).unwrap();
        assert_ne!(drawing(&now), drawing(&earlier));
    }

    #[test]
    fn only_a_bench_has_these_parts() {
        assert!(parts(&serde_json::json!({ "command": "rebuild redis", "rows": 5 })).is_empty());
        // One that failed shows what it had measured, and no prediction.
        let failed = serde_json::json!({ "command": "bench", "samples": [sample(5, 1.0)] });
        let found = parts(&failed);
        assert_eq!(found.len(), 2);
        assert!(matches!(&found[1], Part::Table { rows, .. } if rows.len() == 1), "{found:?}");
    }
}
