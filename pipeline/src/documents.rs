//! Routes of documents, which only a Redis with a JSON module can take.
//!
//! Invariant: a server without one is refused by name before anything is written to it or read from it.

use schemas::Route;
use schemas::plan::Layout;
use stages::load::Sink;
use stages::{Error, Kind, Result};

/// What to do about a server without a module.
pub(crate) const FIX: &str = "load Redis' JSON module (loadmodule /path/to/rejson.so in redis.conf), or say type = \"json\", which keeps the object in a string";

/// Returns the names of the routes that write documents.
pub(crate) fn of_documents<'r>(routes: impl IntoIterator<Item = &'r Route>) -> Vec<&'r str> {
    let is_document = |route: &&Route| route.layout == Layout::RedisJson;
    routes.into_iter().filter(is_document).map(|route| route.name.as_str()).collect()
}

/// Says why the target cannot take the documents of these routes; `None` where it can.
pub(crate) async fn refusal<'r>(
    sink: &dyn Sink,
    routes: impl IntoIterator<Item = &'r Route>,
) -> Result<Option<String>> {
    let names = of_documents(routes);
    if names.is_empty() || sink.json_module().await?.is_some() {
        return Ok(None);
    }
    let (noun, names) = (if names.len() == 1 { "route" } else { "routes" }, names.join(", "));
    let address = sink.address();
    Ok(Some(format!(
        "{noun} {names}: type redisjson needs a JSON module, and redis at {address} has none"
    )))
}

/// Fails where the target cannot take the documents of these routes.
pub(crate) async fn require<'r>(
    sink: &dyn Sink,
    routes: impl IntoIterator<Item = &'r Route>,
) -> Result<()> {
    match refusal(sink, routes).await? {
        Some(message) => Err(Error::new(Kind::Config, message).with_hint(FIX)),
        None => Ok(()),
    }
}
