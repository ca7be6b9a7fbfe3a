//! One read with a known answer per route: a key of the scratch Redis asked for as an application asks, beside the row that
//! it was made from; and the number of rows of a restored table, asked for in SQL.
//!
//! Invariant: what Redis should answer comes from a row that was read from the source just before, never from Redis.

use super::dataset::ScratchDataset;
use crate::lane::now_ms;
use crate::plan::commands;
use crate::rebuild::{Options, patiently, selected_routes};
use crate::wiring::{self, Described, Sampler, Sources};
use schemas::Plan;
use schemas::plan::OnCollision;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stages::connect::bigquery::JobStatement;
use stages::load::redis::scratch::{Answer, Scratch};
use stages::transform::Style;
use stages::{Error, Result};
use std::collections::BTreeSet;

/// Rows that are tried to find one that is written; others are expired, rejected or left out.
const ROWS: usize = 20;
/// How often a route is read whose row may have changed in between.
const ROUNDS: usize = 3;

/// One read with a known answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The route.
    pub route: String,
    /// What was asked, without values.
    pub asked: String,
    /// Whether the answer was the known one; absent where nothing could be asked.
    pub is_as_known: Option<bool>,
    /// Why nothing could be asked, or how the answer differs.
    pub note: String,
}

/// What is asked and what has to be answered.
struct Question {
    words: Vec<Vec<u8>>,
    known: Known,
}

/// The known answer.
enum Known {
    /// This text.
    One(Vec<u8>),
    /// These texts, in this order.
    Many(Vec<Vec<u8>>),
    /// This number, however it is written.
    Number(f64),
    /// This document, whatever the order of its members.
    Document(Value),
    /// Anything but nothing.
    Something,
}

impl Known {
    fn is(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::One(known), Answer::One(found)) => known == found,
            (Self::Many(known), Answer::Many(found)) => {
                known.iter().map(Some).eq(found.iter().map(Option::as_ref))
            }
            (Self::Number(known), Answer::One(found)) => {
                let found: Option<f64> = str::from_utf8(found).ok().and_then(|t| t.parse().ok());
                // Both are texts of one double.
                found.is_some_and(|found| found.total_cmp(known).is_eq())
            }
            (Self::Document(known), Answer::One(found)) => {
                serde_json::from_slice::<Value>(found).is_ok_and(|found| found == *known)
            }
            (Self::Something, answer) => *answer != Answer::Nothing,
            _ => false,
        }
    }
}

/// Turns the command that writes a row into the one that reads it; `None` where no command reads it by itself.
fn question(written: &[Vec<Vec<u8>>]) -> Option<Question> {
    written.iter().find_map(|command| {
        let [name, key, rest @ ..] = command.as_slice() else { return None };
        let ask = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
        let (words, known) = match (name.as_slice(), rest) {
            (b"SET" | b"MSET", [value, ..]) => (ask(&[b"GET", key]), Known::One(value.clone())),
            (b"HSET", [_, _, ..]) => {
                let mut words = ask(&[b"HMGET", key]);
                words.extend(rest.iter().step_by(2).cloned());
                (words, Known::Many(rest.iter().skip(1).step_by(2).cloned().collect()))
            }
            (b"SADD", [member, ..]) => {
                (ask(&[b"SISMEMBER", key, member]), Known::One(b"1".to_vec()))
            }
            (b"ZADD", [.., score, member]) => {
                let score = str::from_utf8(score).ok()?.parse().ok()?;
                (ask(&[b"ZSCORE", key, member]), Known::Number(score))
            }
            (b"RPUSH", [element, ..]) => (ask(&[b"LPOS", key, element]), Known::Something),
            (b"JSON.SET", [_, document, ..]) => {
                let document = serde_json::from_slice(document).ok()?;
                (ask(&[b"JSON.GET", key]), Known::Document(document))
            }
            _ => return None,
        };
        Some(Question { words, known })
    })
}

/// Reads one key per route; a route whose answer is another one is read again from a newer row.
pub(super) async fn keys(
    plan: &Plan,
    routes: &[String],
    options: &Options,
    scratch: &Scratch,
) -> std::result::Result<Vec<Read>, Vec<Error>> {
    let mut left: BTreeSet<String> = routes.iter().cloned().collect();
    let mut reads: Vec<Read> = Vec::with_capacity(routes.len());
    for _ in 0..ROUNDS {
        let names: Vec<String> = left.iter().cloned().collect();
        let found = round(plan, &names, options, scratch).await?;
        reads.retain(|read| !left.contains(&read.route));
        left = found
            .iter()
            .filter(|read| read.is_as_known == Some(false))
            .map(|read| read.route.clone())
            .collect();
        reads.extend(found);
        if left.is_empty() {
            break;
        }
    }
    Ok(reads)
}

async fn round(
    plan: &Plan,
    routes: &[String],
    options: &Options,
    scratch: &Scratch,
) -> std::result::Result<Vec<Read>, Vec<Error>> {
    let one = |error: Error| vec![error];
    let chosen = selected_routes(plan, routes)?;
    let (retry_for, cancel) = (options.retry_for, &options.cancel);
    let connect = || wiring::connect_sources(plan, &chosen, 1);
    let sources = patiently(retry_for, cancel, connect).await.map_err(one)?;
    let described = wiring::describe_routes(&sources, &chosen).await?;
    let mut reads = Vec::with_capacity(described.len());
    for (described, route) in described.iter().zip(&chosen) {
        reads.push(read_one(&sources, described, &route.name, scratch).await?);
    }
    sources.release_snapshot().await;
    Ok(reads)
}

