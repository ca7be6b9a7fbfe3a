//! The rows behind given keys, where the table can find them by value.
//!
//! Invariant: the condition selects every row that renders to one of the keys, perhaps more; a key that no row can
//! render to is left out, so that it never becomes a literal that PostgreSQL cannot read.

use super::sql::{literal, quote};
use schemas::plan::{Layout, OnCollision};
use schemas::{BoundRoute, Bounds, Column, ColumnType, Partition, PartitionId};

/// Returns a partition of the rows that render to one of the keys, or `None` where the types of the key's columns do
/// not tell: their text may stand for several values, or for none.
pub(super) fn partition(bound: &BoundRoute, keys: &[&[u8]]) -> Option<Partition> {
    let route = &bound.route;
    let is_single = matches!(route.layout, Layout::Hash | Layout::String | Layout::Json);
    // The order decides which row is last, and only a read of the whole keeps it; the rows of a key of many always come
    // in order.
    let is_ordered = matches!(route.on_collision, Some(OnCollision::Last { .. }));
    let is_found = bound.is_many() || (is_single && !is_ordered);
    if !is_found || route.key.placeholders().is_empty() {
        return None;
    }
    let mut columns = Vec::new();
    for (name, filter) in route.key.columns() {
        let column = &bound.schema.columns[bound.schema.index_of(name)?];
        if filter.is_lossy() || form_of(column).is_none() {
            return None;
        }
        columns.push(column);
    }
    let texts: Vec<Vec<Vec<u8>>> = keys.iter().filter_map(|key| route.key.parse_key(key)).collect();
    Some(having(bound, &columns, texts.iter().map(|texts| texts.iter().map(Vec::as_slice))))
}

/// Returns a partition of the rows whose columns have one of these texts, or `None` where the types do not tell.
pub(super) fn of_columns(
    bound: &BoundRoute,
    columns: &[usize],
    texts: &[Vec<&[u8]>],
) -> Option<Partition> {
    let columns: Vec<&Column> =
        columns.iter().filter_map(|index| bound.schema.columns.get(*index)).collect();
    let is_told = !columns.is_empty() && columns.iter().all(|column| form_of(column).is_some());
    is_told.then(|| having(bound, &columns, texts.iter().map(|texts| texts.iter().copied())))
}

/// The rows in which the columns have the texts of one of the tuples; one that no value has is left out.
fn having<'t, T: Iterator<Item = &'t [u8]>>(
    bound: &BoundRoute,
    columns: &[&Column],
    tuples: impl Iterator<Item = T>,
) -> Partition {
    let names: Vec<String> = columns.iter().map(|column| quote(&column.name)).collect();
    let values: Vec<String> = tuples
        .filter_map(|texts| {
            let literals: Option<Vec<String>> =
                columns.iter().zip(texts).map(|(column, text)| value(column, text)).collect();
            Some(format!("({})", literals?.join(", ")))
        })
        .collect();
    let condition = if values.is_empty() {
        "false".to_owned()
    } else {
        format!("({}) in ({})", names.join(", "), values.join(", "))
    };
    let route = &bound.route.name;
    Partition {
        id: PartitionId(format!("{route}/keys")),
        route: route.clone(),
        bounds: Bounds::Filter { condition },
        rows_estimate: values.len() as u64,
        bytes_estimate: 0,
        newest_us: None,
    }
}

/// Types of which one text is one value.
#[derive(Clone, Copy)]
enum Form {
    Integer { min: i64, max: i64 },
    Uuid,
    Text,
}

fn form_of(column: &Column) -> Option<Form> {
    if column.as_text {
        return None;
    }
    match column.column_type {
        ColumnType::Int2 => Some(Form::Integer { min: i16::MIN.into(), max: i16::MAX.into() }),
        ColumnType::Int4 => Some(Form::Integer { min: i32::MIN.into(), max: i32::MAX.into() }),
        ColumnType::Int8 => Some(Form::Integer { min: i64::MIN, max: i64::MAX }),
        ColumnType::Uuid => Some(Form::Uuid),
        // An enum or a domain could refuse the literal.
        ColumnType::Text => {
            let name = column.source_type.as_str();
            let is_plain = name == "text" || name.starts_with("character varying");
            is_plain.then_some(Form::Text)
        }
        _ => None,
    }
}

