//! Whether a Redis takes documents, and what it says when it does not.
//!
//! Invariant: it is asked for the command itself, so that a server counts which has it without a module, or whose user
//! may not list modules.

use super::SENTINEL_KEY;
use super::control::failed;
use crate::error::{Error, Kind, Result};
use deadpool_redis::Connection;
use redis::{RedisError, Value};

/// Names of modules that have `JSON.SET`: of Redis, and of Valkey.
const NAMES: [&str; 2] = ["ReJSON", "json"];

/// Returns what takes documents, with its version; `None` where the server does not know the command.
pub(super) async fn version(connection: &mut Connection, address: &str) -> Result<Option<String>> {
    // The mark of a run is no document, if there is one: whatever is answered about the key, the command is known.
    let asked: std::result::Result<Value, RedisError> =
        redis::cmd("JSON.GET").arg(SENTINEL_KEY).query_async(connection).await;
    if let Err(error) = asked {
        let said = error.to_string();
        if is_lacking(&said) {
            return Ok(None);
        }
        if !said.contains("wrong Redis type") && !said.contains("WRONGTYPE") {
            return Err(failed(error, "cannot read documents (JSON.GET) of", address));
        }
    }
    let info: String = redis::cmd("INFO")
        .arg("modules")
        .query_async(connection)
        .await
        .map_err(|error| failed(error, "cannot read INFO of", address))?;
    Ok(Some(named(&info)))
}

/// Finds the module in `INFO modules`.
fn named(info: &str) -> String {
    let found = info.lines().find_map(|line| {
        let fields = line.trim_end().strip_prefix("module:name=")?;
        let (name, rest) = fields.split_once(',')?;
        let version = rest.strip_prefix("ver=")?.split(',').next()?.parse::<u64>().ok()?;
        NAMES.contains(&name).then(|| {
            let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
            format!("module {name} {major}.{minor}.{patch}")
        })
    });
    found.unwrap_or_else(|| "JSON.SET of the server itself".to_owned())
}

/// Whether an error says that a command of documents is not known.
pub(super) fn is_lacking(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    // A script says it in its own words: "Unknown Redis command called from script".
    (said.contains("unknown command") && said.contains("json."))
        || said.contains("unknown redis command called from script")
}

/// The refusal of a server without it.
pub(super) fn lacking(address: &str) -> Error {
    Error::new(Kind::Config, format!("redis at {address} has no JSON module, and a route writes documents (type \"redisjson\")"))
        .with_hint("load the module (loadmodule /path/to/rejson.so in redis.conf), or say type = \"json\", which writes strings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_among_others() {
        let info = "# Modules\r\nmodule:name=bf,ver=20800,api=1\r\nmodule:name=ReJSON,ver=20803,api=1,filters=0\r\n";
        assert_eq!(named(info), "module ReJSON 2.8.3");
        assert_eq!(named("# Modules\r\n"), "JSON.SET of the server itself");
    }

    #[test]
    fn only_an_unknown_command_is_a_lacking_module() {
        assert!(is_lacking("ERR unknown command 'JSON.GET', with args beginning with: 'k' "));
        assert!(is_lacking("ERR Unknown Redis command called from script script: 1, on @user"));
        assert!(!is_lacking("ERR unknown command 'FOO', with args beginning with: 'k' "));
        assert!(!is_lacking("Existing key has wrong Redis type"));
    }
}
