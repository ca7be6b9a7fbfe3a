//! Decoding undoes encoding, for any table, layout and key; nothing else is ever half decoded, and nothing panics.

use super::cells::{Cell, array, cell, key_kind, kind, optional};
use crate::bind::tests::{route, schema};
use crate::bind::{BoundRoute, ReverseRoute};
use crate::digest::BatchHasher;
use crate::key::{Filter, KeyTemplate};
use crate::layout::{HashFields, RowDecoder, RowFault, RowValues};
use crate::plan::{Layout, NullPolicy, Origin, Route, System};
use crate::table::TableSchema;
use crate::text::TextColumn;
use crate::type_map::ColumnType;
use crate::{Digest, text};
use arrow::array::ArrayRef;
use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A table and its rows; the first two columns may be in the key, and the first is never null.
#[derive(Debug, Clone)]
struct Case {
    kinds: Vec<ColumnType>,
    rows: Vec<Vec<Option<Cell>>>,
    key: String,
    layout: Layout,
    null: NullPolicy,
    has_key_field: bool,
}

/// A template of one to three placeholders, in which literals may also occur in values.
fn key() -> impl Strategy<Value = String> {
    let filter = || select(vec!["", "", "|urlencode", "|urlencode", "|lower", "|date:%Y%m%d%H"]);
    let leading = select(vec!["k:", "", "%", "c{{0", "ü\"'"]);
    let literal = || select(vec![":", "::", "-", "%", "a", "}}:", "T0", "ü"]);
    let more = vec((literal(), 0..2_usize, filter()), 0..3);
    let parts = (leading, filter(), more, option::of(literal()));
    parts.prop_map(|(leading, first, more, tail)| {
        let more =
            more.iter().map(|(literal, column, filter)| format!("{literal}{{c{column}{filter}}}"));
        format!("{leading}{{c0{first}}}{}{}", more.collect::<String>(), tail.unwrap_or_default())
    })
}

/// Whether every column of a key has a type that its filter and the text behind it suit.
fn fits(key: &str, kinds: &[ColumnType]) -> bool {
    let case = Case {
        kinds: kinds.to_vec(),
        rows: Vec::new(),
        key: key.to_owned(),
        layout: Layout::Hash,
        null: NullPolicy::Omit,
        has_key_field: true,
    };
    ReverseRoute::bind(&case.route(), case.table()).is_ok()
}

fn case() -> impl Strategy<Value = Case> {
    let kinds = (key_kind(), key_kind(), vec(kind(), 1..4)).prop_map(|(first, second, rest)| {
        let mut kinds = vec![first, second];
        kinds.extend(rest);
        kinds
    });
    let plan = (
        key(),
        select(vec![Layout::Hash, Layout::Json, Layout::Stream]),
        select(vec![NullPolicy::Omit, NullPolicy::Empty]),
        any::<bool>(),
    );
    let fitting = (kinds, plan).prop_map(|(kinds, mut plan)| {
        if !fits(&plan.0, &kinds) {
            for (column, filter) in [(0, ""), (0, "|lower"), (1, ""), (1, "|lower")] {
                let encoded = format!("{{c{column}|urlencode}}");
                plan.0 = plan.0.replace(&format!("{{c{column}{filter}}}"), &encoded);
            }
            plan.0 = plan.0.replace("|date:%Y%m%d%H", "|urlencode");
        }
        (kinds, plan)
    });
    fitting.prop_flat_map(|(kinds, (key, layout, null, has_key_field))| {
        let mut columns: Vec<BoxedStrategy<Option<Cell>>> = kinds.iter().map(optional).collect();
        columns[0] = cell(&kinds[0]).prop_map(Some).boxed();
        vec(columns, 1..6).prop_map(move |rows| Case {
            kinds: kinds.clone(),
            rows,
            key: key.clone(),
            layout,
            null,
            has_key_field,
        })
    })
}

impl Case {
    fn table(&self) -> TableSchema {
        let names: Vec<String> = (0..self.kinds.len()).map(|index| format!("c{index}")).collect();
        let columns: Vec<(&str, ColumnType)> =
            names.iter().map(String::as_str).zip(self.kinds.iter().cloned()).collect();
        schema(&columns, &[])
    }

    fn route(&self) -> Route {
        let mut route = route("k:{c0}", self.layout);
        route.key = KeyTemplate::parse(&self.key).unwrap();
        route.origin = Origin::Table {
            system: System::BigQuery,
            schema: "logs".into(),
            table: "builds".into(),
        };
        route.null = self.null;
        if self.has_key_field {
            let table = self.table();
            let field = |column: &crate::Column| crate::plan::FieldSpec::Column {
                field: format!("f {}", column.name),
                column: column.name.clone(),
            };
            route.columns = Some(table.columns.iter().rev().map(field).collect());
        }
        route
    }

