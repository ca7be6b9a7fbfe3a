//! What Redis must hold of random rows, computed from the rows alone.
//!
//! Invariant: written from what `schemas/PLAN.md` says, with none of the product's code.

use super::values::{Cell, Kind, Rank, url_encoded};
use crate::many::Held;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const COLUMNS: [&str; 5] = ["a", "b", "m", "n", "v"];
/// Index of the score or value in a row.
pub(super) const VALUE: usize = 4;

/// A row; its cells are those of `COLUMNS`.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: usize,
    pub(super) cells: [Option<Cell>; 5],
    /// What lists and the last of several rows go by.
    pub(super) order: Option<i64>,
    /// What `where` asks for.
    pub(super) weight: i64,
    /// When it expires, in milliseconds since 1970.
    pub(super) until: Option<i64>,
}

/// A part of a template: a column, and whether it is percent-encoded. Parts are parted by `/`.
pub(super) type Piece = (usize, bool);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Null {
    Omit,
    Empty,
    Error,
}

/// A route, as far as it decides what is written.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct Route {
    pub(super) prefix: String,
    pub(super) kinds: [Kind; 5],
    pub(super) layout: &'static str,
    pub(super) key: Vec<Piece>,
    pub(super) member: Vec<Piece>,
    pub(super) null: Null,
    /// `s`, `ms` or `us` of a score that is a time.
    pub(super) unit: &'static str,
    pub(super) is_descending: bool,
    pub(super) last_wins: bool,
    pub(super) expires: bool,
    pub(super) keeps: bool,
    pub(super) has_where: bool,
    /// Key of many rows that are there already, where the route keeps them.
    pub(super) planted: BTreeSet<String>,
}

/// Figures of a run that finds nothing in its way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) rows: u64,
    pub(super) expired: u64,
    pub(super) rejects: u64,
    pub(super) left_out: u64,
    pub(super) folded: u64,
}

#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) held: Held,
    /// When keys expire, in milliseconds since 1970; -1 for never.
    pub(super) expiries: BTreeMap<String, i64>,
    pub(super) figures: Figures,
}

/// What a row becomes.
enum Fate {
    Expired,
    Rejected,
    LeftOut,
    Element(Element),
}

struct Element {
    key: String,
    member: String,
    /// With the member in front, as `held` shows it.
    shown: String,
    ranks: Vec<(bool, Rank)>,
    order: Option<i64>,
    until: Option<i64>,
}

impl Route {
    pub(super) fn wanted(&self, rows: &[Row]) -> Wanted {
        let mut wanted = Wanted::default();
        let mut keys: BTreeMap<String, Vec<Element>> = BTreeMap::new();
        for row in rows.iter().filter(|row| !self.has_where || row.weight > 2) {
            wanted.figures.rows += 1;
            match self.fate(row) {
                Fate::Expired => wanted.figures.expired += 1,
                Fate::Rejected => wanted.figures.rejects += 1,
                Fate::LeftOut => wanted.figures.left_out += 1,
                Fate::Element(element) => {
                    keys.entry(element.key.clone()).or_default().push(element);
                }
            }
        }
        for (key, mut elements) in keys {
            let rows = elements.len();
            let untils: Option<Vec<i64>> = elements.iter().map(|element| element.until).collect();
            let expiry = untils.map_or(-1, |untils| untils.into_iter().max().unwrap_or(-1));
            self.sort(&mut elements);
            let shown: Vec<String> = if self.layout == "list" {
                elements.into_iter().map(|element| element.shown).collect()
            } else {
                let each: BTreeMap<String, String> =
                    elements.into_iter().map(|one| (one.member, one.shown)).collect();
                let mut shown: Vec<String> = each.into_values().collect();
                shown.sort();
                shown
            };
            wanted.figures.folded += (rows - shown.len()) as u64;
            if self.planted.contains(&key) {
                wanted.expiries.insert(key.clone(), -1);
                wanted.held.insert(key, vec!["mine".to_owned()]);
            } else {
                wanted.expiries.insert(key.clone(), expiry);
                wanted.held.insert(key, shown);
            }
        }
        wanted
    }

    /// Keys of rows that cannot be carried: one that an earlier attempt wrote stays where nothing else is left of it.
    pub(super) fn rejected_keys(&self, rows: &[Row]) -> BTreeSet<String> {
        let is_read = |row: &&Row| !self.has_where || row.weight > 2;
        let is_rejected = |row: &&Row| matches!(self.fate(row), Fate::Rejected);
        rows.iter().filter(is_read).filter(is_rejected).filter_map(|row| self.key(row)).collect()
    }

