//! Drift: how a table differs from what it was when its shape was recorded, and what that does to a route.
//!
//! Invariant: a change is called harmless only where every value that the route writes is written as before; whatever
//! is not known to be so is not.

#[cfg(test)]
mod tests;
mod widened;

use crate::bind::columns_needed;
use crate::plan::Route;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;

pub use widened::is_widened;

/// What the plan says about a table that changed: `on_drift`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDrift {
    /// Any change stops the run.
    #[default]
    Fail,
    /// What changes nothing that is written is told, and the run goes on.
    Warn,
}

/// A table as its system describes it: every column, not only those that a route reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableShape {
    /// Name for messages, for example `public.builds`.
    pub table: String,
    /// Which table of that name it is, where its system tells; the places of columns mean something within one only.
    pub identity: Option<String>,
    /// Every column, in table order.
    pub columns: Vec<ShapeColumn>,
    /// Column sets that the system keeps distinct.
    pub unique_keys: Vec<Vec<String>>,
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeColumn {
    /// Name.
    pub name: String,
    /// The system's own type name, with its modifier, for example `character varying(20)`.
    pub source_type: String,
    /// What tells a column from another that has its name later (`pg_attribute.attnum`); absent where nothing does.
    pub place: Option<i64>,
    /// Whether it can never be null; of a query nobody knows, and it is false.
    pub is_required: bool,
}

/// What happened to a column, or to what proves the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Added(String),
    /// It is gone.
    Dropped(String),
    /// It has another name: the old one and the new one.
    Renamed(String, String),
    /// It has another type: the old one and the new one.
    Retyped(String, String),
    /// It was dropped, and another one was added under its name: the old type and the new one.
    Replaced(String, String),
    /// It could not be null, and now it can.
    Relaxed,
    /// It could be null, and now it cannot.
    Tightened,
    /// Nothing proves any more that a key is unique.
    KeyLost,
}

/// One change of a table, as one route sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The route.
    pub route: String,
    /// The table.
    pub table: String,
    /// The column, by its old name; of a key, its columns.
    pub column: String,
    /// What happened to it.
    pub what: What,
    /// Why it is not harmless; `None` where the route writes what it wrote before.
    pub harm: Option<&'static str>,
}

impl Drift {
    /// Returns the word for the kind of change that summaries use.
    pub fn word(&self) -> &'static str {
        match self.what {
            What::Added(_) => "added",
            What::Dropped(_) => "dropped",
            What::Renamed(..) => "renamed",
            What::Retyped(..) => "retyped",
            What::Replaced(..) => "replaced",
            What::Relaxed => "relaxed",
            What::Tightened => "tightened",
            What::KeyLost => "key lost",
        }
    }

    /// Returns what was there before and what is there now, where there is such a thing.
    pub fn ends(&self) -> (Option<&str>, Option<&str>) {
        match &self.what {
            What::Added(to) => (None, Some(to)),
            What::Dropped(from) => (Some(from), None),
            What::Renamed(from, to) | What::Retyped(from, to) | What::Replaced(from, to) => {
                (Some(from), Some(to))
            }
            What::Relaxed | What::Tightened | What::KeyLost => (None, None),
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, table, column, what, harm } = self;
        write!(f, "route {route}, {table}: ")?;
        match what {
            What::Added(of) => write!(f, "column {column} was added ({of})")?,
            What::Dropped(of) => write!(f, "column {column} was dropped ({of})")?,
            What::Renamed(from, to) => write!(f, "column {from} was renamed to {to}")?,
            What::Retyped(from, to) => {
                write!(f, "column {column} has another type: {from} -> {to}")?;
            }
            What::Replaced(from, to) => {
                write!(f, "column {column} was dropped and added again: {from} -> {to}")?;
            }
            What::Relaxed => write!(f, "column {column} may be null now")?,
            What::Tightened => write!(f, "column {column} may not be null any more")?,
            What::KeyLost => {
                write!(f, "no primary key or unique index proves {column} unique any more")?;
            }
        }
        match harm {
            Some(harm) => write!(f, "; {harm}"),
            None => f.write_str("; the route writes what it wrote before"),
        }
    }
}

/// Returns what happened to a table from one shape to the other, as a route sees it; nothing where they are alike.
pub fn compare(route: &Route, old: &TableShape, new: &TableShape) -> Vec<Drift> {
    let used = used(route, old, new);
    let mut found = Found { route, table: &new.table, drifts: Vec::new() };
    let harm_of = |column: &str, harm: &'static str| used.contains(column).then_some(harm);
    let mut is_told: HashSet<&str> = HashSet::new();
    for (before, after) in renamed(old, new) {
        is_told.extend([before.name.as_str(), after.name.as_str()]);
        let harm = harm_of(&before.name, USED).or_else(|| harm_of(&after.name, CARRIED_NOW));
        let what = What::Renamed(before.name.clone(), after.name.clone());
        found.add(&before.name, what, harm);
        if before.source_type != after.source_type {
            let what = What::Retyped(before.source_type.clone(), after.source_type.clone());
            found.add(&after.name, what, harm);
        }
    }
    for before in &old.columns {
        match new.column(&before.name) {
            _ if is_told.contains(before.name.as_str()) => {}
            None => {
                let what = What::Dropped(before.source_type.clone());
                found.add(&before.name, what, harm_of(&before.name, USED));
            }
            Some(after) => {
                let is_same = !old.is_same_as(new) || before.place == after.place;
                found.kept(before, after, is_same, harm_of(&before.name, ""));
            }
        }
    }
    for after in &new.columns {
        if old.column(&after.name).is_none() && !is_told.contains(after.name.as_str()) {
            let what = What::Added(after.source_type.clone());
            found.add(&after.name, what, harm_of(&after.name, CARRIED_NOW));
        }
    }
    let is_row_per_key = route.many.is_none() && !route.is_rebuilt_stream();
    if is_row_per_key && is_proven(route, old) && !is_proven(route, new) {
        let columns: Vec<&str> = route.key.columns().map(|(column, _)| column).collect();
        found.add(&columns.join(", "), What::KeyLost, Some(UNPROVEN));
    }
    found.drifts
}

