//! A report as Markdown, with tables as GitHub writes them.
//!
//! Invariant: no value can end its cell, its line or its paragraph.

use super::{Part, Report};
use std::fmt::Write as _;

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("# {}\n", escaped(&report.title));
    for part in &report.parts {
        write(&mut text, part).expect("writing to a string cannot fail");
    }
    text
}

fn write(text: &mut String, part: &Part) -> std::fmt::Result {
    match part {
        Part::Heading(heading) => writeln!(text, "\n## {heading}"),
        Part::Paragraph(paragraph) => writeln!(text, "\n{}", escaped(paragraph)),
        Part::List(entries) => {
            writeln!(text)?;
            entries.iter().try_for_each(|entry| writeln!(text, "- {}", escaped(entry)))
        }
        Part::Table { head, rows } => {
            writeln!(text, "\n| {} |", head.join(" | "))?;
            writeln!(text, "|{}", "---|".repeat(head.len()))?;
            for row in rows {
                let cells: Vec<String> = row.iter().map(|cell| escaped(cell)).collect();
                writeln!(text, "| {} |", cells.join(" | "))?;
            }
            Ok(())
        }
        Part::Drawing { .. } => Ok(()),
    }
}

/// Takes their meaning from the characters that have one within a line.
fn escaped(plain: &str) -> String {
    let mut text = String::with_capacity(plain.len());
    for character in plain.chars() {
        match character {
            '\n' | '\r' => text.push(' '),
            '|' | '<' | '>' | '*' | '[' | ']' | '\\' => {
                text.push('\\');
                text.push(character);
            }
            other => text.push(other),
        }
    }
    text
}
