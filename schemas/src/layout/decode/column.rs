//! One column being filled: values from texts and from JSON, and what is needed to take a row back.
//!
//! Invariant: a column is as long as its null bits; nested columns are as long as their parent says, except between a
//! failed push and the `truncate` that follows it.

use super::fault::Wrong;
use super::json::{Cursor, NO_JSON};
use crate::text::parse;
use crate::type_map::ColumnType;
use arrow::array::{BooleanBufferBuilder, NullBufferBuilder};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, TimeUnit, i256};

pub(super) type Pushed = Result<(), Wrong>;

const IS_NULL: &str = "is null, which the table or the plan does not allow";
const TOO_LARGE: &str = "has more than 2 GiB in one batch";

/// A column, a member of a struct, the elements of an array or an end of a range.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) nulls: NullBufferBuilder,
    pub(super) is_nullable: bool,
    pub(super) data_type: DataType,
    pub(super) values: Values,
}

#[derive(Debug)]
pub(super) enum Values {
    Bool(BooleanBufferBuilder),
    Int8(Vec<i64>),
    Float8(Vec<f64>),
    Decimal128(Vec<i128>),
    Decimal256(Vec<i256>),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp(Vec<i64>),
    TimestampTz(Vec<i64>),
    Interval(Vec<IntervalMonthDayNano>),
    Text(Strings),
    Bytes(Strings),
    Json(Strings),
    Range(Box<[Column; 2]>),
    Struct(Vec<(String, Column)>),
    Array { offsets: Vec<i32>, elements: Box<Column> },
}

/// Variable-length values: value `i` is `data[offsets[i]..offsets[i + 1]]`.
#[derive(Debug)]
pub(super) struct Strings {
    pub(super) offsets: Vec<i32>,
    pub(super) data: Vec<u8>,
}

impl Strings {
    fn new(rows: usize) -> Self {
        Self { offsets: started(rows), data: Vec::with_capacity(rows * 16) }
    }

    /// Ends the value that was appended to `data`.
    fn close(&mut self) -> Pushed {
        self.offsets.push(i32::try_from(self.data.len()).map_err(|_| TOO_LARGE)?);
        Ok(())
    }

    #[inline]
    fn push(&mut self, value: &[u8]) -> Pushed {
        self.data.extend_from_slice(value);
        self.close()
    }

    fn push_utf8(&mut self, value: &[u8]) -> Pushed {
        std::str::from_utf8(value).map_err(|_| "is not UTF-8")?;
        self.push(value)
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.data.truncate(end_of(&self.offsets));
    }

    /// The last value.
    pub(super) fn last(&self) -> &[u8] {
        let before = self.offsets.len().checked_sub(2).map_or(0, |at| self.offsets[at]);
        &self.data[before.cast_unsigned() as usize..]
    }
}

/// Offsets before the first value.
fn started(rows: usize) -> Vec<i32> {
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0);
    offsets
}

/// Where the last value ends; offsets are never negative.
fn end_of(offsets: &[i32]) -> usize {
    offsets.last().map_or(0, |end| end.cast_unsigned() as usize)
}

