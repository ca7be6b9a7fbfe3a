//! `rekindle init`: a first plan from the schemas of live systems.
//!
//! Invariant: no row is read and nothing is written but the file, which is never overwritten; every route that is not
//! commented out was checked against its table, and the whole file parses.

mod text;

use crate::wiring::{ListedColumn, PostgresListing, list_bigquery};
use schemas::Plan;
use serde::Serialize;
use stages::extract::postgres::{Listed, ListedKind};
use stages::{Error, Kind, Result};
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use text::{Draft, header};

/// Where the systems are, as they are to stand in the plan.
#[derive(Debug, Clone, Default)]
pub struct Systems {
    /// URL of the source, or `${env:…}`.
    pub alloydb: Option<String>,
    /// URL of the target, or `${env:…}`.
    pub redis: String,
    /// Project of BigQuery.
    pub bigquery_project: Option<String>,
    /// Endpoints of a stand-in: REST and gRPC.
    pub bigquery_endpoints: Option<(String, String)>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Always `init`.
    pub command: &'static str,
    /// The plan file.
    pub plan: PathBuf,
    /// Routes in it.
    pub routes: usize,
    /// Tables that are in it as a comment, with the reason.
    pub commented_out: usize,
}

/// Writes a first plan to `path`.
pub async fn init(
    path: &Path,
    systems: &Systems,
    lookup: &(dyn Fn(&str) -> Option<String> + Sync),
) -> Result<Written> {
    refuse_overwrite(path)?;
    let header = header(systems);
    let plan = connectable(&header, lookup)?;
    let mut names = Names::default();
    let mut drafts = Vec::new();
    if systems.alloydb.is_some() {
        let listing = PostgresListing::connect(&plan).await?;
        for listed in listing.tables().await? {
            drafts
                .push(Box::pin(of_postgres(&listing, &header, &listed, &mut names, lookup)).await?);
        }
    }
    if systems.bigquery_project.is_some() {
        let listed = list_bigquery(&plan).await?;
        drafts.extend(listed.iter().map(|table| text::of_bigquery(table, &mut names)));
    }
    let routes = drafts.iter().filter(|draft| draft.is_active).count();
    if routes == 0 {
        return Err(Error::new(Kind::Config, "no table was found that a route could be written for")
            .with_hint("a table needs a primary key, and its user SELECT on it; write the plan by hand: see schemas/PLAN.md"));
    }
    let text = [header, drafts.iter().map(|draft| draft.text.as_str()).collect()].concat();
    parse(&text, lookup).map_err(|problem| {
        Error::new(Kind::Internal, "the plan that was made has a mistake").with_source(problem)
    })?;
    write(path, &text, systems)?;
    let commented_out = drafts.len() - routes;
    Ok(Written { command: "init", plan: path.to_owned(), routes, commented_out })
}

fn refuse_overwrite(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Config,
        format!("{} is there already; it is not overwritten", path.display()),
    )
    .with_hint("name another file: rekindle init --plan FILE"))
}

/// Names and key prefixes that are taken.
#[derive(Debug, Default)]
struct Names {
    routes: HashSet<String>,
    prefixes: HashSet<String>,
}

impl Names {
    /// A name of a route made of a table's, with what the plan file does not take replaced.
    fn route(&mut self, wanted: &str) -> String {
        let is_taken = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let plain: String =
            wanted.chars().map(|c| if is_taken(c) { c } else { '_' }).take(80).collect();
        Self::free(&mut self.routes, &plain, "-")
    }

    /// What the keys of a table begin with.
    fn prefix(&mut self, wanted: &str) -> String {
        Self::free(&mut self.prefixes, wanted, "")
    }

    fn free(taken: &mut HashSet<String>, wanted: &str, separator: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            name = format!("{wanted}{separator}{number}");
            number += 1;
        }
        name
    }
}

async fn of_postgres(
    listing: &PostgresListing,
    header: &str,
    listed: &Listed,
    names: &mut Names,
    lookup: &(dyn Fn(&str) -> Option<String> + Sync),
) -> Result<Draft> {
    if listed.kind == ListedKind::Other {
        return Ok(text::left_out(
            listed,
            &["a view or foreign table: nothing proves a key".into()],
        ));
    }
    if listed.primary_key.is_empty() {
        return Ok(text::left_out(listed, &["no primary key: nothing proves a key".into()]));
    }
    // Its columns are those of the table whatever the rest of the route says.
    let bare = text::of_postgres(listed, &[], names);
    let route = match parse(&[header, &bare.text].concat(), lookup) {
        Ok(mut plan) => plan.routes.remove(0),
        Err(problem) => return Ok(text::left_out(listed, &[problem])),
    };
    let columns: Vec<ListedColumn> = match listing.columns(&route).await {
        Ok(columns) => columns,
        Err(error) if error.kind().is_transient() => return Err(error),
        Err(error) => return Ok(text::left_out(listed, &[error.to_string()])),
    };
    let draft = bare.with_columns(listed, &columns);
    let problems = match parse(&[header, &draft.text].concat(), lookup) {
        Ok(plan) => listing.problems(&plan.routes[0]).await?,
        Err(problem) => vec![problem],
    };
    if problems.is_empty() { Ok(draft) } else { Ok(draft.commented_out(&problems)) }
}

fn parse(
    text: &str,
    lookup: &(dyn Fn(&str) -> Option<String> + Sync),
) -> std::result::Result<Plan, String> {
    let read_file = |file: &str| std::fs::read_to_string(file);
    Plan::parse(text, &|name| lookup(name), &read_file).map_err(|mistakes| {
        // The lines are those of a text that nobody has seen.
        let told = |mistake: &schemas::PlanError| format!("{}: {}", mistake.path, mistake.message);
        mistakes.0.iter().map(told).collect::<Vec<_>>().join("; ")
    })
}

/// A plan with the sections alone, good for connecting.
fn connectable(header: &str, lookup: &(dyn Fn(&str) -> Option<String> + Sync)) -> Result<Plan> {
    let system = if header.contains("\n[alloydb]\n") { "alloydb" } else { "bigquery" };
    let route = format!(
        "[[route]]\nname = \"none\"\ntable = \"{system}:a.b\"\nkey = \"a:{{b}}\"\ntype = \"hash\"\n"
    );
    parse(&format!("{header}{route}"), lookup)
        .map_err(|problem| Error::new(Kind::Config, problem).with_hint("rekindle init --help"))
}

/// A URL that holds a secret makes a file for its owner only.
fn write(path: &Path, text: &str, systems: &Systems) -> Result<()> {
    let is_literal = |url: &String| !url.contains("${");
    let has_secret = systems.alloydb.iter().chain([&systems.redis]).any(is_literal);
    let mode = if has_secret { 0o600 } else { 0o644 };
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => refuse_overwrite(path),
        written => written.map_err(|error| {
            Error::new(Kind::Config, format!("cannot write {}", path.display())).with_source(error)
        }),
    }
}
