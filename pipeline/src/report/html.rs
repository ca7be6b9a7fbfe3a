//! A report as one HTML page: no script, no request, readable on screen and on paper.
//!
//! Invariant: every text is escaped; only the drawings of this program are markup.

use super::{Part, Report};
use std::fmt::Write as _;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#1c1c1c;max-width:62rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #ccc}\
table{border-collapse:collapse;margin:.8rem 0}th,td{text-align:left;vertical-align:top;padding:.25rem .7rem;border-bottom:1px solid #ddd}\
th{font-weight:600;background:#f4f4f4}td:not(:last-child){white-space:nowrap}td:last-child{overflow-wrap:anywhere}figure{margin:1rem 0}figcaption{color:#555;font-size:.9rem}\
svg{max-width:100%;height:auto}.met{color:#0a6b2d;font-weight:600}.missed{color:#a11212;font-weight:600}.unknown{color:#7a5200;font-weight:600}\
@media print{body{margin:0;max-width:none;font-size:11pt}h2{break-after:avoid}tr,figure{break-inside:avoid}}";

pub(super) fn render(report: &Report) -> String {
    let title = escaped(&report.title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    for part in &report.parts {
        write(&mut page, part).expect("writing to a string cannot fail");
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn write(page: &mut String, part: &Part) -> std::fmt::Result {
    match part {
        Part::Heading(heading) => writeln!(page, "<h2>{}</h2>", escaped(heading)),
        Part::Paragraph(text) => writeln!(page, "<p>{}</p>", escaped(text)),
        Part::List(entries) => {
            writeln!(page, "<ul>")?;
            entries.iter().try_for_each(|entry| writeln!(page, "<li>{}</li>", escaped(entry)))?;
            writeln!(page, "</ul>")
        }
        Part::Table { head, rows } => {
            writeln!(page, "<table>\n<thead><tr>")?;
            head.iter()
                .try_for_each(|cell| write!(page, "<th scope=\"col\">{}</th>", escaped(cell)))?;
            writeln!(page, "</tr></thead>\n<tbody>")?;
            for row in rows {
                write!(page, "<tr>")?;
                row.iter().try_for_each(|cell| {
                    write!(page, "<td{}>{}</td>", class(cell), escaped(cell))
                })?;
                writeln!(page, "</tr>")?;
            }
            writeln!(page, "</tbody>\n</table>")
        }
        Part::Drawing { svg, caption } => {
            let caption = escaped(caption);
            writeln!(
                page,
                "<figure role=\"img\" aria-label=\"{caption}\">{svg}<figcaption>{caption}</figcaption></figure>"
            )
        }
    }
}

/// Verdicts have a colour, beside their word.
fn class(cell: &str) -> &'static str {
    match cell {
        "met" => " class=\"met\"",
        "MISSED" => " class=\"missed\"",
        "UNKNOWN" => " class=\"unknown\"",
        _ => "",
    }
}

fn escaped(plain: &str) -> String {
    let mut text = String::with_capacity(plain.len());
    for character in plain.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            other => text.push(other),
        }
    }
    text
}
