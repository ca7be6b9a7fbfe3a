//! The plan file as written: a walk over its tables that notes every mistake with its place.
//!
//! Invariant: reading never stops at a mistake, and what it returns is used only when no mistake was noted.

use super::mistake::{PlanError, PlanErrors, list, place, suggestion};
use super::substitute::{Expanded, Lookup, ReadFile, expand};
use crate::duration;
use std::cell::RefCell;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The file being read and the mistakes found so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    lookup: Lookup<'a>,
    read_file: ReadFile<'a>,
    mistakes: RefCell<Vec<PlanError>>,
}

/// One table of the file.
#[derive(Clone)]
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    entries: &'a DeTable<'a>,
    at: usize,
    scope: String,
    separator: &'static str,
}

/// One value of the file.
#[derive(Clone)]
pub(super) struct Entry<'a> {
    reader: &'a Reader<'a>,
    value: &'a DeValue<'a>,
    at: usize,
    path: String,
}

/// One string of the file after substitution.
#[derive(Clone)]
pub(super) struct Text<'a> {
    entry: Entry<'a>,
    /// The value; show it through [`Text::shown`] only.
    pub(super) value: String,
    is_substituted: bool,
}

/// The fields that a table may have.
pub(super) struct Fields {
    /// What they are called in messages: `field` or `section`.
    pub(super) noun: &'static str,
    pub(super) built: &'static [&'static str],
    pub(super) refused: &'static [&'static str],
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, lookup: Lookup<'a>, read_file: ReadFile<'a>) -> Self {
        Self { text, lookup, read_file, mistakes: RefCell::default() }
    }

    /// Notes a mistake at a byte offset.
    pub(super) fn mistake(&self, at: usize, path: &str, message: impl Into<String>) {
        let (line, column) = place(self.text, at);
        self.mistakes.borrow_mut().push(PlanError {
            line,
            column,
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// Notes a mistake about something the file lacks: its place is the end of the file.
    pub(super) fn missing(&self, path: &str, message: impl Into<String>) {
        self.mistake(self.text.trim_end().len(), path, message);
    }

    pub(super) fn root(&'a self, entries: &'a DeTable<'a>) -> Section<'a> {
        Section { reader: self, entries, at: 0, scope: String::new(), separator: "" }
    }

    /// Returns the mistakes in file order.
    pub(super) fn finish(&self) -> PlanErrors {
        let mut mistakes = self.mistakes.take();
        mistakes.sort_by_key(|m| (m.line, m.column));
        mistakes.dedup();
        PlanErrors(mistakes)
    }
}

impl<'a> Section<'a> {
    /// Notes unknown fields with the nearest valid name, and fields whose feature is not built.
    pub(super) fn know(&self, fields: &Fields) {
        let known: Vec<&str> = fields.built.iter().chain(fields.refused).copied().collect();
        for key in self.entries.keys() {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            if fields.refused.contains(&name) {
                let message = format!("{} \"{name}\" is not built yet", fields.noun);
                self.reader.mistake(at, &self.scope, message);
            } else if !fields.built.contains(&name) {
                let hint = suggestion(name, &known, fields.built);
                let message = format!("unknown {} {name:?}{hint}", fields.noun);
                self.reader.mistake(at, &self.scope, message);
            }
        }
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.entries.contains_key(field)
    }

    pub(super) fn entry(&self, field: &str) -> Option<Entry<'a>> {
        let value = self.entries.get(field)?;
        Some(self.reader.entry(value, self.path(field)))
    }

    /// Notes a mistake about a field at its place, or at the table's where the field is absent.
    pub(super) fn mistake(&self, field: &str, message: impl Into<String>) {
        let at = self.entries.get_key_value(field).map_or(self.at, |(key, _)| key.span().start);
        self.reader.mistake(at, &self.path(field), message);
    }

    /// Notes a mistake about the table as a whole.
    pub(super) fn mistake_here(&self, message: impl Into<String>) {
        self.reader.mistake(self.at, &self.scope, message);
    }

    /// Returns the string of a field, if there is one.
    pub(super) fn text(&self, field: &str) -> Option<Text<'a>> {
        self.entry(field)?.text()
    }

    /// Returns the plain value of a string field, if there is one.
    pub(super) fn string(&self, field: &str) -> Option<String> {
        Some(self.text(field)?.value)
    }

    /// Returns the string of a field and notes its absence.
    pub(super) fn required(&self, field: &str) -> Option<Text<'a>> {
        if !self.has(field) {
            self.mistake_here(format!("field \"{field}\" is missing"));
        }
        self.text(field)
    }

    /// Renames the table in the messages that follow.
    pub(super) fn named(self, scope: String) -> Self {
        Self { scope, separator: ": ", ..self }
    }

    fn path(&self, field: &str) -> String {
        format!("{}{}{field}", self.scope, self.separator)
    }
}

