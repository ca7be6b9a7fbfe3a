//! The answer to a loss as text.
//!
//! Invariant: it shows what the JSON holds, nothing else.

use super::{Dataset, Fate, LossReport};
use std::fmt::Write;

impl Fate {
    fn told(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Recoverable => "recoverable",
            Self::OwnBackups => "from its own backups",
            Self::Unknown => "UNKNOWN",
            Self::Unrecoverable => "UNRECOVERABLE",
        }
    }
}

impl LossReport {
    /// Renders the report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.write_to(&mut text).unwrap_or_default();
        text
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "lost: {}  (asked of the plan alone; nothing is written)",
            self.lost.join(", ")
        )?;
        writeln!(out, "\ndatasets:")?;
        for dataset in &self.datasets {
            dataset.write_to(out)?;
        }
        if !self.order.is_empty() {
            writeln!(out, "\nin this order:")?;
        }
        for (number, step) in (1..).zip(&self.order) {
            writeln!(out, "  {number}. {step}")?;
        }
        match self.unrecoverable.as_slice() {
            [] => writeln!(out, "\nunrecoverable: nothing that the plan can tell")?,
            names => {
                writeln!(out, "\nunrecoverable:")?;
                names.iter().try_for_each(|name| writeln!(out, "  {name}"))?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))
    }
}

impl Dataset {
    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "  {:<21} {}", self.fate.told(), self.name)?;
        if let Some(why) = &self.why {
            writeln!(out, "  {:21}   {why}", "")?;
        }
        match self.surviving.as_slice() {
            [] => writeln!(out, "  {:21}   surviving: nothing", ""),
            names => writeln!(out, "  {:21}   surviving: {}", "", names.join("; ")),
        }
    }
}