    fn batch(&self) -> RecordBatch {
        let column = |index: usize| -> ArrayRef {
            let cells: Vec<Option<Cell>> = self.rows.iter().map(|row| row[index].clone()).collect();
            array(&self.kinds[index], &cells)
        };
        let arrays = (0..self.kinds.len()).map(column).collect();
        RecordBatch::try_new(self.table().arrow(), arrays).unwrap()
    }
}

/// What Redis holds of a row.
#[derive(Debug, Clone)]
enum Stored {
    Pairs(Vec<(Vec<u8>, Vec<u8>)>),
    Json(Vec<u8>),
}

/// The key and value of every row that can be written, and the rows themselves.
fn encode(case: &Case) -> (Vec<(Vec<u8>, Stored)>, RecordBatch) {
    let mut route = case.route();
    if route.layout == Layout::Stream {
        // An entry of a stream has the fields of a hash.
        route.layout = Layout::Hash;
    }
    let rows = case.batch();
    let bound = BoundRoute::bind(&route, case.table()).unwrap();
    let keys = bound.key.renderer(&rows).unwrap();
    let values = RowValues::new(&rows, &bound).unwrap();
    let (mut stored, mut kept) = (Vec::new(), Vec::new());
    for row in 0..rows.num_rows() {
        let (mut key, mut fields, mut json) = (Vec::new(), HashFields::default(), Vec::new());
        if keys.render(row, &mut key).is_err() {
            continue;
        }
        let value = if route.layout == Layout::Json {
            values.json(row, &mut json).map(|()| Stored::Json(json))
        } else {
            values.hash_fields(row, &mut fields).map(|()| {
                let name = |field: usize| bound.fields[field].name.clone().into_bytes();
                let pairs = fields.iter().map(|(field, value)| (name(field), value.to_vec()));
                Stored::Pairs(pairs.collect())
            })
        };
        if let Ok(value) = value {
            stored.push((key, value));
            kept.push(rows.slice(row, 1));
        }
    }
    (stored, concat_batches(&rows.schema(), &kept).unwrap())
}

fn decode(decoder: &mut RowDecoder, key: &[u8], value: &Stored) -> Result<(), RowFault> {
    match value {
        Stored::Pairs(pairs) => {
            decoder.pairs(key, pairs.iter().map(|(name, value)| (&name[..], &value[..])))
        }
        Stored::Json(json) => decoder.json(key, json),
    }
}

/// The same value with a field that no route has, behind all others.
fn with_unknown_field(value: &Stored) -> Stored {
    match value {
        Stored::Pairs(pairs) => {
            let mut pairs = pairs.clone();
            pairs.push((b"no such field".to_vec(), b"1".to_vec()));
            Stored::Pairs(pairs)
        }
        Stored::Json(json) => {
            let comma = if json.len() > 2 { "," } else { "" };
            let mut json = json[..json.len() - 1].to_vec();
            json.extend_from_slice(format!("{comma}\"no such field\":1}}").as_bytes());
            Stored::Json(json)
        }
    }
}

fn digest(rows: &RecordBatch) -> Digest {
    let mut digest = Digest::default();
    BatchHasher::new(rows).unwrap().add_to(&mut digest);
    digest
}

/// Binds where NULL has a form of its own; the combinations that merge it are refused elsewhere.
fn decoder(case: &Case) -> Option<RowDecoder> {
    let reverse = match ReverseRoute::bind(&case.route(), case.table()) {
        Ok(reverse) => reverse,
        Err(reasons) => {
            assert_eq!(case.null, NullPolicy::Empty, "{reasons:?}");
            return None;
        }
    };
    Some(RowDecoder::new(&reverse, case.table().arrow(), 2).unwrap())
}

