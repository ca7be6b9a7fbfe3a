//! REST calls with raw JSON: one place that sends, renews a refused token, and waits out a busy server.
//!
//! Invariant: only calls that may be repeated come here; every one of them is idempotent by a name of ours.

use super::BigQuery;
use super::credentials::Way;
use super::failure::{Refusal, from_http};
use crate::error::{Error, Kind, Result};
use crate::policy::{self, Retry};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// Tries of one call.
const TRIES: u32 = 5;
/// How long an answer may take as a whole, however steadily it comes.
const ANSWER_MAX: Duration = Duration::from_mins(10);

/// Makes the HTTP client.
pub(super) fn client(timeout: Duration) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(timeout.min(policy::answer_max()))
        .read_timeout(policy::answer_max())
        .timeout(ANSWER_MAX)
        .tcp_keepalive(policy::answer_max())
        .user_agent(concat!("rekindle/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| from_http(error, "cannot make an HTTP client"))
}

/// A call: method, path behind `/bigquery/v2/projects/<project>/`, query parameters and body.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: Option<&'a Value>,
    /// What is being done, for the error: `cannot read table a.b`.
    pub(super) what: &'a str,
}

/// What came of a call.
pub(super) enum Answer {
    /// A body; `Null` where there is none.
    Body(Value),
    /// BigQuery said no for good; `tries` tells whether an earlier try may have taken effect.
    Refused { refusal: Refusal, tries: u32 },
}

impl BigQuery {
    /// Makes a call and returns its body, or the error of the refusal.
    pub(super) async fn ask(&self, call: Call<'_>) -> Result<Value> {
        let what = call.what;
        match self.try_ask(call).await? {
            Answer::Body(body) => Ok(body),
            Answer::Refused { refusal, .. } => Err(refusal.into_error(what)),
        }
    }

    /// Makes a call and returns its body, or `None` where the thing asked for is not there.
    pub(super) async fn find(&self, call: Call<'_>) -> Result<Option<Value>> {
        let what = call.what;
        match self.try_ask(call).await? {
            Answer::Body(body) => Ok(Some(body)),
            Answer::Refused { refusal, .. } if refusal.is_not_found() => Ok(None),
            Answer::Refused { refusal, .. } => Err(refusal.into_error(what)),
        }
    }

    /// Makes a call, again where the server is busy or the connection broke.
    pub(super) async fn try_ask(&self, call: Call<'_>) -> Result<Answer> {
        let credentials = &self.shared.credentials;
        let mut retry = Retry::times(TRIES);
        let mut tries = 1;
        loop {
            let token = credentials.token().await?;
            let failed = match self.send(&call, &token).await {
                Ok(Answer::Refused { refusal, .. }) if refusal.code == 401 => {
                    if !credentials.renew(Way::Rest, &token) {
                        return Err(credentials.rejected(call.what));
                    }
                    Error::new(Kind::Unavailable, call.what.to_owned())
                        .with_source("bigquery refused the token; a new one is fetched")
                }
                Ok(Answer::Refused { refusal, .. }) if refusal.is_transient() => {
                    refusal.into_error(call.what)
                }
                Ok(Answer::Refused { refusal, .. }) => {
                    return Ok(Answer::Refused { refusal, tries });
                }
                Ok(body) => return Ok(body),
                Err(error) if error.kind().is_transient() => error,
                Err(error) => return Err(error),
            };
            retry.wait_after(failed).await?;
            tries += 1;
        }
    }

    async fn send(&self, call: &Call<'_>, token: &str) -> Result<Answer> {
        let shared = &self.shared;
        let url =
            format!("{}/bigquery/v2/projects/{}/{}", shared.rest_url, shared.project, call.path);
        let mut request =
            shared.http.request(call.method.clone(), url).bearer_auth(token).query(call.query);
        if let Some(body) = call.body {
            request = request.json(body);
        }
        let failed =
            |error| from_http(error, &format!("{} (bigquery at {})", call.what, shared.rest_url));
        let response = request.send().await.map_err(failed)?;
        let code = response.status();
        // A server that is unwell may not have looked at the token.
        if code != StatusCode::UNAUTHORIZED && !code.is_server_error() {
            shared.credentials.held(Way::Rest, token);
        }
        let body = response.bytes().await.map_err(failed)?;
        if !code.is_success() {
            let refusal = Refusal::of_body(code.as_u16(), &body);
            return Ok(Answer::Refused { refusal, tries: 1 });
        }
        if body.is_empty() {
            return Ok(Answer::Body(Value::Null));
        }
        let body = serde_json::from_slice(&body).map_err(|error| {
            Error::new(Kind::Unavailable, call.what.to_owned())
                .with_source(format!("bigquery answered something other than JSON: {error}"))
        })?;
        Ok(Answer::Body(body))
    }
}
