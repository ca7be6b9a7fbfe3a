//! Reports of made-up evidence.

use super::*;
use crate::evidence::{Ended, Event, FORMAT, Machine, PlanUsed, Point};
use serde_json::json;

fn evidence() -> Evidence {
    let objective = |name: &str, verdict, measured_seconds: Option<f64>| Objective {
        system: "redis".to_owned(),
        name: name.to_owned(),
        target_seconds: 86_400,
        measured_seconds,
        margin_seconds: measured_seconds.map(|seconds| 86_400.0 - seconds),
        verdict,
        how: "from the loss".to_owned(),
    };
    let point =
        |second: i64| Point { at_ms: second * 1_000, rows: second.unsigned_abs() * 100, bytes: 0 };
    Evidence {
        format: FORMAT,
        command: "rebuild redis".to_owned(),
        run_id: "r1".to_owned(),
        made_at: "2026-11-29T12:00:00Z".to_owned(),
        tool: "rekindle 0.1.0".to_owned(),
        machine: Machine {
            host: Some("ci".to_owned()),
            system: "linux".to_owned(),
            cores: 2,
            memory_bytes: Some(24_000_000_000),
        },
        run_by: "ada".to_owned(),
        plan: PlanUsed { path: "rekindle.toml".to_owned(), sha256: Some("ab".to_owned()) },
        ended: Ended { exit_code: 6, status: "done".to_owned() },
        objectives: vec![
            objective("RTO", Verdict::Missed, Some(90_000.0)),
            objective("RPO", Verdict::Unknown, None),
        ],
        timeline: vec![Event {
            at: "2026-11-29T11:00:00Z".to_owned(),
            what: "run started".to_owned(),
        }],
        throughput: vec![(0..20).map(point).collect(), (30..40).map(point).collect()],
        findings: vec!["a <script>alert(1)</script> | b".to_owned()],
        not_tested: vec!["no application read the result".to_owned()],
        summary: json!({
            "started_at": "2026-11-29T11:00:00Z", "rows": 1_000_000, "written": 999_999, "kept": 0, "expired": 1,
            "rejects": 0, "bytes": 1_500, "seconds": 42.12, "rows_per_second": 23_742.4, "peak_rss_bytes": 60_000_000,
            "resumed": 1,
            "verified": {"tier": "sample", "keys_counted": 999_999, "keys_compared": 1_000, "differences": 0, "detects": "any missing key"},
            "routes": [{"name": "builds", "rows": 1_000_000, "partitions": 32, "rejects": 0, "seconds": 80.0,
                "bottleneck": "target", "bottleneck_share": 0.95, "digest": "00ff"}],
        }),
    }
}

#[test]
fn a_report_in_markdown_says_everything_the_evidence_does() {
    let text = Report::of(&evidence(), "000001.json", "cd").markdown();
    for line in [
        "# rebuild redis, 2026-11-29T11:00:00Z",
        "The run ended as done (exit code 6). MISSED: RTO of redis. Unknown: RPO of redis.",
        "| redis | RTO | 24:00:00 | 25:00:00 | -01:00:00 | MISSED | from the loss |",
        "| redis | RPO | 24:00:00 | not measured |  | UNKNOWN | from the loss |",
        "| run by | ada on ci |",
        "| 2026-11-29T11:00:00Z | run started |",
        "| rows read | 1,000,000 |",
        "| builds | 1,000,000 | 32 | 0 | 00:01:20 | target 95 % | 00ff |",
        "| keys whose existence was checked | 999,999 |",
        "- a \\<script\\>alert(1)\\</script\\> \\| b",
        "- no application read the result",
        "This report is made of 000001.json, SHA-256 cd",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("<svg"), "{text}");
}

#[test]
fn a_page_needs_nothing_else_and_lets_nothing_in() {
    let page = Report::of(&evidence(), "000001.json", "cd").html();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(page.contains("a &lt;script&gt;alert(1)&lt;/script&gt; | b"));
    assert!(
        page.contains("<td class=\"missed\">MISSED</td>")
            && page.contains("<td class=\"unknown\">UNKNOWN</td>")
    );
    for foreign in ["<script", "src=", "href=\"http", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for tag in ["table", "thead", "tbody", "tr", "ul", "figure", "p", "h2"] {
        let (opened, closed) = (
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count(),
            page.matches(&format!("</{tag}>")).count(),
        );
        assert_eq!(opened, closed, "{tag}");
    }
}

#[test]
fn what_nobody_measured_is_called_unknown() {
    let bare =
        Evidence { summary: json!({}), throughput: Vec::new(), findings: Vec::new(), ..evidence() };
    let report = Report::of(&bare, "x", "y");
    let text = report.markdown();
    assert!(text.contains("# rebuild redis, 2026-11-29T12:00:00Z"), "{text}");
    assert!(text.contains("| rows read | unknown |") && text.contains("\nNone.\n"), "{text}");
    // There is nothing to draw but the clock.
    assert_eq!(report.html().matches("<svg").count(), 1);
}

#[test]
fn a_verification_tells_what_it_compared() {
    let mut verify = evidence();
    verify.command = "verify redis".to_owned();
    verify.summary =
        json!({"tier": "full", "keys": 10, "compared": 10, "missing": 1, "detects": "everything"});
    let text = Report::of(&verify, "x", "y").markdown();
    for line in
        ["| compared at tier | full |", "| missing | 1 |", "| what it detects | everything |"]
    {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("different_value"), "{text}");
}
