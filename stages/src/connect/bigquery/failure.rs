//! What BigQuery's errors mean: by reason and HTTP code over REST, by status code over gRPC.
//!
//! Invariant: kind and hint of every error of BigQuery are decided in this file.

use crate::error::{Error, Kind};
use gcp_bigquery_client::error::BQError;
use serde_json::Value;
use tonic::{Code, Status};

/// An answer of the REST API that is an error.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Refusal {
    /// Reads the body of an answer.
    pub(super) fn of_body(code: u16, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = body.get("error").cloned().unwrap_or_default();
        let first = error.pointer("/errors/0/reason").and_then(Value::as_str);
        Self {
            code,
            reason: first
                .or_else(|| error.get("status").and_then(Value::as_str))
                .unwrap_or_default()
                .to_owned(),
            message: error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        }
    }

    /// Reads the `errorResult` of a job.
    pub(super) fn of_job(error_result: &Value) -> Self {
        let text = |name| error_result.get(name).and_then(Value::as_str).unwrap_or_default();
        Self { code: 0, reason: text("reason").to_owned(), message: text("message").to_owned() }
    }

    /// Whether the thing asked for is not there.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == 404 || self.reason == "notFound"
    }

    /// Whether the thing to be made is there already.
    pub(super) fn is_duplicate(&self) -> bool {
        self.code == 409 || self.reason == "duplicate"
    }

    pub(super) fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    fn kind(&self) -> Kind {
        match self.reason.as_str() {
            "rateLimitExceeded"
            | "jobRateLimitExceeded"
            | "backendError"
            | "jobBackendError"
            | "internalError"
            | "jobInternalError"
            | "tableUnavailable"
            | "quotaExceeded"
            | "stopped" => Kind::Unavailable,
            "timeout" => Kind::Timeout,
            "accessDenied" | "authError" | "blocked" | "billingNotEnabled" | "responseTooLarge" => {
                Kind::Auth
            }
            "notFound" => Kind::Schema,
            "invalidQuery"
            | "invalid"
            | "bytesBilledLimitExceeded"
            | "duplicate"
            | "resourcesExceeded"
            | "notImplemented" => Kind::Config,
            _ => match self.code {
                401 | 403 => Kind::Auth,
                404 => Kind::Schema,
                408 => Kind::Timeout,
                429 | 500..=599 => Kind::Unavailable,
                400..=499 => Kind::Config,
                _ => Kind::Internal,
            },
        }
    }

    /// Makes the error of what was being done. The message of a bad query may quote values, so it is a cause.
    pub(super) fn into_error(self, what: &str) -> Error {
        let kind = self.kind();
        let hint = match self.reason.as_str() {
            "bytesBilledLimitExceeded" => Some(
                "raise max_bytes_billed of [bigquery] or let the query read less, then: rekindle plan",
            ),
            "quotaExceeded" => {
                Some("wait for the quota or raise it, then run the same command again")
            }
            _ => hint_of(kind),
        };
        let error = Error::new(kind, what.to_owned());
        let error = match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        };
        let code = if self.code == 0 { String::new() } else { format!("{} ", self.code) };
        let text: String = self.message.chars().take(400).collect();
        error.with_source(format!("bigquery answered {code}{}: {text}", self.reason))
    }
}

fn hint_of(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Auth => Some(
            "give the account BigQuery Read Session User, Job User and Data Viewer (to restore: Data Editor), then: rekindle check",
        ),
        Kind::Schema => {
            Some("see that project, dataset and table of the plan are right, then: rekindle check")
        }
        Kind::Config => Some("mend the plan or the SQL in it, then: rekindle plan"),
        Kind::Connection | Kind::Unavailable | Kind::Timeout => {
            Some("run the same command again; it goes on where it stopped")
        }
        _ => None,
    }
}

/// Returns what a gRPC status code means for the engine.
pub fn kind_of_status(code: Code) -> Kind {
    match code {
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::Internal
        // An HTTP/2 connection that was cut surfaces as one of these.
        | Code::Unknown | Code::Cancelled => Kind::Unavailable,
        Code::DeadlineExceeded => Kind::Timeout,
        Code::Unauthenticated | Code::PermissionDenied => Kind::Auth,
        Code::NotFound => Kind::Schema,
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => Kind::Config,
        _ => Kind::Internal,
    }
}

