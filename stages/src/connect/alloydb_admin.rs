//! The Admin API of AlloyDB, as far as it tells of backups: `projects.locations.backups.list` and `clusters.get`.
//!
//! Invariant: only GET; a list is all of its pages or an error, and the locations that the service could not reach are
//! returned with it, never dropped. No token enters an error message.

use super::bigquery::credentials::{Credentials, Scopes, Way};
use crate::error::{Error, Kind, Result};
use crate::policy::{self, Retry};
use reqwest::StatusCode;
use schemas::plan::Cluster;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

const URL: &str = "https://alloydb.googleapis.com";
/// The Admin API has no narrower scope.
const SCOPES: Scopes = &["https://www.googleapis.com/auth/cloud-platform"];
/// Tries of one call.
const TRIES: u32 = 3;
/// Backups on a page; the service may send fewer.
const PAGE: &str = "500";
/// More pages than any project has: a service that goes on for ever is an error, not a wait.
const PAGES_MAX: usize = 1_000;
const HINT_RIGHTS: &str =
    "give the account AlloyDB Viewer (roles/alloydb.viewer) in the project, then: rekindle check";
const HINT_AWAY: &str =
    "see that the network lets this machine reach the AlloyDB Admin API, then: rekindle check";

/// The API and how to get in.
pub struct AlloyDbAdmin {
    cluster: Cluster,
    url: String,
    credentials: Credentials,
    http: reqwest::Client,
}

/// One backup, as far as it matters here. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// `projects/P/locations/L/backups/B`.
    pub name: String,
    /// Of which state of the cluster it is.
    #[serde(default)]
    pub create_time: Option<String>,
    /// When it was complete.
    #[serde(default)]
    pub create_completion_time: Option<String>,
    /// `READY`, `CREATING`, `FAILED`, `DELETING`.
    #[serde(default)]
    pub state: String,
    /// `AUTOMATED`, `ON_DEMAND`, `CONTINUOUS`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The cluster, by name.
    #[serde(default)]
    pub cluster_name: String,
    /// The cluster, by an id that a later one of the same name does not have.
    #[serde(default)]
    pub cluster_uid: String,
}

/// What the service knows of backups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backups {
    /// Those of all pages.
    pub backups: Vec<Backup>,
    /// Locations that it could not reach: what is there is not in the list.
    pub unreachable: Vec<String>,
}

/// What the service tells of the cluster itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFacts {
    /// Its id, which a later cluster of the same name does not have.
    #[serde(default)]
    pub uid: String,
    /// The window of its continuous backup; absent where that is off.
    #[serde(default)]
    pub continuous_backup_info: Option<Continuous>,
}

/// The window of a continuous backup. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Continuous {
    /// Since when it is on.
    #[serde(default)]
    pub enabled_time: Option<String>,
    /// The oldest state that can be restored.
    #[serde(default)]
    pub earliest_restorable_time: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    backups: Vec<Backup>,
    #[serde(default)]
    next_page_token: String,
    #[serde(default)]
    unreachable: Vec<String>,
}

/// Makes the client for a cluster. Over TLS it gets a first token, and fails with `Auth` where there are no credentials;
/// an endpoint without TLS is a stand-in, and shown none. `timeout` bounds every answer.
pub async fn connect(cluster: &Cluster, timeout: Duration) -> Result<AlloyDbAdmin> {
    super::redis::install_crypto();
    let url = cluster.endpoint.as_deref().unwrap_or(URL).trim_end_matches('/').to_owned();
    let credentials = if url.starts_with("https://") {
        Credentials::application_default(SCOPES).await?
    } else {
        Credentials::none()
    };
    let timeout = timeout.min(policy::answer_max());
    let http = reqwest::Client::builder()
        .connect_timeout(timeout)
        .timeout(timeout)
        // An answer that leads elsewhere would take the token with it.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("rekindle/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| from_http(error, "cannot make an HTTP client"))?;
    Ok(AlloyDbAdmin { cluster: cluster.clone(), url, credentials, http })
}

impl AlloyDbAdmin {
    /// Returns the host that is asked, for messages.
    pub fn address(&self) -> &str {
        self.url.split_once("://").map_or(&self.url, |(_, host)| host)
    }

    /// Lists the backups in the location of the cluster, of every cluster there.
    pub async fn backups(&self) -> Result<Backups> {
        let what = format!("cannot list the backups of alloydb (admin API at {})", self.address());
        let path = format!(
            "projects/{}/locations/{}/backups",
            self.cluster.project, self.cluster.location
        );
        let mut found = Backups::default();
        let mut token = String::new();
        for _ in 0..PAGES_MAX {
            let mut query = vec![("pageSize", PAGE)];
            if !token.is_empty() {
                query.push(("pageToken", &token));
            }
            let page: Page = self.ask(&path, &query, &what).await?;
            found.backups.extend(page.backups);
            found.unreachable.extend(page.unreachable);
            if page.next_page_token.is_empty() {
                found.unreachable.sort();
                found.unreachable.dedup();
                return Ok(found);
            }
            token = page.next_page_token;
        }
        Err(Error::new(Kind::Unavailable, what)
            .with_hint(HINT_AWAY)
            .with_source(format!("the list did not end after {PAGES_MAX} pages")))
    }

