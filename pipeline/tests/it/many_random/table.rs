//! A random table with a random route over it, and the rows that come and go in it.
//!
//! Invariant: rows of one member of one key have one score or value, unless the last of them wins; and the order that
//! says which is last has no ties.

use super::model::{COLUMNS, Null, Piece, Route, Row, VALUE};
use super::values::{Cell, Dice, Kind, OF_KEYS, OF_SCORES, copied, days_since_1970};
use crate::world::World;
use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Rows of the largest table: with a filler it is cut into several partitions, with padding a key spans batches.
const ROWS_MAX: usize = 6_000;

/// A route with its table.
pub(super) struct Filled {
    pub(super) route: Route,
    pub(super) rows: Vec<Row>,
    /// Where values of each column come from.
    pools: [Vec<Cell>; 4],
    is_skewed: bool,
    is_unique: bool,
    has_index: bool,
    filler: usize,
    more: String,
    next_id: usize,
}

impl Filled {
    pub(super) fn roll(dice: &mut Dice, number: usize) -> Self {
        let layout = dice.one(&["set", "zset", "list", "hash"]);
        let value = match layout {
            "zset" => dice.one(&OF_SCORES),
            "hash" => dice.one(&[Kind::Text, Kind::Varchar, Kind::Numeric, Kind::Int8, Kind::Time]),
            _ => Kind::Int4,
        };
        let kinds: [Kind; 5] =
            std::array::from_fn(|column| if column == VALUE { value } else { dice.one(&OF_KEYS) });
        let last_wins = matches!(layout, "zset" | "hash") && dice.percent(40);
        let key: Vec<Piece> = pieces(dice, kinds, 0);
        let split_by = if key.len() == 2 && dice.percent(50) { "split_by = \"b\"\n" } else { "" };
        let route = Route {
            prefix: format!("r{number}/"),
            kinds,
            layout,
            member: pieces(dice, kinds, 2),
            null: dice.one(&[Null::Omit, Null::Empty, Null::Error]),
            unit: if matches!(value, Kind::Date | Kind::Time) {
                dice.one(&["s", "ms", "us"])
            } else {
                ""
            },
            is_descending: layout == "list" && dice.percent(50),
            last_wins,
            expires: dice.percent(40),
            keeps: dice.percent(25),
            has_where: dice.percent(30),
            planted: BTreeSet::new(),
            key,
        };
        let groups = dice.one(&[1, 3, 40, 3_000]);
        let members = dice.one(&[20, 500, 100_000]);
        let pad = dice.one(&[0, 0, 150]);
        let pools = std::array::from_fn(|column| {
            let (spread, pad) = if column < 2 { (groups, 0) } else { (members, pad) };
            (0..spread.min(ROWS_MAX)).map(|_| kinds[column].value(dice, spread, pad)).collect()
        });
        let told =
            |pieces: &[Piece]| pieces.iter().all(|(column, _)| kinds[*column].is_told_by_text());
        let is_unique = told(&route.key) && told(&route.member) && dice.percent(30);
        let mut filled = Self {
            is_unique,
            route,
            rows: Vec::new(),
            pools,
            is_skewed: dice.percent(50),
            has_index: dice.percent(50),
            filler: dice.one(&[0, 0, 400]),
            more: split_by.to_owned(),
            next_id: 0,
        };
        let rows = dice.one(&[0, 7, 300, 3_000, ROWS_MAX]);
        filled.rows = filled.some_rows(dice, rows);
        filled
    }

