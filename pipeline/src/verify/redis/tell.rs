//! The end of a verification: what was found becomes one report.
//!
//! Invariant: with an error the whole is inconclusive, whatever the routes say.

use super::report::{Counted, Report, RouteReport};
use super::run::{Known, Run};
use crate::lane::now_ms;
use crate::summarize::{peak_rss_bytes, rfc3339};
use crate::verify::{Ended, Tier, Told, Verdict};
use schemas::Route;
use schemas::plan::RejectsMax;
use stages::{Error, Kind};
use std::path::Path;
use std::time::Instant;

impl Run {
    pub(super) fn tell(&self, mut known: Known, began: Instant) -> Ended {
        let mut total = Counted::default();
        for route in &known.routes {
            total.add(&route.counted);
        }
        let elapsed = began.elapsed().as_secs_f64();
        let status = if known.errors.is_empty() {
            Verdict::of_all(known.routes.iter().map(|route| route.verdict))
        } else {
            Verdict::Inconclusive
        };
        let report = Report {
            command: "verify redis",
            run_id: self.id.clone(),
            status,
            tier: self.tier().word(),
            detects: self.detects(&known.routes),
            seed: matches!(self.tier(), Tier::Sample(_)).then_some(self.options.verify.seed),
            target: self.ends.sink.address().to_owned(),
            started_at: rfc3339(self.started_ms),
            ended_at: rfc3339(now_ms()),
            seconds: elapsed,
            data_as_of: known.data_as_of_us.map(|us| rfc3339(us.div_euclid(1_000))),
            total,
            rows_per_second: if elapsed > 0.0 { total.rows as f64 / elapsed } else { 0.0 },
            peak_rss_bytes: peak_rss_bytes(),
            findings: known.findings.as_deref().map(Path::display).map(|path| path.to_string()),
            repair: known.repaired,
            routes: known.routes,
            warnings: known.warnings,
        };
        known.errors.extend(self.over_budget(&report.routes));
        match serde_json::to_value(&report) {
            Ok(json) => {
                let told = Told { verdict: status, json, text: report.render() };
                Ended { told: Some(told), errors: known.errors }
            }
            Err(error) => {
                let message = "the report cannot be written as JSON";
                known.errors.push(Error::new(Kind::Internal, message).with_source(error));
                Ended::failed(known.errors)
            }
        }
    }

    /// Says what the values compared would have found; the route with the fewest decides.
    fn detects(&self, routes: &[RouteReport]) -> String {
        let fewest = routes.iter().map(|route| route.counted.compared).min().unwrap_or(0);
        let values = self.tier().detects(fewest);
        match self.tier() {
            Tier::Full => "any missing, different or unexplained key".to_owned(),
            Tier::Sample(_) => format!("any missing key, any other expiry; {values}"),
            Tier::Count => format!("any missing key, any other expiry; {values}"),
        }
    }

    /// Routes with more rows that cannot be carried than their plan allows.
    fn over_budget(&self, reports: &[RouteReport]) -> Vec<Error> {
        let over = |(route, report): (&Route, &RouteReport)| {
            let Counted { rows, rejects, .. } = report.counted;
            let allowed = match route.rejects_max {
                RejectsMax::Rows(rows) => rows as f64,
                RejectsMax::Percent(share) => rows as f64 * share / 100.0,
            };
            (rejects as f64 > allowed).then(|| {
                let message = format!(
                    "route {}: {rejects} of {rows} rows cannot be carried, more than rejects_max allows",
                    route.name
                );
                Error::new(Kind::Rejected, message)
                    .with_hint("mend the rows or the route, or raise rejects_max")
            })
        };
        self.chosen.iter().zip(reports).filter_map(over).collect()
    }
}