async fn read_one(
    sources: &Sources,
    described: &Described,
    route: &str,
    scratch: &Scratch,
) -> std::result::Result<Read, Vec<Error>> {
    let one = |error: Error| vec![error];
    let unread = |note: &str| Read {
        route: route.to_owned(),
        asked: String::new(),
        is_as_known: None,
        note: note.to_owned(),
    };
    let bound = described.bound();
    if bound.is_stream() {
        return Ok(unread("an entry of a stream has no key of its own"));
    }
    if matches!(bound.route.on_collision, Some(OnCollision::Last { .. })) {
        return Ok(unread("rows share keys, so no row alone says what a key holds"));
    }
    let sampler = wiring::sampler(sources, described, ROWS).await?;
    let Some(question) = first(sources, &sampler).await.map_err(one)? else {
        return Ok(unread("the source has no row that would be written"));
    };
    let answer = scratch.ask(&question.words).await.map_err(one)?;
    let shown = question.words.iter().take(2).map(|word| String::from_utf8_lossy(word));
    let is_as_known = question.known.is(&answer);
    Ok(Read {
        route: route.to_owned(),
        asked: shown.collect::<Vec<_>>().join(" "),
        is_as_known: Some(is_as_known),
        note: if is_as_known {
            "as the row says".to_owned()
        } else if answer == Answer::Nothing {
            "there is no such key".to_owned()
        } else {
            "the answer is not what the row says".to_owned()
        },
    })
}

/// The question about the first sampled row that is written.
async fn first(sources: &Sources, sampler: &Sampler) -> Result<Option<Question>> {
    // A name of its own: two samples at once must not share what they write.
    let name = format!("drill{}", uuid::Uuid::new_v4().simple());
    for raw in sampler.rows(sources, ROWS, &name).await? {
        let encoded = sampler.encode(raw, Style::Blank, now_ms())?;
        let found = question(&commands(&encoded.payload)?);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Counts the rows of a restored table in SQL.
pub(super) async fn count(
    scratch: &ScratchDataset,
    route: &str,
    (table, rows): (&str, u64),
) -> Result<Read> {
    let sql =
        format!("SELECT COUNT(*) FROM `{}.{}.{table}`", scratch.bigquery.project(), scratch.name);
    let statement = JobStatement {
        sql: &sql,
        parameters: &[],
        location: Some(&scratch.location).filter(|place| !place.is_empty()).map(String::as_str),
    };
    let answer = scratch.bigquery.query_rows(&statement).await?;
    let found = answer.first().and_then(|row| row.first()).and_then(Value::as_str);
    let found: Option<u64> = found.and_then(|text| text.parse().ok());
    let is_as_known = found == Some(rows);
    let note = match found {
        _ if is_as_known => format!("{rows} rows, as the manifests say"),
        Some(found) => format!("{found} rows, where the manifests say {rows}"),
        None => "no number was answered".to_owned(),
    };
    Ok(Read { route: route.to_owned(), asked: sql, is_as_known: Some(is_as_known), note })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn one(text: &str) -> Answer {
        Answer::One(text.as_bytes().to_vec())
    }

    #[test]
    fn every_command_that_writes_a_row_has_one_that_reads_it() {
        for (write, read, answer, other) in [
            ("SET k v PXAT 5", "GET k", one("v"), one("w")),
            ("MSET k v", "GET k", one("v"), Answer::Nothing),
            ("SADD k m", "SISMEMBER k m", one("1"), one("0")),
            ("ZADD k 1.50 m", "ZSCORE k m", one("1.5"), one("1.25")),
            ("RPUSH k e", "LPOS k e", one("0"), Answer::Nothing),
            ("JSON.SET k $ {\"a\":1,\"b\":2}", "JSON.GET k", one("{\"b\":2,\"a\":1}"), one("{}")),
        ] {
            let question = question(&[words("DEL k"), words(write)]).unwrap();
            assert_eq!(question.words, words(read), "{write}");
            assert!(question.known.is(&answer), "{write}");
            assert!(!question.known.is(&other), "{write}");
        }
    }

    #[test]
    fn a_hash_is_asked_for_by_its_fields() {
        let question = question(&[words("HSET k a 1 b 2")]).unwrap();
        assert_eq!(question.words, words("HMGET k a b"));
        let field = |text: &str| Some(text.as_bytes().to_vec());
        assert!(question.known.is(&Answer::Many(vec![field("1"), field("2")])));
        for other in [vec![field("1"), None], vec![field("1")], vec![field("2"), field("1")]] {
            assert!(!question.known.is(&Answer::Many(other)));
        }
    }

    #[test]
    fn what_no_command_reads_back_is_no_question() {
        for write in ["DEL k", "XADD k 1-0 a b", "EVALSHA s 1 k", "PEXPIREAT k 5", "MULTI"] {
            assert!(question(&[words(write)]).is_none(), "{write}");
        }
        assert!(question(&[]).is_none());
    }
}