    /// New rows; where a unique index tells key and member apart, those that it takes.
    fn some_rows(&mut self, dice: &mut Dice, count: usize) -> Vec<Row> {
        let mut taken: HashSet<String> =
            self.rows.iter().filter_map(|row| self.identity(row)).collect();
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            let row = self.row(dice);
            let is_taken = self.identity(&row).is_some_and(|identity| !taken.insert(identity));
            if !is_taken {
                rows.push(row);
            }
        }
        rows
    }

    fn identity(&self, row: &Row) -> Option<String> {
        let columns = self.route.key.iter().chain(&self.route.member);
        let texts: Option<Vec<&str>> =
            columns.map(|(column, _)| Some(row.cells[*column].as_ref()?.text.as_str())).collect();
        texts.filter(|_| self.is_unique).map(|texts| texts.join("\u{1}"))
    }

    fn row(&mut self, dice: &mut Dice) -> Row {
        let id = self.next_id;
        self.next_id += 1;
        let is_first = self.is_skewed && dice.percent(50);
        let cells = std::array::from_fn(|column| {
            let pool = self.pools.get(column)?;
            let place = if column < 2 && is_first { 0 } else { dice.below(pool.len()) };
            (!dice.percent(3)).then(|| pool[place].clone())
        });
        let far = |days: usize| days_since_1970(2090, 1, 1) + i64::try_from(days).unwrap();
        let until = match dice.below(4) {
            0 => None,
            1 => Some(1_000),
            _ => Some(far(dice.below(900)) * 86_400_000 + 7),
        };
        let order = if self.route.last_wins {
            // Each once.
            (id > 0).then(|| (id as u64 * 2_654_435_761 % 1_000_000_007).try_into().unwrap())
        } else {
            (!dice.percent(5)).then(|| i64::try_from(dice.below(50)).unwrap())
        };
        let weight = i64::try_from(dice.below(10)).unwrap();
        let mut row = Row { id, cells, order, weight, until };
        let seed = if self.route.last_wins {
            dice.below(usize::MAX >> 33) as u64
        } else {
            self.same(&row)
        };
        let mut dice = Dice(seed);
        let value = self.route.kinds[VALUE].value(&mut dice, 4_000, 0);
        row.cells[VALUE] = (!dice.percent(3)).then_some(value);
        row
    }

    /// A number that rows of one member of one key have in common, so that it has one score or value.
    fn same(&self, row: &Row) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (column, _) in self.route.key.iter().chain(&self.route.member) {
            let text = row.cells[*column].as_ref().map(|cell| cell.text.as_str());
            let is_empty = self.route.null == Null::Empty;
            if is_empty { Some(text.unwrap_or_default()) } else { text }.hash(&mut hasher);
        }
        hasher.finish()
    }

    pub(super) fn name(&self) -> &str {
        self.route.prefix.trim_end_matches('/')
    }

    pub(super) fn toml(&self) -> String {
        let Route { layout, prefix, null, unit, .. } = &self.route;
        let mut text = format!(
            "[[route]]\nname = \"{}\"\ntable = \"alloydb:{}\"\ntype = \"{layout}\"\nkey = \"{prefix}{}\"\nmember = \"{}\"\n\
             null = \"{}\"\nrejects_max = \"100%\"\n{}",
            self.name(),
            self.name(),
            template(&self.route.key),
            template(&self.route.member),
            format!("{null:?}").to_lowercase(),
            self.more
        );
        let unit = if unit.is_empty() { String::new() } else { format!("|{unit}") };
        match *layout {
            "zset" => text = format!("{text}score = \"v{unit}\"\n"),
            "hash" => text += "columns = [\"v\"]\n",
            "list" if self.route.is_descending => text += "order_by = \"o|desc\"\n",
            "list" => text += "order_by = \"o\"\n",
            _ => {}
        }
        for (is_set, line) in [
            (self.route.last_wins, "on_collision = \"last\"\norder_by = \"o\"\n"),
            (self.route.expires, "expire_at = \"until\"\n"),
            (self.route.keeps, "on_conflict = \"keep\"\n"),
            (self.route.has_where, "where = \"w > 2\"\n"),
        ] {
            text += if is_set { line } else { "" };
        }
        text
    }

    pub(super) fn create(&self, world: &World) {
        let name = self.name();
        let columns: Vec<String> = (0..COLUMNS.len())
            .map(|column| format!("{} {}", COLUMNS[column], self.route.kinds[column].sql()))
            .collect();
        world.sql(&format!(
            "drop table if exists {name}; create table {name} (id int primary key, {}, o bigint, w int, until timestamptz, filler text)",
            columns.join(", ")
        ));
        if self.is_unique {
            let columns: Vec<&str> = self
                .route
                .key
                .iter()
                .chain(&self.route.member)
                .map(|(column, _)| COLUMNS[*column])
                .collect();
            world.sql(&format!("create unique index on {name} ({})", columns.join(", ")));
        }
        if self.has_index {
            world.sql(&format!("create index on {name} (a)"));
        }
        self.copy(world, &self.rows);
    }

    fn copy(&self, world: &World, rows: &[Row]) {
        let line = |row: &Row| {
            let mut cells = vec![row.id.to_string()];
            cells.extend(
                row.cells.iter().map(|cell| copied(cell.as_ref().map(|cell| cell.text.as_str()))),
            );
            let number =
                |value: Option<i64>| copied(value.map(|value| value.to_string()).as_deref());
            cells.extend([
                number(row.order),
                row.weight.to_string(),
                number(row.until),
                "f".repeat(self.filler),
            ]);
            cells.join("\t")
        };
        let name = self.name();
        // Times come as numbers, so that the server makes them.
        let sql = format!(
            "create temporary table c (like {name}); alter table c alter until type bigint using null; copy c from stdin; \
             insert into {name} select id, a, b, m, n, v, o, w, to_timestamp(until / 1000) + until % 1000 * interval '1 ms', filler from c; \
             drop table c; analyze {name};"
        );
        let mut text = String::new();
        let (before, after) = sql.split_once("copy c from stdin; ").unwrap();
        text += before;
        text += "copy c from stdin;\n";
        for row in rows {
            text += &line(row);
            text.push('\n');
        }
        text += "\\.\n";
        text += after;
        world.sql(&text);
    }

    /// Takes some rows away, changes some, and adds some.
    pub(super) fn change(&mut self, world: &World, dice: &mut Dice) {
        let (share, of_key) = (dice.one(&[5, 30, 100]), self.pools[0].first().cloned());
        let whole_key = dice.percent(30);
        let gone = |row: &Row, dice: &mut Dice| {
            dice.percent(share) || (whole_key && row.cells[0] == of_key)
        };
        let (left, gone): (Vec<Row>, Vec<Row>) =
            std::mem::take(&mut self.rows).into_iter().partition(|row| !gone(row, dice));
        self.rows = left;
        let ids: Vec<String> = gone.iter().map(|row| row.id.to_string()).collect();
        if !ids.is_empty() {
            world.sql(&format!("delete from {} where id in ({})", self.name(), ids.join(", ")));
        }
        let count = dice.below(gone.len() + 50);
        let more = self.some_rows(dice, count);
        self.copy(world, &more);
        self.rows.extend(more);
    }
}

/// One or two columns from `first` on; a text in front of the separator is encoded, or refused where it holds one.
fn pieces(dice: &mut Dice, kinds: [Kind; 5], first: usize) -> Vec<Piece> {
    let count = 1 + dice.below(2);
    let piece = |column: usize| (column, kinds[column].is_text() && dice.percent(60));
    (first..first + count).map(piece).collect()
}

fn template(pieces: &[Piece]) -> String {
    let piece = |(column, is_encoded): &Piece| {
        format!("{{{}{}}}", COLUMNS[*column], if *is_encoded { "|urlencode" } else { "" })
    };
    pieces.iter().map(piece).collect::<Vec<_>>().join("/")
}
