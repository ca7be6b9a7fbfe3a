//! Everything that a sink can be given. A new sink, or a new way to write, is one line of this list.
//!
//! Invariant: a line is written as a lane would write it: encoded by its route, stitched, in order.

use crate::systems::{Systems, Wired, is_soak};
use rekindle::lane::now_ms;
use rekindle::route::RouteRun;
use schemas::Position;
use stages::extract::Columns;
use stages::load::redis::WayChoice;
use stages::transform::{Attempt, Style};
use stages::{Encoded, RawBatch};

/// One way to write rows.
pub(super) struct Line {
    pub(super) name: &'static str,
    /// The route, without its name.
    route: &'static str,
    pub(super) way: WayChoice,
    pub(super) style: Style,
}

const fn line(name: &'static str, style: Style, route: &'static str) -> Line {
    Line { name, route, way: WayChoice::Command, style }
}

/// The list.
pub(super) const SINKS: [Line; 14] = [
    line("hash", Style::Exact, "key = \"h:{id}\"\ntype = \"hash\""),
    line("hash-into-nothing", Style::Blank, "key = \"n:{id}\"\ntype = \"hash\""),
    Line {
        name: "hash-by-payload",
        route: "key = \"p:{id}\"\ntype = \"hash\"",
        way: WayChoice::Restore,
        style: Style::Exact,
    },
    line("text", Style::Exact, "key = \"t:{id}\"\ntype = \"string\"\ncolumns = [\"pad\"]"),
    line("json", Style::Exact, "key = \"j:{id}\"\ntype = \"json\""),
    line(
        "document",
        Style::Exact,
        "key = \"d:{id}\"\ntype = \"redisjson\"\ncolumns = [\"v\", \"pad\"]",
    ),
    line("expiring", Style::Exact, "key = \"e:{id}\"\ntype = \"hash\"\nexpire_at = \"gone\""),
    line("kept", Style::Keep, "key = \"k:{id}\"\ntype = \"hash\"\non_conflict = \"keep\""),
    line(
        "newest",
        Style::Newest,
        "key = \"v:{id}\"\ntype = \"hash\"\non_conflict = \"newest\"\nversion_by = \"v\"",
    ),
    line("set", Style::Exact, "key = \"s:{grp}\"\ntype = \"set\"\nmember = \"{twin}\""),
    line(
        "zset",
        Style::Exact,
        "key = \"z:{grp}\"\ntype = \"zset\"\nmember = \"{id}\"\nscore = \"v\"",
    ),
    line(
        "list",
        Style::Exact,
        "key = \"l:{grp}\"\ntype = \"list\"\nmember = \"{pad}\"\norder_by = \"id\"",
    ),
    line(
        "fields",
        Style::Exact,
        "key = \"f:{grp}\"\ntype = \"hash\"\nmember = \"{id}\"\ncolumns = [\"pad\"]",
    ),
    line("stream", Style::Exact, "key = \"x\"\ntype = \"stream\"\nuse = [\"rebuild\"]"),
];

/// Rows of the table.
pub(super) fn rows() -> u64 {
    if is_soak() { 60_000 } else { 4_000 }
}

/// Makes the table: every pair of rows has one `twin`, ten rows share a `grp`, none expires soon.
pub(super) fn fill(systems: &Systems) {
    systems.sql(&format!(
        "create table things (id bigint primary key, grp int not null, twin int not null, v bigint not null, \
         gone timestamptz not null, pad text not null); create index on things (grp); \
         insert into things select i, i / 10, i / 2, 1000 + i, timestamptz '2099-01-01' + i * interval '1 minute', \
         repeat(md5(i::text), 5) from generate_series(0, {} - 1) i; \
         alter table things owner to rekindle; vacuum analyze things",
        rows()
    ));
}

impl Line {
    /// Its part of a plan.
    pub(super) fn text(&self) -> String {
        format!("[[route]]\nname = \"{}\"\ntable = \"alloydb:things\"\n{}\n", self.name, self.route)
    }

    /// Whether what is there may stay.
    pub(super) fn keeps(&self) -> bool {
        self.style == Style::Keep
    }
}

/// What a lane sends of the whole route, in order, as another attempt of this number would.
pub(super) async fn encoded(line: &Line, wired: &Wired, attempt: usize) -> Vec<Encoded> {
    let route = wired.route(line.name);
    let mut encoded = Vec::new();
    for (number, partition) in (0..).zip(route.source.partitions(1, 0).await.unwrap()) {
        let session = route.source.open().await.unwrap();
        let mut stream = session.read(&partition, &Position::Start, Columns::All);
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            batches.push(batch.unwrap());
        }
        let name = format!("conform:{}:{attempt}:{number}", line.name);
        encoded.extend(stitched(
            line,
            route,
            &partition.bounds,
            batches,
            &Attempt { name: &name, number },
        ));
    }
    encoded
}

fn stitched(
    line: &Line,
    route: &RouteRun,
    bounds: &schemas::Bounds,
    batches: Vec<RawBatch>,
    attempt: &Attempt<'_>,
) -> Vec<Encoded> {
    let transform = (route.transform)(bounds, line.style);
    let mut stitcher = transform.stitcher(attempt);
    let mut done = Vec::new();
    for raw in batches {
        let mut encoded = transform.apply(raw, now_ms()).unwrap();
        match (encoded.open.take(), &mut stitcher) {
            (Some(open), Some(stitcher)) => done.extend(stitcher.take(open).unwrap()),
            _ => done.push(encoded),
        }
    }
    done.extend(stitcher.as_mut().and_then(|stitcher| stitcher.end().unwrap()));
    done
}