impl<'a> Reader<'a> {
    fn entry(&'a self, value: &'a Spanned<DeValue<'a>>, path: String) -> Entry<'a> {
        Entry { reader: self, value: value.get_ref(), at: value.span().start, path }
    }
}

impl<'a> Entry<'a> {
    pub(super) fn mistake(&self, message: impl Into<String>) {
        self.reader.mistake(self.at, &self.path, message);
    }

    /// Notes that the value has the wrong type.
    pub(super) fn expected<T>(&self, what: &str) -> Option<T> {
        let found = self.value.type_str();
        let article = if found.starts_with(['i', 'a']) { "an" } else { "a" };
        self.mistake(format!("expected {what}, found {article} {found}"));
        None
    }

    /// Returns the string as written, before substitution.
    pub(super) fn written(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// Returns the string after substitution; an empty one is a mistake.
    pub(super) fn text(&self) -> Option<Text<'a>> {
        let text = self.text_or_empty()?;
        if text.value.is_empty() {
            self.mistake("must not be empty");
            return None;
        }
        Some(text)
    }

    /// Returns the string after substitution.
    pub(super) fn text_or_empty(&self) -> Option<Text<'a>> {
        let Some(written) = self.written() else { return self.expected("a string") };
        match expand(written, self.reader.lookup, self.reader.read_file) {
            Ok(Expanded { value, .. }) if value.contains('\0') => {
                self.mistake("must not contain a zero character");
                None
            }
            Ok(Expanded { value, is_substituted }) => {
                Some(Text { entry: self.clone(), value, is_substituted })
            }
            Err(mistakes) => {
                for message in mistakes {
                    self.mistake(message);
                }
                None
            }
        }
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        let text = self.text()?;
        duration::parse(&text.value).map_err(|message| self.mistake(message)).ok()
    }

    /// Returns a whole number of `0..=max`.
    pub(super) fn count(&self, max: u64) -> Option<u64> {
        let Some(integer) = self.value.as_integer() else { return self.expected("an integer") };
        let count = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        if count.is_none_or(|count| count > max) {
            self.mistake(format!("must be an integer from 0 to {max}"));
            return None;
        }
        count
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.expected("true or false"))
    }

    pub(super) fn is_string(&self) -> bool {
        self.value.is_str()
    }

    pub(super) fn is_integer(&self) -> bool {
        self.value.is_integer()
    }

    pub(super) fn section(&self) -> Option<Section<'a>> {
        let Some(entries) = self.value.as_table() else { return self.expected("a table") };
        let scope = self.path.clone();
        Some(Section { reader: self.reader, entries, at: self.at, scope, separator: "." })
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Returns the elements of an array; `what` says what they should be.
    pub(super) fn elements(&self, what: &str) -> Option<Vec<Entry<'a>>> {
        let Some(array) = self.value.as_array() else { return self.expected(what) };
        let element = |(index, value)| self.reader.entry(value, format!("{}[{index}]", self.path));
        Some(array.iter().enumerate().map(element).collect())
    }
}

impl Text<'_> {
    pub(super) fn mistake(&self, message: impl Into<String>) {
        self.entry.mistake(message);
    }

    /// Returns the quoted value, or words in its place where it came from outside the file.
    pub(super) fn shown(&self) -> String {
        if self.is_substituted {
            "(substituted, not shown)".to_owned()
        } else {
            format!("{:?}", self.value)
        }
    }

    /// Notes a message that may quote the value, unless the value came from outside the file.
    pub(super) fn mistake_quoting(&self, message: String, instead: &str) {
        self.mistake(if self.is_substituted { instead.to_owned() } else { message });
    }

    /// Returns what the value stands for; a value that is unknown or not built is a mistake.
    pub(super) fn choose<T: Copy>(&self, built: &[(&str, T)], refused: &[&str]) -> Option<T> {
        if let Some((_, chosen)) = built.iter().find(|(name, _)| *name == self.value) {
            return Some(*chosen);
        }
        let allowed: Vec<&str> = built.iter().map(|(name, _)| *name).collect();
        if refused.contains(&self.value.as_str()) {
            self.mistake(format!("\"{}\" is not built yet", self.value));
        } else if self.is_substituted {
            self.mistake(format!("unknown value {}, expected {}", self.shown(), list(&allowed)));
        } else {
            let known: Vec<&str> = allowed.iter().chain(refused).copied().collect();
            let hint = suggestion(&self.value, &known, &allowed);
            self.mistake(format!("unknown value {}{hint}", self.shown()));
        }
        None
    }
}
