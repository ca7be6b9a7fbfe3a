//! `rekindle rejects replay`: every rejected row of a run, as its source has it now, through its route once more.
//!
//! Invariant: what is written is the row as it is in the source now, never the one that was rejected, and only under a
//! key that stood still between two looks at both ends; a file is marked done only after what it held was read back.

use super::file;
use super::folder::RejectFile;
use super::identity::{Identity, in_shape};
use super::reread::{Found, Fresh, reread};
use super::stock::{Stock, chosen_run, replayable, take_stock};
use super::told::Outcome;
pub use super::told::{Counts, Report, RouteReport};
use crate::cpu::CpuPool;
use crate::drift;
use crate::journal::Journal;
use crate::outcome::from_journal;
use crate::rebuild::patiently;
use crate::refused::told;
use crate::route::RouteRun;
use crate::verify::redis::again::stored;
use crate::verify::redis::ends::Ends;
use crate::verify::redis::judge::{Agreement, Difference, Look, Second};
use crate::verify::redis::page::rules_of;
use crate::verify::redis::rows::encode;
use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use futures::{StreamExt, TryStreamExt};
use schemas::Plan;
use stages::extract::redis_entries::{Ask, Stored};
use stages::load::Sentinel;
use stages::{Error, Kind, Result};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Rejected rows that are looked at together, and about how many bytes of them: they are in memory meanwhile.
const ROWS_AT_ONCE: usize = 50_000;
const BYTES_AT_ONCE: usize = 32 * 1024 * 1024;
/// Writes on their way at once.
const WRITES: usize = 32;

/// How a replay was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state folder.
    pub state: PathBuf,
    /// Which run; the newest one with rejected rows by default.
    pub run: Option<String>,
    /// Routes to replay; empty means all.
    pub routes: Vec<String>,
    /// Connections to the source, less three.
    pub lanes: usize,
    /// How long an application may take between its write to the source and its write to Redis.
    pub settle: Duration,
    /// How long a system may stay away.
    pub retry_for: Duration,
    /// Cancelled by a signal.
    pub cancel: CancellationToken,
}

