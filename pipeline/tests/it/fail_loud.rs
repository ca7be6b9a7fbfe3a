//! The fail-loud matrix: what every command says and ends with when something is wrong, and which test proves it.
//!
//! Invariant: every degradation has a cell for every command; a cell names a test that is there and that asserts the
//! code and the text, or says why it cannot occur. `fixtures/FAILURES.md` is written from it by
//! `REKINDLE_WRITE=1 cargo nextest run --release --workspace -E 'test(fail_loud::the_table)'`.

mod alloydb;
mod bigquery;
mod cells;
mod cut_off;
mod midway;
mod proofs;

use cells::MATRIX;
use proofs::{Cell, FLOWS};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it")
}

/// Returns the source of a test named by its path, from its head to the brace that ends it.
fn body(test: &str) -> Result<String, String> {
    let (module, name) = test.rsplit_once("::").ok_or("it names no module")?;
    let path = sources().join(module.replace("::", "/")).with_extension("rs");
    let source =
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let head = format!("#[test]\nfn {name}() {{\n");
    let from = source.find(&head).ok_or_else(|| format!("{} has no such test", path.display()))?;
    let rest = &source[from..];
    Ok(rest[..rest.find("\n}\n").map_or(rest.len(), |end| end + 3)].to_owned())
}

/// Says what a test lacks to prove a cell. The tests of this folder assert code and text in one statement.
fn problem(code: u8, test: &str, says: &str) -> Option<String> {
    let body = match body(test) {
        Ok(body) => body,
        Err(problem) => return Some(problem),
    };
    let lines = body.lines().filter(|line| !line.trim_start().starts_with("//"));
    let body: String = lines.map(|line| [line, "\n"].concat()).collect();
    let statements: Vec<&str> =
        if test.starts_with("fail_loud::") { body.split(";\n").collect() } else { vec![&body] };
    let form = format!(".expect({code})");
    let ends: Vec<_> = statements.iter().filter(|part| part.contains(&form)).collect();
    if ends.is_empty() {
        return Some(format!("it does not assert exit code {code}"));
    }
    let is_said = ends.iter().any(|part| part.contains(says));
    (!is_said).then(|| format!("it does not assert the text {says:?} with exit code {code}"))
}

fn cells() -> impl Iterator<Item = (&'static str, &'static str, &'static Cell)> {
    MATRIX.iter().flat_map(|(degradation, cells)| {
        FLOWS.iter().zip(cells).map(|(flow, cell)| (*degradation, *flow, cell))
    })
}

#[test]
fn every_cell_is_proven_by_a_test_that_asserts_its_code_and_text() {
    let mut problems = Vec::new();
    for (degradation, flow, cell) in cells() {
        let found = match cell {
            Cell::Proven { code, test, says } => problem(*code, test, says),
            Cell::Never(reason) => (reason.len() < 20).then(|| "that is no reason".to_owned()),
        };
        problems.extend(found.map(|problem| format!("{degradation} / {flow}: {problem}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The check itself notices a test that is gone, another code, and another text.
#[test]
fn a_cell_that_nothing_proves_is_noticed() {
    let (code, test, says) = (3, "fail_loud::alloydb::a_source_that_is_away", "cannot connect");
    assert!(problem(code, &format!("{test}_not"), says).is_some());
    assert!(problem(99, test, says).is_some());
    assert!(problem(code, test, "no test says this").is_some());
    assert!(problem(code, test, "rebuild redis").is_some());
    assert!(problem(code, test, says).is_none());
    assert!(problem(code, "bad_input::assert_untouched", says).is_some());
}

fn table() -> String {
    let mut out = "# What every command does when something is wrong\n\nWritten from `pipeline/tests/it/fail_loud/cells.rs`; \
                   a test compares them, and looks up every test named here. \
                   A dash is what cannot occur, and why.\n"
        .to_owned();
    for (degradation, cells) in MATRIX {
        write!(
            out,
            "\n## {degradation}\n\n| command | exit code | says | proven by |\n|---|---|---|---|\n"
        )
        .unwrap();
        for (flow, cell) in FLOWS.iter().zip(cells) {
            match cell {
                Cell::Proven { code, test, says } => {
                    writeln!(out, "| {flow} | {code} | {says} | `{test}` |").unwrap();
                }
                Cell::Never(reason) => writeln!(out, "| {flow} | - | {reason} | |").unwrap(),
            }
        }
    }
    out
}

#[test]
fn the_table_of_failures_is_the_one_that_is_committed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/FAILURES.md");
    if std::env::var("REKINDLE_WRITE").is_ok_and(|value| value == "1") {
        fs::write(&path, table()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == table(),
        "FAILURES.md is stale; the command in fail_loud.rs writes it anew"
    );
}