/// Makes the error of a gRPC status. An expired token is the business of `BigQuery::failed`.
pub fn from_status(status: &Status, what: &str) -> Error {
    let kind = kind_of_status(status.code());
    let text: String = status.message().chars().take(400).collect();
    let error = Error::new(kind, what.to_owned())
        .with_source(format!("bigquery answered {:?}: {text}", status.code()));
    match hint_of(kind) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Makes the error of a request that got no answer.
pub(super) fn from_http(error: reqwest::Error, what: &str) -> Error {
    let kind = if error.is_timeout() {
        Kind::Timeout
    } else if error.is_builder() {
        Kind::Config
    } else {
        Kind::Connection
    };
    Error::new(kind, what.to_owned())
        .with_hint("see that the network lets this machine reach BigQuery, then: rekindle check")
        // The address may hold what was asked for; the cause tells what happened to it.
        .with_source(error.without_url())
}

/// Makes the error of the REST client.
pub(super) fn from_client(error: BQError, what: &str) -> Error {
    match error {
        BQError::ResponseError { error } => {
            let reason = error.error.errors.first().and_then(|first| first.get("reason")).cloned();
            let refusal = Refusal {
                code: u16::try_from(error.error.code).unwrap_or(0),
                reason: reason.unwrap_or(error.error.status),
                message: error.error.message,
            };
            refusal.into_error(what)
        }
        BQError::RequestError(error) => {
            // Whom it asked, without what it asked for.
            let origin = error.url().map(|url| url.origin().ascii_serialization());
            let at = origin.map(|origin| format!(" (bigquery at {origin})")).unwrap_or_default();
            from_http(error, &format!("{what}{at}"))
        }
        other => Error::new(Kind::Internal, what.to_owned()).with_source(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(code: u16, reason: &str) -> Refusal {
        let body = json!({"error": {"code": code, "message": "m", "errors": [{"reason": reason}]}});
        Refusal::of_body(code, body.to_string().as_bytes())
    }

    #[test]
    fn reasons_decide_before_codes() {
        for (code, reason, kind) in [
            (403, "rateLimitExceeded", Kind::Unavailable),
            (403, "quotaExceeded", Kind::Unavailable),
            (403, "accessDenied", Kind::Auth),
            (401, "authError", Kind::Auth),
            (404, "notFound", Kind::Schema),
            (400, "invalidQuery", Kind::Config),
            (409, "duplicate", Kind::Config),
            (400, "bytesBilledLimitExceeded", Kind::Config),
            (403, "billingNotEnabled", Kind::Auth),
            (400, "stopped", Kind::Unavailable),
            (408, "", Kind::Timeout),
            (502, "", Kind::Unavailable),
            (503, "", Kind::Unavailable),
            (429, "", Kind::Unavailable),
            (500, "", Kind::Unavailable),
        ] {
            assert_eq!(refusal(code, reason).kind(), kind, "{code} {reason}");
        }
        assert_eq!(Refusal::of_body(502, b"<html>").kind(), Kind::Unavailable);
    }

    #[test]
    fn status_codes_have_kinds_and_hints() {
        for (code, kind) in [
            (Code::ResourceExhausted, Kind::Unavailable),
            (Code::Unavailable, Kind::Unavailable),
            (Code::Aborted, Kind::Unavailable),
            (Code::Internal, Kind::Unavailable),
            (Code::Unknown, Kind::Unavailable),
            (Code::Cancelled, Kind::Unavailable),
            (Code::DeadlineExceeded, Kind::Timeout),
            (Code::Unauthenticated, Kind::Auth),
            (Code::PermissionDenied, Kind::Auth),
            (Code::NotFound, Kind::Schema),
            (Code::InvalidArgument, Kind::Config),
        ] {
            let error = from_status(&Status::new(code, "m"), "cannot read");
            assert_eq!((error.kind(), error.hint().is_some()), (kind, true), "{code:?}");
        }
    }
}
