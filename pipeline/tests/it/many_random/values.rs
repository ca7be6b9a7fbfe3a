//! Random values of every type that a key or a member may have, with the text that Redis must show of each.
//!
//! Invariant: the text of a value is known from how it was made; neither PostgreSQL nor the product is asked for it.

use crate::items::random;

/// A source of random numbers that one seed decides.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(random(&mut self.0, bound as u64)).unwrap()
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int4,
    Int8,
    Float8,
    Numeric,
    Text,
    /// A collation that takes letters for equal whatever their case and accents.
    TextCi,
    Varchar,
    /// `char(5)`: its blanks belong to its text.
    Bpchar,
    Uuid,
    Date,
    Time,
}

/// What a key or a member may be made of.
pub(super) const OF_KEYS: [Kind; 11] = [
    Kind::Bool,
    Kind::Int4,
    Kind::Int8,
    Kind::Numeric,
    Kind::Text,
    Kind::TextCi,
    Kind::Varchar,
    Kind::Bpchar,
    Kind::Uuid,
    Kind::Date,
    Kind::Time,
];
pub(super) const OF_SCORES: [Kind; 6] =
    [Kind::Int4, Kind::Int8, Kind::Float8, Kind::Numeric, Kind::Date, Kind::Time];

/// Texts that are easily mistaken for each other, or for something else.
const WORDS: [&str; 20] = [
    "", " ", "a", "A", "á", "Ä", "ß", "ss", "日本", "🚀", "e\u{301}", "é", "/", "%2F", "{x}", "}",
    "\"", "\\", "\n", "'",
];

/// Where a value comes in the order of its column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Number(i64),
    Text(String),
}

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    /// What PostgreSQL reads, and what Redis must show.
    pub(super) text: String,
    /// Microseconds since 1970 of a date or time.
    pub(super) us: Option<i64>,
}

impl Kind {
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Float8 => "double precision",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::TextCi => "text collate ci",
            Self::Varchar => "varchar(400)",
            Self::Bpchar => "char(5)",
            Self::Uuid => "uuid",
            Self::Date => "date",
            Self::Time => "timestamptz",
        }
    }

    /// Whether a text of it may hold whatever a separator is.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::TextCi | Self::Varchar | Self::Bpchar)
    }

    /// Whether equal values have equal texts, so that a unique index means what a key means.
    pub(super) fn is_told_by_text(self) -> bool {
        !matches!(self, Self::TextCi | Self::Bpchar | Self::Numeric)
    }

    /// Whether PostgreSQL orders it by its text, byte by byte; the others come in their own order, nulls last.
    pub(super) fn is_ordered_by_text(self) -> bool {
        self.is_text() || self == Self::Numeric
    }

    pub(super) fn rank(self, cell: &Cell) -> Rank {
        match self {
            Self::Bool => Rank::Number(i64::from(cell.text == "true")),
            Self::Int4 | Self::Int8 => Rank::Number(cell.text.parse().unwrap()),
            Self::Date | Self::Time => Rank::Number(cell.us.unwrap()),
            _ => Rank::Text(cell.text.clone()),
        }
    }

    /// A value; `spread` says of about how many.
    pub(super) fn value(self, dice: &mut Dice, spread: usize, pad: usize) -> Cell {
        let number = i64::try_from(dice.below(spread)).unwrap();
        let text = match self {
            Self::Bool => if number % 2 == 0 { "true" } else { "false" }.to_owned(),
            Self::Int4 => (number * 7_919 - 40_000).to_string(),
            Self::Int8 => {
                // Some of them no double holds.
                let far = if dice.percent(10) { i64::MAX - 3 * number } else { number };
                far.to_string()
            }
            Self::Float8 => match number % 50 {
                0 => "NaN".to_owned(),
                1 => "-Infinity".to_owned(),
                _ => (number as f64 / 8.0 - 3.0).to_string(),
            },
            Self::Numeric => match number % 40 {
                0 => format!("{number}.1234567890123456789012345"),
                1 => "NaN".to_owned(),
                _ => format!("{}{}", number / 7, dice.one(&["", ".0", ".5", ".50", ".25"])),
            },
            Self::Text | Self::TextCi | Self::Varchar => {
                let word = dice.one(&WORDS);
                let number = if number < 3 { String::new() } else { number.to_string() };
                format!("{word}{number}{}", "x".repeat(pad))
            }
            Self::Bpchar => {
                let text = format!("{}{}", dice.one(&WORDS[..16]), number % 100);
                let blanks = 5 - text.chars().count();
                text + &" ".repeat(blanks)
            }
            Self::Uuid => {
                let mixed = (number * 0x9e_3779) & 0xffff_ffff;
                format!("{mixed:08x}-0000-4000-8000-{number:012x}")
            }
            Self::Date | Self::Time => return self.time(dice, number),
        };
        Cell { text, us: None }
    }

    fn time(self, dice: &mut Dice, number: i64) -> Cell {
        let (year, month, day) = (1960 + number % 90, 1 + number % 12, 1 + number % 28);
        let days = days_since_1970(year, month, day);
        let date = format!("{year:04}-{month:02}-{day:02}");
        if self == Self::Date {
            return Cell { text: date, us: Some(days * 86_400_000_000) };
        }
        let (hour, minute, second) = (number % 24, number % 60, number * 7 % 60);
        let us = if dice.percent(50) { number * 1_000 % 1_000_000 + number % 3 } else { 0 };
        let fraction = if us == 0 { String::new() } else { format!(".{us:06}") };
        let since = (days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000_000 + us;
        Cell {
            text: format!("{date}T{hour:02}:{minute:02}:{second:02}{fraction}Z"),
            us: Some(since),
        }
    }
}

/// Days from 1970-01-01, by counting them.
pub(super) fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let of_year = |year: i64| 365 + i64::from(is_leap(year));
    let years: i64 = if year >= 1970 {
        (1970..year).map(of_year).sum()
    } else {
        -(year..1970).map(of_year).sum::<i64>()
    };
    let lengths = [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let months: i64 = lengths.iter().take(usize::try_from(month - 1).unwrap()).sum();
    years + months + day - 1
}

/// A text as a cell of COPY.
pub(super) fn copied(text: Option<&str>) -> String {
    let Some(text) = text else { return "\\N".to_owned() };
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t")
}

/// Percent-encoding of everything but letters, digits and `-._~`.
pub(super) fn url_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encoded).collect()
}
