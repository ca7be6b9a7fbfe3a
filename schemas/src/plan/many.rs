//! What a route has whose keys are made of many rows: `member`, `score`, and the order of a list.
//!
//! Invariant: such a route can be read in an order in which the rows of one key, and equal members of it, follow each
//! other: neither its key nor what tells its members apart goes through a lossy filter.

use super::raw::{Section, Text};
use super::{Layout, OnCollision, Uses};
use crate::key::KeyTemplate;

/// Many rows per key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Many {
    /// Template of a member of a set or sorted set, of an element of a list, or of the name of a hash field.
    pub member: KeyTemplate,
    /// Score of a sorted set.
    pub score: Option<Score>,
    /// Order of a list.
    pub order: Option<Order>,
}

/// `score = "column"` or `score = "column|ms"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Score {
    /// The column.
    pub column: String,
    /// The unit of a time; seconds where it is absent.
    pub unit: Option<ScoreUnit>,
}

/// What a time is counted in, since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreUnit {
    /// Seconds, with a fraction where there is one.
    Seconds,
    /// Milliseconds, with a fraction where there is one.
    Milliseconds,
    /// Microseconds.
    Microseconds,
}

impl ScoreUnit {
    /// Returns the word of the plan file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
        }
    }
}

/// `order_by = "column"` or `order_by = "column|desc"` of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The column.
    pub column: String,
    /// Whether the largest value comes first.
    pub is_descending: bool,
}

impl super::Route {
    /// Returns the column that decides the order of a list, or which of several rows is last.
    pub fn order_column(&self) -> Option<&str> {
        let of_list = self.many.as_ref().and_then(|many| many.order.as_ref());
        match (of_list, &self.on_collision) {
            (Some(order), _) => Some(&order.column),
            (None, Some(OnCollision::Last { order_by })) => Some(order_by),
            (None, _) => None,
        }
    }
}

const UNITS: [(&str, ScoreUnit); 3] =
    [("s", ScoreUnit::Seconds), ("ms", ScoreUnit::Milliseconds), ("us", ScoreUnit::Microseconds)];

/// Whether the route is one of many rows per key.
pub(super) fn is_many(section: &Section<'_>, layout: Option<Layout>) -> bool {
    match layout {
        Some(Layout::Set | Layout::Zset | Layout::List) => true,
        Some(Layout::Hash) => section.has("member"),
        _ => false,
    }
}

/// Reads the fields of a route of many rows per key; `None` for every other route, whose such fields are mistakes.
pub(super) fn many(
    section: &Section<'_>,
    layout: Option<Layout>,
    key: Option<&KeyTemplate>,
) -> Option<Many> {
    let layout = layout?;
    if !is_many(section, Some(layout)) {
        refuse(section, "member", "goes with type \"set\", \"zset\", \"list\" and \"hash\" only");
        refuse(section, "score", "goes with type \"zset\" only");
        return None;
    }
    let word = layout.word();
    let member = section.required("member").and_then(|text| member(&text, layout));
    let score = if layout == Layout::Zset {
        section.required("score").and_then(|text| score(&text))
    } else {
        refuse(section, "score", "goes with type \"zset\" only");
        None
    };
    if layout == Layout::Hash {
        if !section.has("columns") {
            section.mistake("member", "needs \"columns\" with the one column that is the value");
        }
    } else {
        refuse(
            section,
            "columns",
            &format!("does not go with type \"{word}\", whose members are made by \"member\""),
        );
    }
    if matches!(layout, Layout::Set | Layout::List) {
        let why = "equal members of a set are one, and a list keeps them all";
        refuse(section, "on_collision", &format!("does not go with type \"{word}\": {why}"));
    }
    let order = match layout {
        Layout::List => section.required("order_by").and_then(|text| order(&text)),
        Layout::Set => {
            refuse(section, "order_by", "does not go with type \"set\", which has no order");
            None
        }
        _ => None,
    };
    if let Some(key) = key {
        keys(section, key);
    }
    Some(Many { member: member?, score, order })
}

/// Notes what a use cannot have.
pub(super) fn check_use(section: &Section<'_>, uses: Option<Uses>) {
    if uses.is_some_and(|uses| uses.backup) {
        section.mistake(
            "use",
            "\"backup\" does not go with many rows per key: rows are folded, so no table can be restored from them",
        );
    }
}

fn keys(section: &Section<'_>, key: &KeyTemplate) {
    if let Some((column, _)) = key.columns().find(|(_, filter)| filter.is_lossy()) {
        section.mistake(
            "key",
            format!(
                "column {column} cannot be read back from the key, so two of its values could make one key in two partitions; let a query compute it"
            ),
        );
    }
    if let Some(split_by) = section.string("split_by")
        && !key.columns().any(|(column, _)| column == split_by)
    {
        section.mistake("split_by", "must be a column of the key, or one key would be cut apart");
    }
}

fn member(text: &Text<'_>, layout: Layout) -> Option<KeyTemplate> {
    let member = KeyTemplate::parse(&text.value)
        .map_err(|message| {
            let message = message.replace("key template", "member template");
            text.mistake_quoting(message, "is not a valid member template");
        })
        .ok()?;
    let lossy = member.columns().find(|(_, filter)| filter.is_lossy());
    if let Some((column, _)) = lossy.filter(|_| layout != Layout::List) {
        text.mistake(format!(
            "column {column} cannot be read back from the member, so equal members could not be found; let a query compute it"
        ));
    }
    Some(member)
}

fn score(text: &Text<'_>) -> Option<Score> {
    let Some((column, unit)) = text.value.split_once('|') else {
        return Some(Score { column: text.value.clone(), unit: None });
    };
    let found = UNITS.iter().find(|(word, _)| *word == unit);
    if found.is_none() || column.is_empty() {
        text.mistake(
            "must be a column, or a column of times and its unit: column|s, column|ms, column|us",
        );
    }
    found.map(|(_, unit)| Score { column: column.to_owned(), unit: Some(*unit) })
}

fn order(text: &Text<'_>) -> Option<Order> {
    let Some((column, direction)) = text.value.split_once('|') else {
        return Some(Order { column: text.value.clone(), is_descending: false });
    };
    if !matches!(direction, "asc" | "desc") || column.is_empty() {
        text.mistake("must be a column, or a column and a direction: column|asc, column|desc");
        return None;
    }
    Some(Order { column: column.to_owned(), is_descending: direction == "desc" })
}

fn refuse(section: &Section<'_>, field: &str, why: &str) {
    if section.has(field) {
        section.mistake(field, why);
    }
}