/// Puts other bytes at a place, and drops what was there.
fn damage(bytes: &mut Vec<u8>, at: Index, with: &[u8]) {
    let at = at.index(bytes.len() + 1);
    let end = bytes.len().min(at + 1);
    bytes.splice(at..end, with.iter().copied());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn decoding_undoes_encoding(case in case()) {
        let Some(mut decoder) = decoder(&case) else { return Ok(()) };
        let (stored, rows) = encode(&case);
        for _ in 0..2 {
            for (key, value) in &stored {
                // A refused row must leave nothing behind, however far it came.
                let refused = decode(&mut decoder, key, &with_unknown_field(value));
                prop_assert_eq!(refused, Err(RowFault::UnknownField { field: "no such field".into() }));
                let decoded = decode(&mut decoder, key, value);
                prop_assert!(decoded.is_ok(), "{} for {case:?}", decoded.unwrap_err());
            }
            prop_assert_eq!(decoder.rows(), stored.len());
            let decoded = decoder.finish();
            prop_assert_eq!(&decoded, &rows);
            prop_assert_eq!(digest(&decoded), digest(&rows));
            prop_assert_eq!(decoder.rows(), 0);
        }
    }

    #[test]
    fn a_key_parses_into_the_texts_that_it_was_rendered_from(case in case()) {
        let template = KeyTemplate::parse(&case.key).unwrap();
        let (stored, rows) = encode(&case);
        for (row, (key, _)) in stored.iter().enumerate() {
            let Some(parsed) = template.parse_key(key) else {
                return Err(TestCaseError::fail(format!("{key:?} of {}", case.key)));
            };
            for ((column, filter), parsed) in template.columns().zip(parsed) {
                let index = usize::from(column == "c1");
                let text = TextColumn::new(rows.column(index).as_ref(), &case.kinds[index]).unwrap();
                let mut wanted = Vec::new();
                text.write(row, &mut wanted);
                // What was lost in the one direction must be all that is missing in the other.
                match filter {
                    Filter::None | Filter::UrlEncode => {}
                    Filter::Lower => wanted = String::from_utf8(wanted).unwrap().to_lowercase().into(),
                    Filter::Date(_) => {
                        wanted.retain(u8::is_ascii_digit);
                        wanted.resize(10, b'0');
                    }
                }
                prop_assert_eq!(parsed, wanted, "{} of {}", column, case.key);
            }
        }
    }

    #[test]
    fn keys_that_are_not_the_row_s_own_are_refused(case in case(), at in any::<Index>()) {
        let Some(mut decoder) = decoder(&case) else { return Ok(()) };
        let (stored, _) = encode(&case);
        for (key, value) in &stored {
            let mut other = key.clone();
            damage(&mut other, at, b"~");
            if other == *key || decode(&mut decoder, &other, value).is_err() {
                continue;
            }
            // Another key is another row, and its columns say so.
            let decoded = decoder.finish();
            let bound = crate::key::BoundKey::new(&case.route().key, &case.table()).unwrap();
            let mut rendered = Vec::new();
            bound.renderer(&decoded).unwrap().render(0, &mut rendered).unwrap();
            prop_assert_eq!(rendered, other);
        }
    }

    #[test]
    fn damaged_values_never_panic_and_are_taken_whole_or_not_at_all(
        case in case(),
        at in any::<Index>(),
        with in select(vec![&b"\""[..], b"\\", b"{", b"]", b",", b"0", b"-", b"\xff", b"\xc3\xa9", b"null", b""]),
        field in any::<Index>(),
    ) {
        let Some(mut decoder) = decoder(&case) else { return Ok(()) };
        let (stored, _) = encode(&case);
        let mut count = 0;
        for (key, value) in &stored {
            let mut value = value.clone();
            match &mut value {
                Stored::Pairs(pairs) => {
                    let field = field.index(pairs.len());
                    damage(&mut pairs[field].1, at, with);
                }
                Stored::Json(json) => damage(json, at, with),
            }
            count += usize::from(decode(&mut decoder, key, &value).is_ok());
            prop_assert_eq!(decoder.rows(), count);
        }
        prop_assert_eq!(decoder.finish().num_rows(), count);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        case in case(),
        key in vec(any::<u8>(), 0..12),
        value in vec(any::<u8>(), 0..40),
        pairs in vec((select(vec!["c0", "c1", "c2", "f c0", "f c1", "f c2"]), vec(any::<u8>(), 0..12)), 0..6),
    ) {
        let Some(mut decoder) = decoder(&case) else { return Ok(()) };
        let pairs = || pairs.iter().map(|(name, value)| (name.as_bytes(), &value[..]));
        let mut count = 0;
        for key in [&key[..], b"k:1", b"k:true", b"{1}", b"2020-01-01:k"] {
            count += usize::from(decoder.json(key, &value).is_ok());
            count += usize::from(decoder.pairs(key, pairs()).is_ok());
        }
        prop_assert_eq!(decoder.finish().num_rows(), count);
    }
}

/// A value nested deeper than any stack is passed over or refused.
#[test]
fn depth_is_no_danger() {
    let case = Case {
        kinds: vec![ColumnType::Int8, ColumnType::Json],
        rows: Vec::new(),
        key: "k:{c0}".to_owned(),
        layout: Layout::Json,
        null: NullPolicy::Omit,
        has_key_field: false,
    };
    let mut decoder = decoder(&case).unwrap();
    let deep = 200_000;
    let json = format!("{{\"c1\":{}{}}}", "[".repeat(deep), "]".repeat(deep));
    assert_eq!(decoder.json(b"k:1", json.as_bytes()), Ok(()));
    assert!(decoder.json(b"k:2", &json.as_bytes()[..deep]).is_err());
    let mut text = Vec::new();
    text::write_json_string(b"x", &mut text);
    assert!(decoder.json(b"k:3", &text).is_err());
    assert_eq!(decoder.finish().num_rows(), 1);
}