const USED: &str = "the route reads it";
const CARRIED_NOW: &str = "the route would carry it from now on";
const OTHER_TEXTS: &str = "its values are written otherwise";
const OTHER_COLUMN: &str = "the route reads it, and it holds something else";
const UNPROVEN: &str = "two rows could have one key";

struct Found<'a> {
    route: &'a Route,
    table: &'a str,
    drifts: Vec<Drift>,
}

impl Found<'_> {
    fn add(&mut self, column: &str, what: What, harm: Option<&'static str>) {
        self.drifts.push(Drift {
            route: self.route.name.clone(),
            table: self.table.to_owned(),
            column: column.to_owned(),
            what,
            harm,
        });
    }

    /// A column that is there before and after.
    fn kept(&mut self, old: &ShapeColumn, new: &ShapeColumn, is_same: bool, used: Option<&str>) {
        let (from, to) = (&old.source_type, &new.source_type);
        if !is_same {
            let what = What::Replaced(from.clone(), to.clone());
            self.add(&old.name, what, used.map(|_| OTHER_COLUMN));
        } else if from != to {
            let harm = used.filter(|_| !is_widened(from, to)).map(|_| OTHER_TEXTS);
            self.add(&old.name, What::Retyped(from.clone(), to.clone()), harm);
        }
        match (old.is_required, new.is_required) {
            (true, false) => self.add(&old.name, What::Relaxed, None),
            (false, true) => self.add(&old.name, What::Tightened, None),
            _ => {}
        }
    }
}

impl TableShape {
    /// Returns a column by name.
    pub fn column(&self, name: &str) -> Option<&ShapeColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether both are states of one table, so that places can be compared.
    fn is_same_as(&self, other: &Self) -> bool {
        self.identity.is_some() && self.identity == other.identity
    }

    /// Returns the column that stands where another one stood: by its number within one table; else one of the same
    /// type and the same place in the order.
    fn at_place_of<'a>(&'a self, column: &ShapeColumn, other: &Self) -> Option<&'a ShapeColumn> {
        if self.is_same_as(other) && column.place.is_some() {
            return self.columns.iter().find(|other| other.place == column.place);
        }
        let at = other.columns.iter().position(|other| other.name == column.name)?;
        self.columns.get(at).filter(|other| other.source_type == column.source_type)
    }
}

/// Pairs of columns that are one column under two names.
fn renamed<'a>(
    old: &'a TableShape,
    new: &'a TableShape,
) -> Vec<(&'a ShapeColumn, &'a ShapeColumn)> {
    let is_certain = old.is_same_as(new);
    let pairs = old.columns.iter().filter_map(|before| {
        let after = new.at_place_of(before, old)?;
        // Without numbers a column that kept its name is itself, wherever it stands.
        let is_renamed = after.name != before.name
            && (is_certain
                || (new.column(&before.name).is_none() && old.column(&after.name).is_none()));
        is_renamed.then_some((before, after))
    });
    pairs.collect()
}

/// The columns of both shapes that a route has to do with: those it reads, and those that its SQL may name.
fn used<'a>(route: &Route, old: &'a TableShape, new: &'a TableShape) -> HashSet<&'a str> {
    let mut names: Vec<&str> = old.columns.iter().map(|column| column.name.as_str()).collect();
    names.extend(new.columns.iter().map(|column| column.name.as_str()));
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(*name));
    let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    // What a plan names and nobody has is refused elsewhere; until then every column may be meant.
    let read = columns_needed(route, &owned).unwrap_or(owned);
    let by_plan = [route.split_by.as_deref(), route.newest_by.as_deref(), route.order_column()];
    let is_used = |name: &&str| {
        read.iter().any(|other| other == name)
            || by_plan.contains(&Some(*name))
            || route.filter.as_deref().is_some_and(|filter| may_name(filter, name))
    };
    names.into_iter().filter(is_used).collect()
}

/// Whether SQL may name a column: its words include it, in any case, or it is no plain word.
fn may_name(sql: &str, column: &str) -> bool {
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let mut words = sql.split(|c: char| !is_of_word(c));
    !column.chars().all(is_of_word)
        || words.any(|word| word.to_lowercase() == column.to_lowercase())
}

fn is_proven(route: &Route, shape: &TableShape) -> bool {
    let in_key = route.key.lossless_columns();
    let is_within = |unique: &Vec<String>| {
        !unique.is_empty() && unique.iter().all(|column| in_key.contains(&column.as_str()))
    };
    shape.unique_keys.iter().any(is_within)
}