    /// Looks at the cluster.
    pub async fn cluster(&self) -> Result<ClusterFacts> {
        let what = format!(
            "cannot read cluster {} (admin API at {})",
            self.cluster.path(),
            self.address()
        );
        self.ask(&self.cluster.path(), &[], &what).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        what: &str,
    ) -> Result<T> {
        let mut retry = Retry::times(TRIES);
        loop {
            let token = self.credentials.token().await?;
            let failed = match self.send(path, query, &token, what).await {
                Ok((StatusCode::UNAUTHORIZED, body)) => {
                    let error = refusal(StatusCode::UNAUTHORIZED, &body, what);
                    if !self.credentials.renew(Way::Rest, &token) {
                        return Err(error);
                    }
                    Error::new(Kind::Unavailable, what.to_owned())
                        .with_source("google refused the token; a new one is fetched")
                }
                Ok((code, body)) if code.is_success() => return read(&body, what),
                Ok((code, body)) => refusal(code, &body, what),
                Err(error) => error,
            };
            if !failed.kind().is_transient() {
                return Err(failed);
            }
            retry.wait_after(failed).await?;
        }
    }

    async fn send(
        &self,
        path: &str,
        query: &[(&str, &str)],
        token: &str,
        what: &str,
    ) -> Result<(StatusCode, Vec<u8>)> {
        let failed = |error| from_http(error, what);
        let url = format!("{}/v1/{path}", self.url);
        let request = self.http.get(url).bearer_auth(token).query(query);
        let response = request.send().await.map_err(failed)?;
        let code = response.status();
        // A server that is unwell may not have looked at the token.
        if code != StatusCode::UNAUTHORIZED && !code.is_server_error() {
            self.credentials.held(Way::Rest, token);
        }
        let body = response.bytes().await.map_err(failed)?;
        Ok((code, body.to_vec()))
    }
}

fn read<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        Error::new(Kind::Unavailable, what.to_owned())
            .with_hint(HINT_AWAY)
            .with_source(format!("something other than the API answered: {error}"))
    })
}

/// The error of an answer that is one: `{"error": {"code", "message", "status"}}`.
fn refusal(code: StatusCode, body: &[u8], what: &str) -> Error {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default();
    let (kind, hint) = match code.as_u16() {
        401 | 403 => (Kind::Auth, HINT_RIGHTS),
        404 => (
            Kind::Config,
            "see that project, location and cluster in backups of [alloydb] are right, then: rekindle check",
        ),
        408 => (Kind::Timeout, HINT_AWAY),
        429 | 500..=599 => (Kind::Unavailable, HINT_AWAY),
        _ => (Kind::Config, "mend backups in [alloydb] of the plan, then: rekindle check"),
    };
    let message: String = text("message").chars().take(400).collect();
    Error::new(kind, what.to_owned()).with_hint(hint).with_source(format!(
        "it answered {} {}: {message}",
        code.as_u16(),
        text("status")
    ))
}

fn from_http(error: reqwest::Error, what: &str) -> Error {
    let kind = if error.is_timeout() { Kind::Timeout } else { Kind::Connection };
    Error::new(kind, what.to_owned()).with_hint(HINT_AWAY).with_source(error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_is_read_as_the_api_writes_it() {
        let page = json!({
            "backups": [{
                "name": "projects/p/locations/l/backups/b", "uid": "1", "type": "AUTOMATED", "state": "READY",
                "createTime": "2026-11-29T03:00:00.123456789Z", "sizeBytes": "12",
                "clusterName": "projects/p/locations/l/clusters/c", "clusterUid": "u",
            }],
            "nextPageToken": "more", "unreachable": ["projects/p/locations/m"],
        });
        let page: Page = read(page.to_string().as_bytes(), "x").unwrap();
        assert_eq!((page.backups.len(), page.next_page_token.as_str()), (1, "more"));
        assert_eq!((page.backups[0].kind.as_str(), page.unreachable.len()), ("AUTOMATED", 1));
        assert_eq!(page.backups[0].create_completion_time, None);
        // A location without backups answers with an empty object.
        let none: Page = read(b"{}", "x").unwrap();
        assert!(none.backups.is_empty() && none.next_page_token.is_empty());
        // A page of a proxy is no list without backups.
        assert_eq!(read::<Page>(b"<html>", "x").unwrap_err().kind(), Kind::Unavailable);
    }

    #[test]
    fn a_refusal_says_what_to_give_to_the_account() {
        let body = json!({"error": {"code": 403, "message": "Permission denied", "status": "PERMISSION_DENIED"}});
        let error = refusal(StatusCode::FORBIDDEN, body.to_string().as_bytes(), "cannot list");
        assert_eq!(error.kind(), Kind::Auth);
        assert!(error.hint().unwrap().contains("roles/alloydb.viewer"));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "it answered 403 PERMISSION_DENIED: Permission denied");
        for (code, kind) in
            [(404, Kind::Config), (429, Kind::Unavailable), (503, Kind::Unavailable)]
        {
            assert_eq!(refusal(StatusCode::from_u16(code).unwrap(), b"", "x").kind(), kind);
        }
    }
}