    fn sort(&self, elements: &mut [Element]) {
        if self.layout != "list" {
            // The last of equal members stays.
            elements.sort_by_key(|element| element.order);
        } else if self.is_descending {
            elements.sort_by_key(|element| (Reverse(element.order), element.ranks.clone()));
        } else {
            elements.sort_by_key(|element| (element.order, element.ranks.clone()));
        }
    }

    fn fate(&self, row: &Row) -> Fate {
        // Far in the past or far ahead, so that it does not matter when this is asked.
        if self.expires && row.until.is_some_and(|ms| ms < 1_000_000_000_000) {
            return Fate::Expired;
        }
        let Some(key) = self.key(row) else { return Fate::Rejected };
        let nulls = self.null;
        let fate_of_null = || if nulls == Null::Omit { Fate::LeftOut } else { Fate::Rejected };
        let member = match rendered(&self.member, row, nulls == Null::Empty) {
            Rendered::Text(text) => text,
            Rendered::Null => return fate_of_null(),
            Rendered::Refused => return Fate::Rejected,
        };
        let value = row.cells[VALUE].as_ref();
        let shown = match (self.layout, value) {
            ("zset", Some(cell)) => match self.score(cell) {
                Some(score) => format!("{member}|{score}"),
                None => return Fate::Rejected,
            },
            ("hash", None) if nulls == Null::Empty => format!("{member}|"),
            ("zset" | "hash", None) => return fate_of_null(),
            ("hash", Some(cell)) => format!("{member}|{}", cell.text),
            _ => member.clone(),
        };
        let ranks = self.member.iter().map(|(column, _)| self.rank(row, *column)).collect();
        let until = row.until.filter(|_| self.expires);
        Fate::Element(Element { key, member, shown, ranks, order: row.order, until })
    }

    /// The key of a row, unless a null or its separator in a text keeps it from having one.
    pub(super) fn key(&self, row: &Row) -> Option<String> {
        match rendered(&self.key, row, false) {
            Rendered::Text(text) => Some(format!("{}{text}", self.prefix)),
            Rendered::Null | Rendered::Refused => None,
        }
    }

    fn rank(&self, row: &Row, column: usize) -> (bool, Rank) {
        let kind = self.kinds[column];
        match &row.cells[column] {
            Some(cell) => (false, kind.rank(cell)),
            None => (!kind.is_ordered_by_text(), Rank::Text(String::new())),
        }
    }

    /// The score of a value, where a double tells it from every other.
    fn score(&self, cell: &Cell) -> Option<f64> {
        let score = match (self.kinds[VALUE], cell.us) {
            (Kind::Float8, _) => cell.text.replace("Infinity", "inf").parse().ok()?,
            (Kind::Int4 | Kind::Int8, _) => {
                let value: i64 = cell.text.parse().ok()?;
                let score = value as f64;
                // Formatting without a fraction writes every digit of the double.
                (format!("{score:.0}") == cell.text).then_some(score)?
            }
            (_, None) => exact(&cell.text)?,
            (_, Some(us)) => {
                let digits = match self.unit {
                    "us" => 0,
                    "ms" => 3,
                    _ => 6,
                };
                let sign = if us < 0 { "-" } else { "" };
                let text = format!("{:0width$}", us.unsigned_abs(), width = digits + 1);
                let (whole, rest) = text.split_at(text.len() - digits);
                exact(&format!("{sign}{whole}.{rest}"))?
            }
        };
        (!f64::is_nan(score)).then_some(if score == 0.0 { 0.0 } else { score })
    }
}

/// A key or member of a row; its parts are parted by `/`.
fn rendered(pieces: &[Piece], row: &Row, is_null_empty: bool) -> Rendered {
    let mut texts = Vec::new();
    for (place, (column, is_encoded)) in pieces.iter().enumerate() {
        let text = match &row.cells[*column] {
            Some(cell) => cell.text.as_str(),
            None if is_null_empty => "",
            None => return Rendered::Null,
        };
        let text = if *is_encoded { url_encoded(text) } else { text.to_owned() };
        if place + 1 < pieces.len() && text.contains('/') {
            return Rendered::Refused;
        }
        texts.push(text);
    }
    Rendered::Text(texts.join("/"))
}

enum Rendered {
    Text(String),
    Null,
    Refused,
}

/// The double of a decimal number, unless the shortest text of that double is another number.
fn exact(text: &str) -> Option<f64> {
    let score: f64 = text.parse().ok()?;
    let plain = |text: &str| match text.split_once('.') {
        Some((whole, rest)) => (whole.to_owned(), rest.trim_end_matches('0').to_owned()),
        None => (text.to_owned(), String::new()),
    };
    (plain(&score.to_string()) == plain(text)).then_some(score)
}
