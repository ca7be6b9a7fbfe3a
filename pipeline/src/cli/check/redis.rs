//! The controls of the target: server, access, memory, and whose mark it carries.
//!
//! Invariant: every command is a read; access is asked about, not tried out.

use super::acl::{self, Needs};
use super::controls::Control;
use super::verify;
use crate::cli::figures::{bytes, count, things};
use crate::documents;
use crate::wiring::{CONNECT_TIMEOUT, make_sink};
use schemas::plan::{Layout, OnConflict};
use schemas::{Plan, Route};
use stages::connect::redis::Endpoint;
use stages::load::redis::{RedisSink, WayChoice};
use stages::load::{Sentinel, Sink, TargetState};

/// Above this share of its limit a target has no room for a rebuild.
const USED_PERCENT_MAX: u64 = 90;

/// Looks at the target. `unfinished` is the run of this state folder that would be resumed.
pub(super) async fn controls(plan: &Plan, unfinished: Option<&str>) -> Vec<Control> {
    let Some(url) = &plan.redis else { return Vec::new() };
    let opened = make_sink(plan, WayChoice::Auto)
        .and_then(|sink| Ok((sink, Endpoint::parse(&url.0, CONNECT_TIMEOUT)?)));
    let (sink, endpoint) = match opened {
        Ok(opened) => opened,
        Err(error) => return vec![Control::of_error("redis", &error)],
    };
    // One stream first: it says why it cannot connect, where the pool only says that it waited.
    let mut stream = match endpoint.stream().await {
        Ok(stream) => stream,
        Err(error) => return vec![Control::of_error("redis", &error)],
    };
    let state = match sink.state().await {
        Ok(state) => state,
        Err(error) => return vec![Control::of_error("redis", &error)],
    };
    let prefixes: Vec<String> = plan.routes.iter().map(Route::keys_begin_with).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let (documents, is_document) = documents(plan, &sink).await.unzip();
    let needs = Needs {
        many: plan
            .routes
            .iter()
            .filter(|route| route.many.is_some() || route.is_rebuilt_stream())
            .map(|route| route.layout)
            .collect(),
        is_newest: plan.routes.iter().any(|route| route.on_conflict == OnConflict::Newest),
        is_document: is_document == Some(true),
    };
    let (role, access) = acl::controls(&mut *stream, &prefixes, &needs, CONNECT_TIMEOUT).await;
    let mut controls = vec![server(sink.address(), &state), role, access];
    controls.extend(verify::redis(&mut *stream, plan, needs.is_document).await);
    controls.extend(documents);
    if plan.routes.iter().any(|route| route.layout == Layout::Hash && route.many.is_none()) {
        controls.push(acl::way(&mut *stream, CONNECT_TIMEOUT).await);
    }
    controls.push(acl::cut_over(&mut *stream, CONNECT_TIMEOUT).await);
    controls.extend([memory(&state), sentinel(&sink, unfinished).await]);
    controls
}

fn server(address: &str, state: &TargetState) -> Control {
    let detail = format!("{} at {address}, {}", state.version, things(state.entries, "key"));
    match &state.refusal {
        Some(refusal) => Control::failed("redis", format!("{detail}: {refusal}"))
            .with_fix(Some("name another server in [redis]")),
        None => Control::ok("redis", detail),
    }
}

/// Whether the server takes documents, where a route writes them; and whether it knows their commands.
async fn documents(plan: &Plan, sink: &RedisSink) -> Option<(Control, bool)> {
    const NAME: &str = "redis documents";
    let routes = documents::of_documents(&plan.routes);
    if routes.is_empty() {
        return None;
    }
    Some(match sink.json_module().await {
        Ok(Some(module)) => (Control::ok(NAME, module), true),
        Ok(None) => {
            let why = format!("no JSON module, which {} needs", routes.join(", "));
            (Control::failed(NAME, why).with_fix(Some(documents::FIX)), false)
        }
        Err(error) => (Control::of_error(NAME, &error), true),
    })
}

fn memory(state: &TargetState) -> Control {
    const NAME: &str = "redis memory";
    let Some(limit) = state.limit_bytes else {
        return Control::ok(
            NAME,
            format!(
                "{} used, no limit (maxmemory 0): the machine's memory is the limit",
                bytes(state.used_bytes)
            ),
        );
    };
    let percent = state.used_bytes.saturating_mul(100) / limit;
    let mut detail = format!(
        "{} of {} used ({percent} %), policy {}",
        bytes(state.used_bytes),
        bytes(limit),
        state.eviction
    );
    if state.evicted > 0 {
        detail =
            format!("{detail}, {} keys evicted since the server started", count(state.evicted));
    }
    if percent > USED_PERCENT_MAX {
        return Control::full(NAME, format!("{detail}: no room for a rebuild"))
            .with_fix(Some("raise maxmemory, or remove what is not needed"));
    }
    if state.eviction == "noeviction" {
        return Control::ok(NAME, detail);
    }
    Control::ok(
        NAME,
        format!("{detail}; warning: at the limit this server evicts, and a run stops when it does"),
    )
    .with_fix(Some("rekindle plan tells how much a run needs"))
}

async fn sentinel(sink: &RedisSink, unfinished: Option<&str>) -> Control {
    const NAME: &str = "redis owner";
    match sink.sentinel(unfinished.unwrap_or_default()).await {
        Ok(Sentinel::Missing) => Control::ok(NAME, "no run is filling it"),
        Ok(Sentinel::Ours) => {
            let run = unfinished.unwrap_or_default();
            Control::ok(
                NAME,
                format!("it carries the mark of run {run}, which can be resumed here"),
            )
        }
        Ok(Sentinel::Foreign(note)) => {
            let run = note.split_whitespace().next().unwrap_or("RUN_ID");
            Control::failed(NAME, format!("another run is filling it: {note}")).with_fix(Some(&format!(
                "wait for it, resume it from its own --state, or if it is dead: rekindle rebuild redis --take-over {run}"
            )))
        }
        Err(error) => Control::of_error(NAME, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::controls::Verdict;
    use crate::outcome::Exit;

    fn state(used: u64, limit: Option<u64>, eviction: &str) -> TargetState {
        TargetState {
            process_id: String::new(),
            history_id: String::new(),
            version: "redis 7.0.15".into(),
            entries: 1,
            used_bytes: used,
            limit_bytes: limit,
            eviction: eviction.into(),
            evicted: 0,
            refusal: None,
        }
    }

    #[test]
    fn a_target_above_its_share_is_full() {
        let full = memory(&state(91, Some(100), "noeviction"));
        assert_eq!((full.verdict, full.exit), (Verdict::Failed, Exit::Capacity));
        assert_eq!(memory(&state(90, Some(100), "noeviction")).verdict, Verdict::Ok);
        assert_eq!(memory(&state(u64::MAX, None, "noeviction")).verdict, Verdict::Ok);
        let evicts = memory(&state(10, Some(100), "allkeys-lru"));
        assert!(evicts.verdict == Verdict::Ok && evicts.detail.contains("warning"), "{evicts:?}");
    }

    #[test]
    fn a_refused_server_fails() {
        let refused = TargetState {
            refusal: Some("it runs in cluster mode".into()),
            ..state(1, None, "noeviction")
        };
        assert_eq!(server("h:6379/0", &refused).verdict, Verdict::Failed);
    }
}
