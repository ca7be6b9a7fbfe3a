//! Everything that a route can be read by. A new implementation of `Source` is one line of this list.
//!
//! Invariant: what is expected of a line is told by its system itself, in SQL of its own.

use crate::systems::{Systems, is_soak};

/// One way to read rows.
pub(super) struct Line {
    /// Name of the route.
    pub(super) name: &'static str,
    /// The route, without its name.
    route: &'static str,
    /// What gives the ids of its rows, asked of its own system.
    ids: &'static str,
}

/// The list. Each has a column `id` that tells its rows apart.
pub(super) const SOURCES: [Line; 10] = [
    Line {
        name: "ctid",
        route: "table = \"alloydb:heap\"\nkey = \"ctid:{id}\"\ntype = \"hash\"",
        ids: "select id from heap",
    },
    Line {
        name: "filtered",
        route: "table = \"alloydb:heap\"\nkey = \"f:{id}\"\ntype = \"json\"\nwhere = \"id % 3 = 0\"",
        ids: "select id from heap where id % 3 = 0",
    },
    Line {
        name: "parts",
        route: "table = \"alloydb:parts\"\nkey = \"parts:{id}\"\ntype = \"hash\"",
        ids: "select id from parts",
    },
    Line {
        name: "ranges",
        route: "table = \"alloydb:seen\"\nkey = \"seen:{id}\"\ntype = \"hash\"\nsplit_by = \"grp\"\non_collision = \"error\"",
        ids: "select id from seen",
    },
    Line {
        name: "whole",
        route: "query = \"select * from heap where id % 5 = 0\"\nfrom = \"alloydb\"\nkey = \"q:{id}\"\ntype = \"string\"\ncolumns = [\"pad\"]\non_collision = \"error\"",
        ids: "select id from heap where id % 5 = 0",
    },
    Line {
        name: "last",
        route: "table = \"alloydb:heap\"\nkey = \"last:{id}\"\ntype = \"hash\"\non_collision = \"last\"\norder_by = \"n\"",
        ids: "select id from heap",
    },
    Line {
        name: "many",
        route: "table = \"alloydb:heap\"\nkey = \"many:{grp}\"\ntype = \"zset\"\nmember = \"{id}\"\nscore = \"n\"",
        ids: "select id from heap",
    },
    Line {
        name: "logs",
        route: "table = \"bigquery:d.t\"\nkey = \"log:{id}\"\ntype = \"hash\"\non_collision = \"error\"",
        ids: "SELECT id FROM d.t",
    },
    Line {
        name: "logs-asked",
        route: "query = \"SELECT id, name FROM d.t WHERE MOD(id, 2) = 0\"\nfrom = \"bigquery\"\nkey = \"asked:{id}\"\ntype = \"hash\"\non_collision = \"error\"",
        ids: "SELECT id FROM d.t WHERE MOD(id, 2) = 0",
    },
    Line {
        name: "logs-sorted",
        route: "table = \"bigquery:d.t\"\nkey = \"sorted:{ts}\"\ntype = \"set\"\nmember = \"{id}\"",
        ids: "SELECT id FROM d.t",
    },
];

impl Line {
    /// Whether it reads BigQuery.
    pub(super) fn is_bigquery(&self) -> bool {
        self.route.contains("\"bigquery")
    }

    /// The ids of its rows as its system tells them now, sorted.
    pub(super) fn ids(&self, systems: &Systems) -> Vec<i64> {
        let lines: Vec<String> = if self.is_bigquery() {
            systems.cloud.sql(self.ids)
        } else {
            systems.sql(self.ids).lines().map(str::to_owned).collect()
        };
        let mut ids: Vec<i64> = lines.iter().map(|line| line.parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    /// Its part of a plan.
    fn text(&self) -> String {
        format!("[[route]]\nname = \"{}\"\n{}\n", self.name, self.route)
    }
}

/// The routes of every line.
pub(super) fn routes() -> String {
    SOURCES.iter().map(Line::text).collect()
}

/// Makes what the lines read: tables of several partitions and many batches, values of `grp` that many rows share, and
/// some that are null.
pub(super) fn fill(systems: &Systems) {
    let (rows, parts) = if is_soak() { (600_000, 40_000) } else { (60_000, 3_000) };
    systems.sql(&format!(
        "create table heap (id bigint primary key, grp int not null, n int not null, pad text not null); \
         create index on heap (grp); \
         insert into heap select i, i / 7, i % 1000, repeat(md5(i::text), 4) from generate_series(1, {rows}) i; \
         create view seen as select id, nullif(grp % 50, 0) as grp, pad from heap where id <= 9000; \
         create table parts (id bigint primary key, name text) partition by hash (id); \
         create table parts_0 partition of parts for values with (modulus 2, remainder 0); \
         create table parts_1 partition of parts for values with (modulus 2, remainder 1); \
         insert into parts select i, 'name ' || i from generate_series(1, {parts}) i; \
         alter table heap owner to rekindle; alter view seen owner to rekindle; alter table parts owner to rekindle; \
         alter table parts_0 owner to rekindle; alter table parts_1 owner to rekindle; vacuum analyze"
    ));
    systems.fill_bigquery();
}

/// Inserts, changes and deletes rows of both systems; `round` tells the rows of one call from those of another.
pub(super) fn change(systems: &Systems, round: i64) {
    let (base, from) = (1_000_000 * round, 40_000 + 1_000 * round);
    systems.sql(&format!(
        "insert into heap select {base} + i, 9000 + i, i, 'new' from generate_series(1, 500) i; \
         update heap set n = n + 1, pad = pad || 'x' where id between {from} and {from} + 300; \
         delete from heap where id between {from} + 301 and {from} + 400; \
         insert into parts select {base} + i, 'new' from generate_series(1, 50) i; \
         delete from parts where id between 10 * {round} and 10 * {round} + 4"
    ));
    systems.cloud.insert(3, u32::try_from(base).unwrap()..u32::try_from(base).unwrap() + 100);
    systems.cloud.sql(&format!(
        "DELETE FROM d.t WHERE id BETWEEN {} AND {}",
        10 * round,
        10 * round + 4
    ));
}
