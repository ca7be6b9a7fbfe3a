//! A random table, random routes over it, and what Redis must hold after a rebuild, all written down here.
//!
//! Invariant: nothing of the product computes an expectation; every cell is drawn together with its SQL, text and JSON.

mod draw;

pub(super) use draw::case;
use draw::quoted;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Hash(BTreeMap<String, String>),
    Text(String),
    List(Vec<String>),
}

/// Every key with its value and its expiry in ms since 1970, -1 for never.
pub(super) type Held = BTreeMap<String, (Value, i64)>;

/// A value that is not null, in all its forms.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    sql: String,
    text: String,
    json: String,
}

/// A column, by what is drawn for it.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    sql_type: &'static str,
}

/// A row; column `n` of the table is cell `n`, and the first is the id.
type Row = Vec<Option<Cell>>;

/// A field of a route: what it is called, and the number of its column or its constant.
#[derive(Debug, Clone)]
enum Field {
    Column(String, usize),
    Constant(String, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Hash,
    Json,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conflict {
    Replace,
    Keep,
    Newest,
}

/// What stands under a key before the first rebuild.
#[derive(Debug, Clone)]
enum Planted {
    Nothing,
    List,
    /// An entry of the route's own layout, with this version, and an expiry.
    Entry(Option<i64>, bool),
}

#[derive(Debug, Clone)]
struct Route {
    layout: Layout,
    key: usize,
    /// `None` for the columns that a route has by default.
    fields: Option<Vec<Field>>,
    null: &'static str,
    conflict: Conflict,
    /// No expiry, the time in `until`, or a day after it.
    expiry: usize,
    planted: Vec<Planted>,
}

/// A table with rows, and routes over it.
#[derive(Debug, Clone)]
pub(super) struct Case {
    columns: Vec<Column>,
    rows: Vec<Row>,
    routes: Vec<Route>,
}

/// Numbers of the columns that every table has.
const ID: usize = 0;
const T: usize = 1;
const V: usize = 2;
const UNTIL: usize = 3;
const FIXED: [(&str, &str); 4] =
    [("id", "bigint"), ("t", "text"), ("v", "bigint"), ("until", "timestamptz")];
/// Templates behind the prefix of a route, each with the columns that its key gives back.
const KEYS: [(&str, &[usize]); 5] = [
    ("{id}", &[ID]),
    ("{id}:{t}", &[ID, T]),
    ("{t|urlencode}:{id}", &[ID, T]),
    ("{t|lower}:{id}", &[ID]),
    ("{{{id}}}/{t|urlencode}", &[ID, T]),
];
const DAY_MS: i64 = 86_400_000;
/// An expiry of what is planted: in the year 2096.
const PLANTED_EXPIRY: i64 = 4_000_000_000_000;
/// Times of `until`: as text, and in ms since 1970, where they are one.
const TIMES: [(&str, Option<i64>); 5] = [
    ("infinity", None),
    ("-infinity", Some(i64::MIN)),
    ("2020-01-01T00:00:00Z", Some(1_577_836_800_000)),
    ("2090-01-01T00:00:00.001999Z", Some(3_786_912_000_001)),
    ("2090-01-01T00:00:00Z", Some(3_786_912_000_000)),
];

impl Case {
    /// The statements that make the table anew.
    pub(super) fn sql(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("{} {}", identifier(&c.name), c.sql_type))
            .collect();
        let mut sql = format!(
            "drop table if exists random; create table random ({}, primary key (id));\n",
            columns.join(", ")
        );
        for row in &self.rows {
            let cells: Vec<&str> =
                row.iter().map(|cell| cell.as_ref().map_or("null", |cell| &cell.sql)).collect();
            writeln!(sql, "insert into random values ({});", cells.join(", ")).unwrap();
        }
        sql
    }

    /// The routes as TOML.
    pub(super) fn plan(&self) -> String {
        (0..self.routes.len()).map(|number| self.route_text(number)).collect()
    }

    fn route_text(&self, number: usize) -> String {
        let route = &self.routes[number];
        let layout = match route.layout {
            Layout::Hash => "hash",
            Layout::Json => "json",
            Layout::Text => "string",
        };
        let conflict = match route.conflict {
            Conflict::Replace => "on_conflict = \"replace\"\n",
            Conflict::Keep => "on_conflict = \"keep\"\n",
            Conflict::Newest => "on_conflict = \"newest\"\nversion_by = \"v\"\n",
        };
        let expiry = ["", "expire_at = \"until\"\n", "ttl = \"1d\"\nttl_from = \"until\"\n"];
        let columns = route.fields.as_ref().map_or(String::new(), |fields| {
            let fields: Vec<String> = fields.iter().map(|field| self.field_text(field)).collect();
            format!("columns = [{}]\n", fields.join(", "))
        });
        format!(
            "[[route]]\nname = \"r{number}\"\ntable = \"alloydb:random\"\nkey = \"r{number}:{}\"\n\
             type = \"{layout}\"\nnull = \"{}\"\nrejects_max = 1000\n{conflict}{}{columns}",
            KEYS[route.key].0, route.null, expiry[route.expiry]
        )
    }

    fn field_text(&self, field: &Field) -> String {
        // JSON strings are strings of TOML but for the one character that JSON leaves as it is.
        let toml = |text: &str| serde_json::to_string(text).unwrap().replace('\u{7f}', "\\u007f");
        match field {
            Field::Column(name, column) => {
                let column = toml(&self.columns[*column].name);
                format!("{{ field = {}, column = {column} }}", toml(name))
            }
            Field::Constant(name, value) => {
                format!("{{ field = {}, value = {} }}", toml(name), toml(&value.replace("${", "")))
            }
        }
    }

    /// The fields of a route, in order.
    fn fields(&self, route: &Route) -> Vec<Field> {
        route.fields.clone().unwrap_or_else(|| {
            let in_key = KEYS[route.key].1;
            let others = (0..self.columns.len()).filter(|column| !in_key.contains(column));
            others.map(|column| Field::Column(self.columns[column].name.clone(), column)).collect()
        })
    }

    /// What is under the keys before the first rebuild.
    pub(super) fn planted(&self) -> Held {
        let mut held = Held::new();
        for (number, route) in self.routes.iter().enumerate() {
            for (row, planted) in self.rows.iter().zip(&route.planted) {
                if let Some(key) = key(number, route, row)
                    && let Some(entry) = self.plant(route, planted)
                {
                    held.insert(key, entry);
                }
            }
        }
        held
    }

    fn plant(&self, route: &Route, planted: &Planted) -> Option<(Value, i64)> {
        let (version, dies) = match planted {
            Planted::Nothing => return None,
            Planted::List => return Some((Value::List(vec!["x".to_owned()]), -1)),
            Planted::Entry(version, dies) => (version, dies),
        };
        let name = self.version_field(route);
        let value = match route.layout {
            Layout::Hash => {
                let mut fields = BTreeMap::from([("stale".to_owned(), "1".to_owned())]);
                fields.extend(version.map(|version| (name, version.to_string())));
                Value::Hash(fields)
            }
            Layout::Json => Value::Text(version.map_or("{}".to_owned(), |version| {
                format!("{{{}: {version}}}", serde_json::to_string(&name).unwrap())
            })),
            Layout::Text => Value::Text("stale".to_owned()),
        };
        Some((value, if *dies { PLANTED_EXPIRY } else { -1 }))
    }

    /// Where a version would be read from.
    fn version_field(&self, route: &Route) -> String {
        let of_version = |field: &Field| match field {
            Field::Column(name, V) => Some(name.clone()),
            _ => None,
        };
        self.fields(route).iter().find_map(of_version).unwrap_or_else(|| "v".to_owned())
    }

    /// What Redis must hold after any number of rebuilds.
    pub(super) fn wanted(&self) -> Held {
        let mut held = self.planted();
        for (number, route) in self.routes.iter().enumerate() {
            for (row, planted) in self.rows.iter().zip(&route.planted) {
                let expires = expires(route, row);
                if expires.is_some_and(|ms| ms < 2_000_000_000_000) {
                    continue;
                }
                let (Some(key), Some(value)) = (key(number, route, row), self.value(route, row))
                else {
                    continue;
                };
                if is_written(route, row, planted) {
                    held.insert(key, (value, expires.unwrap_or(-1)));
                }
            }
        }
        held
    }

    /// The value of a row, unless it is rejected.
    fn value(&self, route: &Route, row: &Row) -> Option<Value> {
        let mut fields = Vec::new();
        for field in self.fields(route) {
            let (name, cell) = match field {
                Field::Column(name, column) => (name, row[column].clone()),
                Field::Constant(name, value) => {
                    (name, Some(quoted(&value.replace("${", ""), String::new())))
                }
            };
            let empty = Cell { sql: String::new(), text: String::new(), json: "null".to_owned() };
            match (cell, route.null) {
                (Some(cell), _) => fields.push((name, cell)),
                (None, "empty") => fields.push((name, empty)),
                (None, "omit") => {}
                (None, _) => return None,
            }
        }
        match route.layout {
            Layout::Hash if fields.is_empty() => None,
            Layout::Hash => Some(Value::Hash(
                fields.into_iter().map(|(name, cell)| (name, cell.text)).collect(),
            )),
            Layout::Text => Some(Value::Text(fields.pop()?.1.text)),
            Layout::Json => {
                let member = |(name, cell): &(String, Cell)| {
                    format!("{}:{}", serde_json::to_string(name).unwrap(), cell.json)
                };
                let members: Vec<String> = fields.iter().map(member).collect();
                Some(Value::Text(format!("{{{}}}", members.join(","))))
            }
        }
    }
}

/// An identifier of SQL.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The key of a row, unless it has none.
fn key(number: usize, route: &Route, row: &Row) -> Option<String> {
    let cell = |column: usize| row[column].as_ref().map(|cell| cell.text.as_str());
    let id = cell(ID)?;
    let tail = match route.key {
        0 => id.to_owned(),
        1 => format!("{id}:{}", cell(T)?),
        2 => format!("{}:{id}", encoded(cell(T)?)),
        // What the colon in a text would end is another key.
        3 => format!("{}:{id}", Some(cell(T)?.to_lowercase()).filter(|t| !t.contains(':'))?),
        _ => format!("{{{id}}}/{}", encoded(cell(T)?)),
    };
    Some(format!("r{number}:{tail}"))
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").unwrap(),
        }
    }
    out
}

fn expires(route: &Route, row: &Row) -> Option<i64> {
    let text = &row[UNTIL].as_ref()?.text;
    let ms = TIMES.iter().find(|(at, _)| at == text)?.1?;
    match route.expiry {
        0 => None,
        1 => Some(ms),
        _ => Some(ms.saturating_add(DAY_MS)),
    }
}

/// Whether a row that can be written is, over what was planted under its key.
fn is_written(route: &Route, row: &Row, planted: &Planted) -> bool {
    match (route.conflict, planted) {
        (Conflict::Replace, _)
        | (_, Planted::Nothing)
        | (Conflict::Newest, Planted::List | Planted::Entry(None, _)) => true,
        (Conflict::Keep, _) => false,
        (Conflict::Newest, Planted::Entry(Some(theirs), _)) => {
            let ours = row[V].as_ref().map(|cell| cell.text.parse::<i64>().unwrap());
            ours.is_some_and(|ours| ours >= *theirs)
        }
    }
}