/// Replays the rejected rows of a run.
///
/// Everything that can be refused is refused before the first write. After an error what was marked done stays done.
pub async fn replay(plan: &Plan, options: &Options) -> std::result::Result<Report, Vec<Error>> {
    let one = |error: Error| vec![error];
    let began = Instant::now();
    let Some((run, others)) = chosen_run(&options.state, options.run.as_deref()).map_err(one)?
    else {
        return Ok(Report::nothing(began.elapsed()));
    };
    let journal = Journal::open(&options.state).await.map_err(|error| one(from_journal(error)))?;
    let (state, id) = (options.state.clone(), run.clone());
    let stock = tokio::task::spawn_blocking(move || take_stock(&state, &id)).await;
    let stock = stock.map_err(|error| one(Error::new(Kind::Internal, error.to_string())))?;
    let mut stock = stock.map_err(one)?;
    stock.files.retain(|route, _| options.routes.is_empty() || options.routes.contains(route));
    let routes = replayable(plan, &journal, &run, &stock).await?;
    let mut report = Report::new(&run, others, &stock.plans, &plan.fingerprint());
    if !routes.is_empty() {
        let retry_for = options.retry_for;
        // Keys of many rows, whose rows are sorted, are refused; nothing is put there.
        let folder = options.state.join("rejects");
        let with = (options.lanes, folder.as_path());
        let connecting =
            Ends::connect_patiently(plan, &routes, with, retry_for, &options.cancel).await;
        let ends = match connecting {
            Ok(ends) => ends,
            Err(errors) => {
                return Err(drift::explained_by(&options.state, plan, &routes, errors).await);
            }
        };
        for drift in drift::check_beside(&journal, &run, &ends.routes).await? {
            tracing::warn!("{drift}");
        }
        let work =
            Replay { ends, cpu: CpuPool::new().map_err(one)?, plan: plan.fingerprint(), options };
        work.all(&run, &stock, &mut report).await.map_err(one)?;
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// A file on its way, with the identity of each row.
struct Opened {
    file: RejectFile,
    identities: Vec<Option<Vec<u8>>>,
}

/// What a look says of each identity.
type Looks = HashMap<Vec<u8>, (Fresh, Option<Stored>, i64)>;

struct Replay<'a> {
    ends: Ends,
    cpu: CpuPool,
    plan: String,
    options: &'a Options,
}

impl Replay<'_> {
    /// Replays everything under a mark of its own, so that no run fills the target meanwhile.
    async fn all(&self, run: &str, stock: &Stock, report: &mut Report) -> Result<()> {
        let sink = &self.ends.sink;
        let mark = format!("replay-{}", uuid::Uuid::new_v4());
        if let Sentinel::Foreign(note) = sink
            .claim(&mark, &format!("rejects replay of {run} pid={}", std::process::id()))
            .await?
        {
            return Err(stages::load::redis::foreign(sink.address(), &note));
        }
        let replayed = self.routes(stock, report).await;
        let released = sink.release(&mark).await;
        replayed.and(released)
    }

    async fn routes(&self, stock: &Stock, report: &mut Report) -> Result<()> {
        for route in &self.ends.routes {
            let Some(files) = stock.files.get(route.name()) else { continue };
            route.source.prepare(&format!("replay{}", uuid::Uuid::new_v4().simple())).await?;
            let mut told = RouteReport::new(route.name());
            let replayed = self.route(route, files, &mut told).await;
            report.add(told);
            route.source.discard().await?;
            replayed?;
        }
        Ok(())
    }

    async fn route(
        &self,
        route: &RouteRun,
        files: &[RejectFile],
        told: &mut RouteReport,
    ) -> Result<()> {
        let identity = Identity::of(route);
        let mut opened: Vec<Opened> = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        for (number, file) in files.iter().enumerate() {
            let identities = identities(route, &identity, file, &mut bytes)?;
            rows += identities.len();
            opened.push(Opened { file: file.clone(), identities });
            let is_full = rows >= ROWS_AT_ONCE || bytes >= BYTES_AT_ONCE;
            if is_full || number + 1 == files.len() {
                let outcomes = self.some(route, &identity, &opened).await?;
                for file in opened.drain(..) {
                    self.settle_file(&file, &outcomes, told)?;
                }
                (rows, bytes) = (0, 0);
            }
        }
        Ok(())
    }

    /// Looks twice at the rows of some files and their keys, writes what differs, and reads it back.
    async fn some(
        &self,
        route: &RouteRun,
        identity: &Identity,
        files: &[Opened],
    ) -> Result<HashMap<Vec<u8>, Outcome>> {
        let all = files.iter().flat_map(|file| file.identities.iter().flatten().cloned());
        let wanted: Arc<HashSet<Vec<u8>>> = Arc::new(all.collect());
        let first = self.look(route, identity, &wanted).await?;
        let first: HashMap<Vec<u8>, Look> =
            first.into_iter().map(|(identity, look)| (identity, look_of(&look))).collect();
        tokio::select! {
            () = tokio::time::sleep(self.options.settle) => {}
            () = self.options.cancel.cancelled() => {
                return Err(Error::new(Kind::Cancelled, "the command was asked to stop"));
            }
        }
        let second = self.look(route, identity, &wanted).await?;
        let rules = rules_of(&route.bound, Ask::Value);
        let mut outcomes = HashMap::new();
        let mut to_write = Vec::new();
        for identity in wanted.iter() {
            let Some((fresh, now, now_ms)) = second.get(identity) else {
                outcomes.insert(identity.clone(), Outcome::Gone);
                continue;
            };
            let (expected, row) = match fresh {
                Fresh::Carried { expected, row, .. } => (*expected, row),
                other => {
                    outcomes.insert(identity.clone(), outcome_of(other));
                    continue;
                }
            };
            let unseen = Look { expected: None, stored: Some(Stored::Missing) };
            let before = first.get(identity).copied().unwrap_or(unseen);
            let second =
                rules.judge(before, Some(expected), now.unwrap_or(Stored::Missing), *now_ms);
            let outcome = match second {
                Second::Agrees(Agreement::Expired) => Outcome::Expired,
                Second::Agrees(_) => Outcome::Agreed,
                // Whose key it is now does not show.
                Second::Moves | Second::Differs(Difference::Unreadable) => Outcome::Moving,
                Second::Differs(_)
                    if expected.expires_ms != 0 && expected.expires_ms <= *now_ms =>
                {
                    Outcome::Expired
                }
                Second::Differs(_) => {
                    to_write.push((identity, row));
                    continue;
                }
            };
            outcomes.insert(identity.clone(), outcome);
        }
        let written = futures::stream::iter(to_write).map(|(identity, row)| async move {
            let encoded = encode(route, row)?;
            // A row that is refused may close the connection that others are on.
            let write = || self.ends.sink.write(0, &encoded);
            let (retry_for, cancel) = (self.options.retry_for, &self.options.cancel);
            let refused = match patiently(retry_for, cancel, write).await {
                Ok(_) => None,
                Err(error) if error.kind() == Kind::Refused => Some(told(&error)),
                Err(error) => return Err(error),
            };
            Ok((identity.clone(), refused))
        });
        let written: Vec<(Vec<u8>, Option<String>)> =
            written.buffer_unordered(WRITES).try_collect().await?;
        self.read_back(route, &second, written, &mut outcomes).await?;
        Ok(outcomes)
    }

    /// Reads rows and keys in the state of both ends as it is now.
    async fn look(
        &self,
        route: &RouteRun,
        identity: &Identity,
        wanted: &Arc<HashSet<Vec<u8>>>,
    ) -> Result<Looks> {
        let look = || async {
            self.ends.release_snapshot().await;
            let found: Found = reread(&self.cpu, route, identity, wanted).await?;
            let mut looks: Looks = HashMap::with_capacity(found.len());
            let mut asked = Vec::new();
            for (identity, fresh) in found {
                if let Fresh::Carried { key, .. } = &fresh {
                    asked.push((identity.clone(), key.clone()));
                }
                looks.insert(identity, (fresh, None, 0));
            }
            let keys: Vec<&[u8]> = asked.iter().map(|(_, key)| key.as_slice()).collect();
            stored(&self.ends, route, Ask::Value, &keys, &mut |number, stored, now_ms| {
                if let Some(look) = looks.get_mut(&asked[number].0) {
                    (look.1, look.2) = (Some(stored), now_ms);
                }
                Ok(())
            })
            .await?;
            Ok(looks)
        };
        patiently(self.options.retry_for, &self.options.cancel, look).await
    }

    /// Compares what was written with what its keys hold.
    async fn read_back(
        &self,
        route: &RouteRun,
        looks: &Looks,
        written: Vec<(Vec<u8>, Option<String>)>,
        outcomes: &mut HashMap<Vec<u8>, Outcome>,
    ) -> Result<()> {
        let mut keys: Vec<&[u8]> = Vec::new();
        let mut expected = Vec::new();
        for (identity, refused) in written {
            match (refused, looks.get(&identity)) {
                (None, Some((Fresh::Carried { key, expected: row, .. }, ..))) => {
                    keys.push(key);
                    expected.push((identity, *row));
                }
                (refused, _) => {
                    outcomes.insert(identity, Outcome::Rejected(refused.unwrap_or_default()));
                }
            }
        }
        let rules = rules_of(&route.bound, Ask::Value);
        stored(&self.ends, route, Ask::Value, &keys, &mut |number, stored, now_ms| {
            let (identity, row) = &expected[number];
            let is_same = rules.compare(Some(*row), stored, now_ms).is_ok();
            let outcome = if is_same { Outcome::Written } else { Outcome::Differs };
            outcomes.insert(identity.clone(), outcome);
            Ok(())
        })
        .await
    }

    /// Counts the rows of a file, keeps those that stay rejected in a file of their own, and marks it done.
    fn settle_file(
        &self,
        opened: &Opened,
        outcomes: &HashMap<Vec<u8>, Outcome>,
        told: &mut RouteReport,
    ) -> Result<()> {
        let mut left = Vec::new();
        let mut at = 0;
        file::read(&opened.file.path, &mut |rows| {
            let (mut places, mut reasons) = (Vec::new(), Vec::new());
            for row in 0..rows.rows.num_rows() {
                let identity = opened.identities.get(at).and_then(Option::as_ref);
                at += 1;
                let outcome = identity.and_then(|identity| outcomes.get(identity));
                if let Some(reason) = told.count(outcome, rows.reasons.value(row)) {
                    places.push(row as u64);
                    reasons.push(reason);
                }
            }
            if !places.is_empty() {
                let taken = take_record_batch(&rows.rows, &UInt64Array::from(places));
                let taken = taken.map_err(unshaped)?;
                left.push(file::with_reasons(&taken, &reasons, &self.plan)?);
            }
            Ok(())
        })?;
        told.counts.files += 1;
        if let Some(first) = left.first() {
            let rows: RecordBatch = concat_batches(&first.schema(), &left).map_err(unshaped)?;
            file::write(&opened.file.again(), &rows)?;
        }
        opened.file.finish()
    }
}