impl Column {
    /// Makes room for `rows` values; `None` where the arrow type cannot hold the column type.
    pub(super) fn new(column_type: &ColumnType, field: &Field, rows: usize) -> Option<Self> {
        let data_type = field.data_type();
        let values = match (column_type, data_type) {
            (ColumnType::Array(element), DataType::List(item)) => {
                let mut elements = Self::new(element, item, rows)?;
                // An array of BigQuery holds no null, whatever arrow says of its items.
                elements.is_nullable = false;
                Values::Array { offsets: started(rows), elements: Box::new(elements) }
            }
            (ColumnType::Struct(members), DataType::Struct(fields)) => {
                if members.len() != fields.len() {
                    return None;
                }
                let member = |((name, kind), field): (&(String, ColumnType), &_)| {
                    let field: &arrow::datatypes::FieldRef = field;
                    let column = Self::new(kind, field, rows)?;
                    (field.name() == name).then(|| (name.clone(), column))
                };
                Values::Struct(members.iter().zip(fields).map(member).collect::<Option<_>>()?)
            }
            (ColumnType::Range(element), DataType::Struct(fields)) => {
                let [start, end] = &fields[..] else { return None };
                if start.name() != "start" || end.name() != "end" {
                    return None;
                }
                let ends = [Self::new(element, start, rows)?, Self::new(element, end, rows)?];
                Values::Range(Box::new(ends))
            }
            (ColumnType::TimestampTz, DataType::Timestamp(TimeUnit::Microsecond, Some(_))) => {
                Values::TimestampTz(Vec::with_capacity(rows))
            }
            _ if *data_type == column_type.arrow() => Values::scalar(column_type, rows)?,
            _ => return None,
        };
        Some(Self {
            nulls: NullBufferBuilder::new(rows),
            is_nullable: field.is_nullable(),
            data_type: data_type.clone(),
            values,
        })
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Takes back what was pushed after the first `rows` values, whole or in part.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.nulls.truncate(rows);
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows),
            Values::Int8(values)
            | Values::Time(values)
            | Values::Timestamp(values)
            | Values::TimestampTz(values) => values.truncate(rows),
            Values::Float8(values) => values.truncate(rows),
            Values::Decimal128(values) => values.truncate(rows),
            Values::Decimal256(values) => values.truncate(rows),
            Values::Date(values) => values.truncate(rows),
            Values::Interval(values) => values.truncate(rows),
            Values::Text(values) | Values::Bytes(values) | Values::Json(values) => {
                values.truncate(rows);
            }
            Values::Range(ends) => ends.iter_mut().for_each(|end| end.truncate(rows)),
            Values::Struct(members) => {
                for (_, member) in members {
                    member.truncate(rows);
                }
            }
            Values::Array { offsets, elements } => {
                offsets.truncate(rows + 1);
                elements.truncate(end_of(offsets));
            }
        }
    }

    /// Pushes what the absence of a value means: NULL, or an empty array.
    pub(super) fn push_absent(&mut self) -> Pushed {
        if !self.is_nullable && !matches!(self.values, Values::Array { .. }) {
            return Err(IS_NULL.into());
        }
        self.push_blank();
        Ok(())
    }

    /// Pushes a NULL (an empty array) without asking whether it is allowed: what lies under a null matters to nobody.
    fn push_blank(&mut self) {
        let mut is_null = true;
        match &mut self.values {
            Values::Bool(values) => values.append(false),
            Values::Int8(values)
            | Values::Time(values)
            | Values::Timestamp(values)
            | Values::TimestampTz(values) => values.push(0),
            Values::Float8(values) => values.push(0.0),
            Values::Decimal128(values) => values.push(0),
            Values::Decimal256(values) => values.push(i256::ZERO),
            Values::Date(values) => values.push(0),
            Values::Interval(values) => values.push(IntervalMonthDayNano::ZERO),
            Values::Text(values) | Values::Bytes(values) | Values::Json(values) => {
                values.offsets.extend_from_within(values.offsets.len() - 1..);
            }
            Values::Range(ends) => ends.iter_mut().for_each(Self::push_blank),
            Values::Struct(members) => {
                for (_, member) in members {
                    member.push_blank();
                }
            }
            Values::Array { offsets, .. } => {
                offsets.extend_from_within(offsets.len() - 1..);
                is_null = false;
            }
        }
        self.nulls.append(!is_null);
    }

    /// The last value of a date or time; `None` where it is null.
    fn last_number(&self) -> Option<i64> {
        let last = match &self.values {
            Values::Date(values) => values.last().map(|days| i64::from(*days)),
            Values::Timestamp(values) | Values::TimestampTz(values) => values.last().copied(),
            _ => None,
        };
        last.filter(|_| self.nulls.is_valid(self.len() - 1))
    }

    /// Pushes the value of a canonical text or an equivalent of it.
    #[inline]
    pub(super) fn push_text(&mut self, text: &[u8]) -> Pushed {
        match &mut self.values {
            Values::Bool(values) => values.append(parse::boolean(text)?),
            Values::Int8(values) => values.push(parse::int8(text)?),
            Values::Float8(values) => values.push(parse::float8(text)?),
            Values::Decimal128(values) => values.push(parse::decimal128(text)?),
            Values::Decimal256(values) => values.push(parse::decimal256(text)?),
            Values::Date(values) => values.push(parse::date(text)?),
            Values::Time(values) => values.push(parse::time(text)?),
            Values::Timestamp(values) => values.push(parse::datetime(text)?),
            Values::TimestampTz(values) => values.push(parse::timestamp(text)?),
            Values::Interval(values) => values.push(parse::interval(text)?),
            Values::Text(values) => values.push_utf8(text)?,
            Values::Bytes(values) => {
                parse::base64(text, &mut values.data)?;
                values.close()?;
            }
            Values::Json(values) => {
                let mut cursor = Cursor::new(text)?;
                cursor.value()?;
                cursor.end()?;
                values.push(text)?;
            }
            Values::Range(ends) => push_range(ends, text)?,
            Values::Struct(_) | Values::Array { .. } => {
                let mut cursor = Cursor::new(text)?;
                self.push_json(&mut cursor)?;
                return Ok(cursor.end()?);
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Pushes the JSON value that comes next.
    pub(super) fn push_json(&mut self, cursor: &mut Cursor<'_>) -> Pushed {
        // A JSON column embeds its values as they are, `null` among them.
        let is_json = matches!(self.values, Values::Json(_));
        let first = cursor.peek();
        if first == b'n' && !is_json {
            return if cursor.eat_word("null") { self.push_absent() } else { Err(NO_JSON.into()) };
        }
        match &mut self.values {
            Values::Bool(values) => {
                let is_true = cursor.eat_word("true");
                if !is_true && !cursor.eat_word("false") {
                    return Err("is no BOOL: JSON's true or false".into());
                }
                values.append(is_true);
            }
            Values::Int8(_) | Values::Float8(_) | Values::Decimal128(_) | Values::Decimal256(_)
                if first != b'"' =>
            {
                return self.push_text(cursor.number()?);
            }
            Values::Json(values) => values.push(cursor.value()?.as_bytes())?,
            Values::Struct(members) => push_struct(members, cursor)?,
            Values::Array { offsets, elements } => {
                cursor.expect(b'[').map_err(|_| "is no JSON array")?;
                let mut is_first = true;
                while cursor.next(is_first, b']')? {
                    is_first = false;
                    elements.push_json(cursor)?;
                }
                offsets.push(i32::try_from(elements.len()).map_err(|_| TOO_LARGE)?);
            }
            _ => {
                let mut escaped = String::new();
                if first != b'"' {
                    return Err("is no JSON string".into());
                }
                let text = cursor.string(&mut escaped)?;
                return self.push_text(text.as_bytes());
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }
}

impl Values {
    fn scalar(column_type: &ColumnType, rows: usize) -> Option<Self> {
        Some(match column_type {
            ColumnType::Bool => Self::Bool(BooleanBufferBuilder::new(rows)),
            ColumnType::Int8 => Self::Int8(Vec::with_capacity(rows)),
            ColumnType::Float8 => Self::Float8(Vec::with_capacity(rows)),
            ColumnType::Decimal128 => Self::Decimal128(Vec::with_capacity(rows)),
            ColumnType::Decimal256 => Self::Decimal256(Vec::with_capacity(rows)),
            ColumnType::Date => Self::Date(Vec::with_capacity(rows)),
            ColumnType::Time => Self::Time(Vec::with_capacity(rows)),
            ColumnType::Timestamp => Self::Timestamp(Vec::with_capacity(rows)),
            ColumnType::Interval => Self::Interval(Vec::with_capacity(rows)),
            ColumnType::Text => Self::Text(Strings::new(rows)),
            ColumnType::Bytes => Self::Bytes(Strings::new(rows)),
            ColumnType::Json => Self::Json(Strings::new(rows)),
            _ => return None,
        })
    }
}

/// Reads `[start, end)`; `UNBOUNDED` is a null end.
fn push_range(ends: &mut [Column; 2], text: &[u8]) -> Pushed {
    const NO_RANGE: &str = "is no RANGE ([start, end))";
    let inside = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b")"));
    let inside = inside.ok_or(NO_RANGE)?;
    let comma = inside.iter().position(|byte| *byte == b',').ok_or(NO_RANGE)?;
    let texts = [&inside[..comma], &inside[comma + 1..]];
    for (end, text) in ends.iter_mut().zip(texts) {
        let text = text.trim_ascii();
        if text.eq_ignore_ascii_case(b"UNBOUNDED") {
            end.push_blank();
        } else {
            end.push_text(text)?;
        }
    }
    match (ends[0].last_number(), ends[1].last_number()) {
        (Some(start), Some(end)) if start >= end => {
            Err("is a RANGE that ends before it starts".into())
        }
        _ => Ok(()),
    }
}

/// Reads an object; a member that is absent is NULL.
fn push_struct(members: &mut [(String, Column)], cursor: &mut Cursor<'_>) -> Pushed {
    let rows = members.iter().map(|(_, member)| member.len()).min().unwrap_or(0);
    cursor.expect(b'{').map_err(|_| "is no JSON object")?;
    let mut is_first = true;
    // Members come in declared order more often than not.
    let mut expected = 0;
    while cursor.next(is_first, b'}')? {
        is_first = false;
        let mut escaped = String::new();
        let name = cursor.string(&mut escaped)?;
        let is_expected = members.get(expected).is_some_and(|(member, _)| member == name);
        let at = if is_expected {
            expected
        } else {
            let at = members.iter().position(|(member, _)| member == name);
            at.ok_or("has a member that the type does not have")?
        };
        cursor.expect(b':')?;
        let (name, member) = &mut members[at];
        if member.len() != rows {
            return Err(Wrong::from("comes twice").of_member(name));
        }
        member.push_json(cursor).map_err(|wrong| wrong.of_member(name))?;
        expected = at + 1;
    }
    for (name, member) in members.iter_mut().filter(|(_, member)| member.len() == rows) {
        member.push_absent().map_err(|wrong| wrong.of_member(name))?;
    }
    Ok(())
}
