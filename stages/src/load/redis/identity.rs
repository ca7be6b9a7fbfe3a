//! Who is at the other end of a connection, asked on that connection itself.
//!
//! Invariant: an address may lead to another server from one connection to the next (a fail-over, a proxy that was
//! pointed elsewhere), so what one connection tells holds for that connection alone.

use super::control::run_of;
use super::{SENTINEL_KEY, foreign};
use crate::connect::redis::{Endpoint, Stream, from_reply};
use crate::error::{Error, Kind, Result};
use crate::extract::redis_rows::{Commands, Replies, Reply, RowReader};
use crate::load::TargetState;

/// What the target was when this run claimed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) run: String,
    pub(super) process: String,
    pub(super) history: String,
}

impl Claim {
    /// Notes who the target is.
    pub(super) fn of(run: &str, state: &TargetState) -> Self {
        Self {
            run: run.to_owned(),
            process: state.process_id.clone(),
            history: state.history_id.clone(),
        }
    }
}

/// Asks on a new stream who is there, and returns the stream and what was told. Fails with `TargetChanged` where the
/// mark of the run is missing, with `Fenced` where it is another run's.
pub(super) async fn met_on(
    endpoint: &Endpoint,
    stream: Box<dyn Stream>,
    run: &str,
) -> Result<(Box<dyn Stream>, Claim)> {
    let mut commands = Commands::default();
    commands.push(&[b"GET", SENTINEL_KEY.as_bytes()]);
    commands.push(&[b"INFO"]);
    let mut reader = RowReader::on(endpoint, stream);
    let bytes = reader.ask(&commands).await?;
    let stream = reader.into_stream().ok_or_else(|| unclear(endpoint))?;
    let mut replies = Replies::new(&bytes);
    let note = match replies.token()? {
        Reply::Text(note) => String::from_utf8_lossy(note).into_owned(),
        Reply::Null => return Err(emptied(&endpoint.address)),
        Reply::Error(text) => {
            let what = format!("cannot read the sentinel of redis at {}", endpoint.address);
            return Err(from_reply(&String::from_utf8_lossy(text), &what));
        }
        _ => return Err(unclear(endpoint)),
    };
    if run_of(&note).as_deref() != Some(run) {
        return Err(foreign(&endpoint.address, &note));
    }
    let Reply::Text(info) = replies.token()? else { return Err(unclear(endpoint)) };
    let info = String::from_utf8_lossy(info);
    let field = |name: &str| {
        let found = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_default().trim_end().to_owned()
    };
    let claim =
        Claim { run: run.to_owned(), process: field("run_id"), history: field("master_replid") };
    Ok((stream, claim))
}

/// The error of a target without the mark of the run.
pub(super) fn emptied(address: &str) -> Error {
    Error::new(Kind::TargetChanged, format!("redis at {address} was emptied or replaced"))
}

fn unclear(endpoint: &Endpoint) -> Error {
    let message = format!("redis at {} did not tell who it is", endpoint.address);
    Error::new(Kind::Connection, message).with_hint("rekindle check")
}
