//! The key of a row: what it gives back, and whether it is the one that the row would be written under.
//!
//! Invariant: a decoded row renders to the very key it was found under.

use super::column::{Column, Values};
use super::fault::RowFault;
use crate::bind::{FieldValue, ReverseRoute};
use crate::key::{Filter, KeyTemplate, find};
use crate::text;
use crate::text::US_PER_DAY;

/// Takes keys apart.
#[derive(Debug)]
pub(super) struct Key {
    template: KeyTemplate,
    parts: Vec<Part>,
    /// What is rendered to be compared.
    rendered: Vec<u8>,
    /// Where the texts of the placeholders stand in the key.
    spans: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Part {
    column: usize,
    /// Whether the column comes from here, and from nowhere before.
    is_source: bool,
}

impl Key {
    pub(super) fn new(route: &ReverseRoute) -> Self {
        let template = route.key.template().clone();
        let mut seen: Vec<usize> = route
            .fields
            .iter()
            .filter_map(|field| match field.value {
                FieldValue::Column(index) => Some(index),
                FieldValue::Path(..) | FieldValue::Constant(_) => None,
            })
            .collect();
        let mut parts = Vec::new();
        for (column, placeholder) in route.key.indexes().zip(template.placeholders()) {
            let is_source = !placeholder.filter.is_lossy() && !seen.contains(&column);
            if is_source {
                seen.push(column);
            }
            parts.push(Part { column, is_source });
        }
        Self { template, parts, rendered: Vec::new(), spans: Vec::new() }
    }

    /// Pushes the columns that only the key has.
    pub(super) fn push(
        &mut self,
        key: &[u8],
        columns: &mut [Column],
        names: impl Fn(usize) -> String,
    ) -> Result<(), RowFault> {
        self.split(key)?;
        for ((part, placeholder), (start, end)) in
            self.parts.iter().zip(self.template.placeholders()).zip(&self.spans)
        {
            if !part.is_source {
                continue;
            }
            let rendered = &key[*start..*end];
            let column = &mut columns[part.column];
            let pushed = if placeholder.filter == Filter::None {
                column.push_text(rendered)
            } else {
                let undone = placeholder.filter.undo(rendered).ok_or(RowFault::Key)?;
                column.push_text(&undone)
            };
            pushed.map_err(|wrong| wrong.of_column(&names(part.column)))?;
        }
        Ok(())
    }

    /// Compares the key with the one that the pushed row renders to.
    pub(super) fn check(
        &mut self,
        key: &[u8],
        columns: &[Column],
        names: impl Fn(usize) -> String,
    ) -> Result<(), RowFault> {
        for ((part, placeholder), (start, end)) in
            self.parts.iter().zip(self.template.placeholders()).zip(&self.spans)
        {
            let column = &columns[part.column];
            let is_same_text = part.is_source
                && placeholder.filter == Filter::None
                && matches!(column.values, Values::Text(_));
            if is_same_text {
                continue;
            }
            self.rendered.clear();
            let is_rendered = column.write_last(&mut self.rendered)
                && placeholder.filter.apply(0, column.last_us(), &mut self.rendered);
            if !is_rendered || self.rendered != key[*start..*end] {
                let reason = "does not render to the text that the key has for it";
                return Err(RowFault::Column { column: names(part.column), reason });
            }
        }
        Ok(())
    }

    fn split(&mut self, key: &[u8]) -> Result<(), RowFault> {
        self.spans.clear();
        let leading = self.template.leading_literal().len();
        if !key.starts_with(self.template.leading_literal().as_bytes()) {
            return Err(RowFault::Key);
        }
        let mut at = leading;
        for placeholder in self.template.placeholders() {
            let literal = placeholder.literal.as_bytes();
            let rest = &key[at..];
            let end = if literal.is_empty() { Some(rest.len()) } else { find(rest, literal) };
            let end = at + end.ok_or(RowFault::Key)?;
            self.spans.push((at, end));
            at = end + literal.len();
        }
        if at == key.len() { Ok(()) } else { Err(RowFault::Key) }
    }
}

impl Column {
    /// Appends the canonical text of the last value; returns whether there is one, of a type that keys have.
    fn write_last(&self, out: &mut Vec<u8>) -> bool {
        let row = self.len() - 1;
        if !self.nulls.is_valid(row) {
            return false;
        }
        match &self.values {
            Values::Bool(values) => {
                out.extend_from_slice(if values.get_bit(row) { b"true" } else { b"false" });
            }
            Values::Int8(values) => text::write_integer(values[row], out),
            Values::Decimal128(values) => text::write_decimal128(values[row], out),
            Values::Decimal256(values) => text::write_decimal256(values[row], out),
            Values::Text(values) => out.extend_from_slice(values.last()),
            Values::Date(values) => text::write_date(values[row], out),
            Values::Time(values) => text::write_time(values[row], out),
            Values::Timestamp(values) => text::write_timestamp(values[row], false, out),
            Values::TimestampTz(values) => text::write_timestamp(values[row], true, out),
            // `bind` lets none of these into a key.
            Values::Float8(_)
            | Values::Interval(_)
            | Values::Bytes(_)
            | Values::Json(_)
            | Values::Range(_)
            | Values::Struct(_)
            | Values::Array { .. } => return false,
        }
        true
    }

    /// The last value as microseconds since 1970-01-01 UTC, of a type that `date:` takes.
    fn last_us(&self) -> Option<i64> {
        match &self.values {
            Values::Date(values) => values.last().map(|days| i64::from(*days) * US_PER_DAY),
            Values::Timestamp(values) | Values::TimestampTz(values) => values.last().copied(),
            _ => None,
        }
    }
}
