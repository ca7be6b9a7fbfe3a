//! Types that hold every value of another and write it with the same text.
//!
//! Invariant: a pair that is not known is no widening.

/// Whether every value of a PostgreSQL type is a value of the other one with the same canonical text: integers and
/// precisions that grow, and lengths that grow or go.
pub fn is_widened(from: &str, to: &str) -> bool {
    let rank = |name: &str| ["smallint", "integer", "bigint"].iter().position(|int| *int == name);
    if let (Some(from), Some(to)) = (rank(from), rank(to)) {
        return from <= to;
    }
    let (from, to) = (Type::of(from), Type::of(to));
    match from.name.as_str() {
        "character varying" if to.name == "text" => true,
        "text" => to.name == "character varying" && to.modifiers.is_empty(),
        "character varying" => from.name == to.name && grows(&from.modifiers, &to.modifiers),
        "numeric" => {
            let is_same_scale = from.scale() == to.scale();
            let is_free = to.modifiers.is_empty();
            from.name == to.name
                && (is_free || (is_same_scale && grows(&from.modifiers, &to.modifiers)))
        }
        "timestamp with time zone" | "timestamp without time zone" | "time without time zone" => {
            from.name == to.name && grows(&from.modifiers, &to.modifiers)
        }
        _ => false,
    }
}

/// Whether a limit grows or goes; a type without one has no limit already.
fn grows(from: &[u32], to: &[u32]) -> bool {
    match (from.first(), to.first()) {
        (_, None) => true,
        (Some(from), Some(to)) => from <= to,
        (None, Some(_)) => false,
    }
}

/// A type name taken apart: `timestamp(3) with time zone` is `timestamp with time zone` and 3.
struct Type {
    name: String,
    modifiers: Vec<u32>,
}

impl Type {
    fn of(text: &str) -> Self {
        let whole = Self { name: text.to_owned(), modifiers: Vec::new() };
        let Some((head, (inside, tail))) =
            text.split_once('(').and_then(|(head, rest)| Some((head, rest.split_once(')')?)))
        else {
            return whole;
        };
        let modifiers: Result<Vec<u32>, _> =
            inside.split(',').map(|number| number.trim().parse()).collect();
        match modifiers {
            Ok(modifiers) => Self { name: format!("{head}{tail}"), modifiers },
            Err(_) => whole,
        }
    }

    /// Digits behind the point of a limited number; `None` where they are not limited.
    fn scale(&self) -> Option<u32> {
        self.modifiers.first()?;
        Some(self.modifiers.get(1).copied().unwrap_or(0))
    }
}