fn look_of((fresh, stored, _): &(Fresh, Option<Stored>, i64)) -> Look {
    match fresh {
        Fresh::Carried { expected, .. } => Look { expected: Some(*expected), stored: *stored },
        _ => Look { expected: None, stored: Some(Stored::Missing) },
    }
}

fn outcome_of(fresh: &Fresh) -> Outcome {
    match fresh {
        Fresh::Rejected(reason) => Outcome::Rejected(reason.clone()),
        Fresh::Collides => Outcome::Rejected("another row has its key".to_owned()),
        Fresh::Expired | Fresh::Carried { .. } => Outcome::Expired,
    }
}

/// Returns the identity of every row of a file, and adds the size of the rows.
fn identities(
    route: &RouteRun,
    identity: &Identity,
    reject: &RejectFile,
    bytes: &mut usize,
) -> Result<Vec<Option<Vec<u8>>>> {
    let mut identities = Vec::new();
    file::read(&reject.path, &mut |rows| {
        *bytes += rows.rows.get_array_memory_size();
        let rows = in_shape(&route.bound, &rows.rows)?;
        identities.extend(identity.of_rows(&route.bound, &rows)?);
        Ok(())
    })?;
    Ok(identities)
}

fn unshaped(error: arrow::error::ArrowError) -> Error {
    Error::new(Kind::Internal, "cannot shape the rejected rows").with_source(error)
}
