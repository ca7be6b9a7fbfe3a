//! Binding what a route of many rows per key has beside its key: members, scores, and the order of reading.
//!
//! Invariant: reading in `order` lets the rows of one key follow each other, and equal members of it too.

use super::{FieldValue, Mistakes, check};
use crate::key::{BoundKey, KeyTemplate};
use crate::plan::{Layout, Many, NullPolicy, OnCollision, Route, ScoreUnit};
use crate::table::TableSchema;
use crate::type_map::ColumnType;

/// A route of many rows per key with its names resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundMany {
    /// The member template with column indexes.
    pub member: BoundKey,
    /// The score column of a sorted set.
    pub score: Option<BoundScore>,
    /// Whether a unique key of the table proves that no member comes twice under one key.
    pub members_are_distinct: bool,
    /// The column whose ranges are the partitions; absent where all rows share one key.
    pub cut_by: Option<String>,
}

/// A score column and what it is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundScore {
    /// Index in the extracted row.
    pub index: usize,
    /// What a time is counted in.
    pub scale: ScoreScale,
}

/// How a value becomes a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreScale {
    /// A number as it is.
    Number,
    /// A time in seconds since 1970.
    Seconds,
    /// A time in milliseconds since 1970.
    Milliseconds,
    /// A time in microseconds since 1970.
    Microseconds,
}

/// One expression that rows are ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderBy<'a> {
    /// Column by index in the extracted row, so that texts of equal bytes follow each other.
    Exactly(usize),
    /// A column in the source's own order, nulls first, or last where it is descending.
    Column {
        /// The column.
        name: &'a str,
        /// Whether the largest value comes first.
        is_descending: bool,
    },
}

impl BoundMany {
    /// Resolves the names; what is wrong is noted.
    pub(super) fn bind(
        route: &Route,
        many: &Many,
        schema: &TableSchema,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<Self> {
        for (column, _) in many.member.columns() {
            mistakes.index_of(schema, column);
        }
        check::template("member", &many.member, schema, mistakes);
        let score = many.score.as_ref().and_then(|score| {
            let index = mistakes.index_of(schema, &score.column)?;
            let column_type = &schema.columns[index].column_type;
            let scale = scale(&score.column, column_type, score.unit, mistakes)?;
            Some(BoundScore { index, scale })
        });
        let member = BoundKey::new(&many.member, schema).ok()?;
        let first = route.key.columns().next().map(|(column, _)| column.to_owned());
        Some(Self {
            member,
            score,
            members_are_distinct: are_distinct(route, &many.member, schema),
            cut_by: route.split_by.clone().filter(|_| first.is_some()).or(first),
        })
    }
}

/// Whether a unique key lies inside the columns of key and member, so that no two rows make one member of one key.
fn are_distinct(route: &Route, member: &KeyTemplate, schema: &TableSchema) -> bool {
    // An empty text stands for every null, of which a unique key allows many.
    if route.null == NullPolicy::Empty {
        return false;
    }
    let mut told_apart_by = route.key.lossless_columns();
    told_apart_by.extend(member.lossless_columns());
    schema.unique_keys.iter().any(|unique| {
        !unique.is_empty() && unique.iter().all(|column| told_apart_by.contains(&column.as_str()))
    })
}

fn scale(
    column: &str,
    column_type: &ColumnType,
    unit: Option<ScoreUnit>,
    mistakes: &mut Mistakes<'_>,
) -> Option<ScoreScale> {
    match column_type {
        ColumnType::Int2
        | ColumnType::Int4
        | ColumnType::Int8
        | ColumnType::Float4
        | ColumnType::Float8
        | ColumnType::Numeric
        | ColumnType::Decimal128
        | ColumnType::Decimal256 => match unit {
            None => Some(ScoreScale::Number),
            Some(unit) => {
                let (name, unit) = (column_type.name(), unit.word());
                mistakes.add(format!(
                    "score column {column} is {name}, a number; |{unit} goes with a time"
                ));
                None
            }
        },
        ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz => Some(match unit {
            None | Some(ScoreUnit::Seconds) => ScoreScale::Seconds,
            Some(ScoreUnit::Milliseconds) => ScoreScale::Milliseconds,
            Some(ScoreUnit::Microseconds) => ScoreScale::Microseconds,
        }),
        other => {
            mistakes.add(format!(
                "score column {column} has type {}; a score is a number, a date or a timestamp",
                other.name()
            ));
            None
        }
    }
}

impl super::BoundRoute {
    /// Returns what the rows of a route of many rows per key are ordered by, the cut first; empty for other routes.
    pub fn order(&self) -> Vec<OrderBy<'_>> {
        let (Some(bound), Some(many)) = (&self.many, &self.route.many) else { return Vec::new() };
        let mut order: Vec<OrderBy<'_>> = Vec::new();
        let mut then = |next| {
            if !order.contains(&next) {
                order.push(next);
            }
        };
        let cut = bound.cut_by.as_deref().and_then(|column| self.schema.index_of(column));
        cut.into_iter().chain(self.key.indexes()).for_each(|index| then(OrderBy::Exactly(index)));
        if let Some(list) = &many.order {
            then(OrderBy::Column { name: &list.column, is_descending: list.is_descending });
        }
        if many.order.is_some() || !bound.members_are_distinct {
            bound.member.indexes().for_each(|index| then(OrderBy::Exactly(index)));
        }
        if let (Some(OnCollision::Last { order_by }), false) =
            (&self.route.on_collision, bound.members_are_distinct)
        {
            then(OrderBy::Column { name: order_by, is_descending: false });
        }
        order
    }

    /// Names the columns of which none may be null for a row to be an element of its key; empty where nulls are not
    /// left out, and for other routes.
    pub fn never_null(&self) -> Vec<&str> {
        let Some(many) = self.many.as_ref().filter(|_| self.route.null == NullPolicy::Omit) else {
            return Vec::new();
        };
        let is_hash = self.route.layout == Layout::Hash;
        let values = self.fields.iter().filter_map(|field| match field.value {
            FieldValue::Column(index) if is_hash => Some(index),
            _ => None,
        });
        let score = many.score.iter().map(|score| score.index);
        let columns = many.member.indexes().chain(score).chain(values);
        columns.map(|index| self.schema.columns[index].name.as_str()).collect()
    }

    /// Whether many rows make one key.
    pub fn is_many(&self) -> bool {
        self.many.is_some()
    }

    /// The column whose ranges are the partitions where the route is cut by one.
    pub fn cut_by(&self) -> Option<&str> {
        match &self.many {
            Some(many) => many.cut_by.as_deref(),
            None => self.route.split_by.as_deref(),
        }
    }
}
