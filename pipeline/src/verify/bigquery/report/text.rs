//! A verification of BigQuery for people: the same as its JSON, in lines.
//!
//! Invariant: it names keys and table partitions, never the value of a row.

use super::super::apart::Apart;
use super::{Part, Report, RowsReport, State, TableReport};
use crate::verify::Verdict;
use std::fmt::Write as _;

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Same => "the same",
            Self::Changed => "changed since",
            Self::New => "new since",
            Self::Expired => "expired",
            Self::Inconclusive => "inconclusive",
            Self::Lost => "lost in bigquery",
            Self::Missing => "missing in redis",
            Self::Different => "different",
            Self::Damaged => "damaged in redis",
        }
    }
}

impl Part {
    fn line(&self) -> String {
        let mut line = format!("    {:<12} {}", self.table_partition, self.state.word());
        // Writing to a string cannot fail.
        let mut add = |text: String| write!(line, "; {text}").unwrap_or_default();
        if self.damage_count > 0 {
            add(format!("{} in redis: {}", self.damage_count, self.damage.join("; ")));
        }
        if let (Some(copy), Some(now)) = (self.rows_in_duplicate, self.rows_in_bigquery) {
            add(format!("{copy} rows in the duplicate, {now} in bigquery"));
        }
        if let Some(rows) = &self.rows {
            add(rows.text());
        }
        if let Some(since) = &self.since {
            add(format!("since the backup: {}", since.text()));
        }
        if let Some(reason) = &self.reason {
            add(reason.clone());
        }
        line
    }
}

impl Apart {
    /// Says it in words.
    pub(in super::super) fn text(&self) -> String {
        let sorts = [
            (&self.missing_in_bigquery, "missing in bigquery"),
            (&self.missing_in_redis, "missing in redis"),
            (&self.different, "different"),
        ];
        let sorts = sorts.into_iter().filter(|(named, _)| named.rows > 0).map(|(named, word)| {
            let examples = match named.examples.as_slice() {
                [] => String::new(),
                examples => format!(" ({})", examples.join(", ")),
            };
            format!("{} rows {word}{examples}", named.rows)
        });
        let text: Vec<String> = sorts.collect();
        if text.is_empty() { "no row differs".to_owned() } else { text.join(", ") }
    }
}

impl TableReport {
    fn render(&self) -> String {
        let mut text = format!(
            "  {} (route {}): {}\n    {} table partitions, {} compared on both sides, {} blocks read, {} rows compared; detects {}\n",
            self.table,
            self.route,
            self.verdict.word(),
            self.table_partitions,
            self.compared,
            self.blocks_read,
            self.rows_compared,
            self.detects
        );
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        if let Some(as_of) = &self.data_as_of {
            line(&format!("    the duplicate holds data as of {as_of}"));
        }
        for problem in &self.problems {
            line(&format!("    {}: {}", problem.verdict.word(), problem.what));
            line(&format!("      hint: {}", problem.hint));
        }
        for part in &self.parts {
            line(&part.line());
            if let Some(hint) = &part.hint {
                line(&format!("      hint: {hint}"));
            }
        }
        if let Some(rows) = &self.rows {
            line(&rows.line());
        }
        if self.unexplained > 0 {
            let examples = self.unexplained_examples.join(", ");
            line(&format!("    {} keys that no manifest explains: {examples}", self.unexplained));
        }
        for note in &self.notes {
            line(&format!("    note: {note}"));
        }
        text
    }
}

impl RowsReport {
    fn line(&self) -> String {
        let mut line = format!(
            "    {} rows in bigquery, {} in redis",
            self.rows_in_bigquery, self.rows_in_redis
        );
        // Writing to a string cannot fail.
        let mut add = |text: String| write!(line, "; {text}").unwrap_or_default();
        if let Some(rows) = &self.rows {
            add(rows.text());
        }
        if self.settled > 0 {
            add(format!("{} differed at first and not any more", self.settled));
        }
        if self.rejects > 0 {
            let examples = self.reject_examples.join("; ");
            add(format!("{} rows of redis cannot be read back ({examples})", self.rejects));
        }
        if self.unfit_keys > 0 {
            add(format!("{} keys do not fit the template", self.unfit_keys));
        }
        line
    }
}

impl Report {
    /// Renders it for people.
    pub(in super::super) fn render(&self) -> String {
        let mut text = format!(
            "verify bigquery: {}\n  tier        {}\n  duplicate   {}\n  as of       {}, in {:.1} s\n",
            self.verdict.word(),
            self.tier,
            self.duplicate,
            self.as_of,
            self.seconds
        );
        for table in &self.tables {
            text.push_str(&table.render());
        }
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        if let Some(repair) = &self.repair {
            let word = if repair.dry_run { "would copy again" } else { "copied again" };
            line(format!("  repair      {word}: {}", named(&repair.copied_again)));
            for left in &repair.left {
                line(format!("  not mended  {left}"));
            }
        }
        for warning in &self.warnings {
            line(format!("  warning     {warning}"));
        }
        if self.verdict != Verdict::Pass {
            line(format!("  findings    {}", self.findings));
        }
        text
    }
}

fn named(what: &[String]) -> String {
    if what.is_empty() { "nothing".to_owned() } else { what.join(", ") }
}
