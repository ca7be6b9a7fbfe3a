//! Entries of routes that compare versions: how they stand, and removing those that nobody wrote anew.
//!
//! Invariant: a key is removed only in a transaction that the server drops when somebody writes the key after it was
//! looked at; what an application wrote of a newer row stays.

use super::control::{StoredEntry, failed, stored_entries};
use crate::error::{Error, Kind, Result};
use crate::load::{Difference, Standing, Versioned};
use deadpool_redis::Connection;
use redis::Value;
use schemas::BoundRoute;
use schemas::version::{Stored, VersionKind};

/// Keys watched and removed together. Where an application writes one of them meanwhile, each is tried by itself.
const GROUP: usize = 64;
/// Times a single key is tried: whoever writes it as often is at work on its row.
const TRIES_MAX: usize = 16;

pub(super) async fn standing(
    connection: &mut Connection,
    address: &str,
    route: &BoundRoute,
    entries: &[Versioned],
) -> Result<Vec<Standing>> {
    let kind = kind_of(route)?;
    let keys = entries.iter().map(|entry| &entry.key[..]);
    let (now_ms, found) = stored_entries(connection, address, route, keys).await?;
    let stands = |(entry, stored): (&Versioned, &StoredEntry)| {
        let Some(difference) = stored.differs_from(entry.value_hash, entry.expires_ms, now_ms)
        else {
            return Standing::AsWritten;
        };
        match stored.version {
            _ if difference == Difference::Missing => Standing::Differs(difference),
            Stored::Unreadable => Standing::Unreadable,
            Stored::At(rank) if rank > kind.rank(entry.version) => Standing::Newer,
            _ => Standing::Differs(difference),
        }
    };
    Ok(entries.iter().zip(&found).map(stands).collect())
}

pub(super) async fn remove(
    connection: &mut Connection,
    address: &str,
    route: &BoundRoute,
    entries: &[Versioned],
) -> Result<Vec<usize>> {
    let kind = kind_of(route)?;
    let mut removed = Vec::new();
    for (index, group) in entries.chunks(GROUP).enumerate() {
        let base = index * GROUP;
        if let Some(found) = attempt(connection, address, route, kind, group).await? {
            removed.extend(found.into_iter().map(|at| base + at));
            continue;
        }
        for (at, entry) in group.iter().enumerate() {
            let single = std::slice::from_ref(entry);
            for _ in 0..TRIES_MAX {
                if let Some(found) = attempt(connection, address, route, kind, single).await? {
                    removed.extend(found.iter().map(|_| base + at));
                    break;
                }
            }
        }
    }
    Ok(removed)
}

/// Watches the keys, looks at them, and removes those that still hold what was written or something older. `None` where
/// somebody wrote one of them in between, and nothing was removed.
async fn attempt(
    connection: &mut Connection,
    address: &str,
    route: &BoundRoute,
    kind: VersionKind,
    entries: &[Versioned],
) -> Result<Option<Vec<usize>>> {
    let cannot = |error| failed(error, "cannot remove keys of", address);
    let mut watch = redis::cmd("WATCH");
    for entry in entries {
        watch.arg(&entry.key[..]);
    }
    let () = watch.query_async(connection).await.map_err(cannot)?;
    let keys = entries.iter().map(|entry| &entry.key[..]);
    let (_, found) = stored_entries(connection, address, route, keys).await?;
    let is_old = |entry: &Versioned, stored: &StoredEntry| match stored.version {
        Stored::At(rank) if rank < kind.rank(entry.version) => true,
        _ => stored.value_hash == Some(entry.value_hash),
    };
    let old: Vec<usize> =
        (0..entries.len()).filter(|at| is_old(&entries[*at], &found[*at])).collect();
    if old.is_empty() {
        let () = redis::cmd("UNWATCH").query_async(connection).await.map_err(cannot)?;
        return Ok(Some(old));
    }
    let mut transaction = redis::pipe();
    let delete = transaction.atomic().cmd("DEL");
    for at in &old {
        delete.arg(&entries[*at].key[..]);
    }
    let outcome: Value = transaction.query_async(connection).await.map_err(cannot)?;
    Ok((outcome != Value::Nil).then_some(old))
}

fn kind_of(route: &BoundRoute) -> Result<VersionKind> {
    let kind = route.version.map(|version| version.kind);
    kind.ok_or_else(|| Error::new(Kind::Internal, "a route without a version compares versions"))
}