/// Returns the literal of a text, or `None` where no value of the column has this text.
fn value(column: &Column, text: &[u8]) -> Option<String> {
    let text = str::from_utf8(text).ok()?;
    match form_of(column)? {
        Form::Integer { min, max } => {
            let number: i64 = text.parse().ok()?;
            let is_value = number.to_string() == text && (min..=max).contains(&number);
            is_value.then(|| literal(text))
        }
        Form::Uuid => {
            let is_value = text.len() == 36
                && text.char_indices().all(|(place, letter)| match place {
                    8 | 13 | 18 | 23 => letter == '-',
                    _ => matches!(letter, '0'..='9' | 'a'..='f'),
                });
            is_value.then(|| literal(text))
        }
        Form::Text => (!text.contains('\0')).then(|| literal(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::{Plan, TableSchema};

    fn bound(key: &str, columns: &[(&str, ColumnType, &str)], more: &str) -> BoundRoute {
        let text = format!(
            "[alloydb]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n[[route]]\nname = \"r\"\n\
             table = \"alloydb:t\"\nkey = \"{key}\"\ntype = \"hash\"\ncolumns = [{{ field = \"v\", value = \"1\" }}]\n{more}"
        );
        let plan =
            Plan::parse(&text, &|_| None, &|_| Err(std::io::Error::other("no file"))).unwrap();
        let column = |(name, column_type, source_type): &(&str, ColumnType, &str)| Column {
            name: (*name).to_owned(),
            column_type: column_type.clone(),
            source_type: (*source_type).to_owned(),
            as_text: false,
        };
        let columns = columns.iter().map(column).collect();
        let schema = TableSchema { table: "t".into(), columns, unique_keys: Vec::new() };
        BoundRoute::bind(&plan.routes[0], schema).unwrap()
    }

    fn condition(bound: &BoundRoute, keys: &[&str]) -> Option<String> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        match partition(bound, &keys)?.bounds {
            Bounds::Filter { condition } => Some(condition),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_texts_that_are_values_become_literals() {
        let numbers = bound("k:{id}", &[("id", ColumnType::Int4, "integer")], "");
        let keys = ["k:7", "k:-1", "k:07", "k:x", "k:3000000000", "other:7", "k:"];
        assert_eq!(condition(&numbers, &keys).unwrap(), "(\"id\") in ((E'7'), (E'-1'))");
        assert_eq!(condition(&numbers, &["k:abc"]).unwrap(), "false");
        let uuids = bound("k:{id}", &[("id", ColumnType::Uuid, "uuid")], "");
        let (good, bad) =
            ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11");
        let keys = [format!("k:{good}"), format!("k:{bad}")];
        let keys = [keys[0].as_str(), keys[1].as_str()];
        assert_eq!(condition(&uuids, &keys).unwrap(), format!("(\"id\") in ((E'{good}'))"));
    }

    #[test]
    fn several_columns_and_quotes_are_kept_apart() {
        let columns = [("a", ColumnType::Text, "text"), ("b", ColumnType::Int8, "bigint")];
        let both = bound("k:{a|urlencode}:{b}", &columns, "");
        assert_eq!(
            condition(&both, &["k:it%27s:2"]).unwrap(),
            "(\"a\", \"b\") in ((E'it''s', E'2'))"
        );
    }

    #[test]
    fn what_one_text_does_not_settle_is_read_whole() {
        let enums = bound("k:{m}", &[("m", ColumnType::Text, "mood")], "");
        assert!(condition(&enums, &["k:ok"]).is_none());
        let lossy = bound("k:{m|lower}", &[("m", ColumnType::Text, "text")], "");
        assert!(condition(&lossy, &["k:ok"]).is_none());
        let times =
            bound("k:{m}", &[("m", ColumnType::TimestampTz, "timestamp with time zone")], "");
        assert!(condition(&times, &["k:2024"]).is_none());
        let columns = [("id", ColumnType::Int4, "integer"), ("at", ColumnType::Int4, "integer")];
        let last = bound("k:{id}", &columns, "on_collision = \"last\"\norder_by = \"at\"\n");
        assert!(condition(&last, &["k:7"]).is_none());
    }
}
