//! Several routes over one table, read in one pass: the table is read once, and every route goes on as if alone.
//!
//! Invariant: what a route commits is what it would commit alone: its own partitions, epochs and positions. The pass begins
//! where the route that is furthest behind stands, and gives no route a row again that it has committed.

use crate::journal::{Begun, PartitionRecord};
use crate::lane::{BATCHES_ALIVE, Shared, begin, carry_on};
use crate::route::RouteRun;
use schemas::Bounds;
use stages::extract::{BatchStream, PassSource, READAHEAD, Reader};
use stages::transform::TakeApart;
use stages::{Error, Kind, RawBatch, Result};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Routes that one pass serves at most: each holds batches of its own.
pub const ROUTES_MAX: usize = 8;

/// Batches that may be alive in one lane that carries so many routes at once.
pub fn batches_alive(routes: usize) -> usize {
    // Beside those of the routes, the pass has some waiting, one being filled and one being taken apart.
    let shared = if routes > 1 { READAHEAD + 2 } else { 0 };
    routes * BATCHES_ALIVE + shared
}

/// The pass that a route can take part in.
#[derive(Clone)]
pub struct Membership {
    /// Which pass of the run.
    pub pass: usize,
    /// Where its rows come from.
    pub source: Arc<dyn PassSource>,
    /// Which of its routes this is.
    pub place: usize,
}

/// Puts partitions that one pass can read together, each group where its first one stood; order is kept otherwise.
pub fn group(
    partitions: Vec<PartitionRecord>,
    routes: &[Arc<RouteRun>],
) -> Vec<Vec<PartitionRecord>> {
    let pass_of = |record: &PartitionRecord| {
        let route = routes.iter().find(|route| route.name() == record.partition.route)?;
        Some(route.membership.as_ref()?.pass)
    };
    let mut groups: Vec<Vec<PartitionRecord>> = Vec::new();
    // Where the group of a range stands that still has room.
    let mut open: HashMap<(usize, String, u32, Option<u32>), usize> = HashMap::new();
    for record in partitions {
        let (Some(pass), Bounds::Ctid { relation, from_block, to_block }) =
            (pass_of(&record), &record.partition.bounds)
        else {
            groups.push(vec![record]);
            continue;
        };
        let place = open.entry((pass, relation.clone(), *from_block, *to_block));
        let place = place.or_insert(groups.len());
        if let Some(group) = groups.get_mut(*place).filter(|group| group.len() < ROUTES_MAX) {
            group.push(record);
        } else {
            *place = groups.len();
            groups.push(vec![record]);
        }
    }
    groups
}

/// One route in a pass.
pub struct Member<'a> {
    /// The route.
    pub route: &'a Arc<RouteRun>,
    /// Its partition.
    pub record: &'a PartitionRecord,
}

/// How a pass ended: one outcome per member, and whether the source failed, which says nothing about any of them.
pub struct Ended {
    /// In the order of the members.
    pub outcomes: Vec<Result<()>>,
    /// Whether the read failed.
    pub is_read_broken: bool,
}

impl Ended {
    /// The end of a read that served one route.
    pub fn alone(outcome: Result<()>) -> Self {
        Self { outcomes: vec![outcome], is_read_broken: false }
    }
}

/// Carries the partitions of several routes from their committed positions to their ends, as
/// [`crate::lane::run_partition`] does one.
pub async fn run_pass(shared: &Arc<Shared>, members: &[Member<'_>], lane: usize) -> Ended {
    match carry_all(shared, members, lane).await {
        Ok(ended) => ended,
        Err(error) => {
            let mut outcomes: Vec<Result<()>> =
                members.iter().skip(1).map(|_| Err(copy_of(&error))).collect();
            outcomes.insert(0, Err(error));
            Ended { outcomes, is_read_broken: false }
        }
    }
}

async fn carry_all(shared: &Arc<Shared>, members: &[Member<'_>], lane: usize) -> Result<Ended> {
    let started = Instant::now();
    let Some(source) = members.first().and_then(|member| member.route.membership.as_ref()) else {
        return Err(Error::new(Kind::Internal, "a pass without a source"));
    };
    let session = source.source.open().await?;
    let snapshot = shared.snapshots.record(session.snapshot()).await?;
    let mut begun: Vec<Begun> = Vec::with_capacity(members.len());
    for Member { route, record } in members {
        begun.push(begin(shared, route, record, snapshot).await?);
    }
    let readers: Vec<Reader> = members.iter().zip(&begun).map(reader).collect();
    let (stream, split) = session.read(&members[0].record.partition.bounds, &readers);
    let (senders, streams): (Vec<_>, Vec<_>) =
        members.iter().map(|_| mpsc::channel(READAHEAD)).unzip();
    let carried = members.iter().zip(begun).zip(streams).map(|((member, begun), receiver)| {
        let Member { route, record } = member;
        let stream = BatchStream::fed(receiver);
        carry_on(shared, route, &record.partition, lane, (begun, started), stream)
    });
    let mut is_read_broken = false;
    let fanned = async {
        is_read_broken = hand_out(shared, stream, split, senders).await.is_err();
        // The members end by themselves when their streams do.
        std::future::pending::<()>().await;
    };
    let outcomes = tokio::select! {
        outcomes = futures::future::join_all(carried) => outcomes,
        () = fanned => Vec::new(),
    };
    Ok(Ended { outcomes, is_read_broken })
}

fn reader((member, begun): (&Member<'_>, &Begun)) -> Reader {
    Reader {
        route: member.route.membership.as_ref().map_or(0, |membership| membership.place),
        partition: member.record.partition.id.clone(),
        from: begun.position.clone(),
    }
}

type Sender = mpsc::Sender<Result<RawBatch>>;

/// Takes every batch apart on the transform threads and gives each member its part; a member that is gone is passed
/// over, and when all are the read ends. Fails, after every member was told, when the source does.
async fn hand_out(
    shared: &Shared,
    mut stream: BatchStream,
    mut split: Box<dyn TakeApart>,
    senders: Vec<Sender>,
) -> std::result::Result<(), ()> {
    while let Some(next) = stream.next().await {
        let taken = match next {
            Ok(raw) => {
                let work = move || {
                    let taken = split.apply(&raw)?;
                    Ok((split, taken))
                };
                match shared.cpu.submit(work).await {
                    Ok((back, taken)) => {
                        split = back;
                        taken
                    }
                    Err(error) => return tell(&senders, error).await,
                }
            }
            Err(error) => return tell(&senders, error).await,
        };
        for part in taken {
            let is_gone = senders[part.part].send(Ok(part.batch)).await.is_err();
            if is_gone && senders.iter().all(Sender::is_closed) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Tells every member why there is nothing more; each gets the words of the error.
async fn tell(senders: &[Sender], error: Error) -> std::result::Result<(), ()> {
    for sender in senders {
        if sender.send(Err(copy_of(&error))).await.is_err() {
            tracing::trace!("a member left before the pass failed");
        }
    }
    Err(())
}

fn copy_of(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.to_string());
    if let Some(hint) = error.hint() {
        copy = copy.with_hint(hint);
    }
    match std::error::Error::source(error) {
        Some(cause) => copy.with_source(cause.to_string()),
        None => copy,
    }
}
