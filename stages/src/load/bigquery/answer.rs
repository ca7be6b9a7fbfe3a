//! What answers of Storage Write mean. Pure, so that every case can be tested.
//!
//! Invariant: only an answer that proves it counts as "the rows are there"; everything unclear is looked up again.

use crate::connect::bigquery::{kind_of_status, storage};
use crate::error::{Error, Kind};
use storage::append_rows_response::Response;
use storage::storage_error::StorageErrorCode;
use tonic::Code;

/// Why appending came to an end.
#[derive(Debug)]
pub enum AppendFailure {
    /// The offset lies beyond the end of the stream: rows that were acknowledged are not there.
    Beyond,
    /// The stream takes nothing more: it was finalized or committed.
    Closed,
    /// There is no such stream (any more).
    Gone,
    /// Anything else, with its kind.
    Failed(Error),
}

/// What a batch commit came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitAnswer {
    /// All of it is in the table.
    Committed,
    /// None of it by this call; each stream has to be looked at, because an earlier call may have done it.
    Unclear(String),
}

/// Returns nothing where the rows of a request are in the stream, now or from before.
pub(super) fn append_answer(answer: storage::AppendRowsResponse) -> Result<(), AppendFailure> {
    if let Some(row) = answer.row_errors.first() {
        // The message may quote values; the place is enough.
        return Err(AppendFailure::Failed(Error::new(
            Kind::Schema,
            format!("bigquery refuses row {} of a request: error code {}", row.index, row.code),
        )));
    }
    match answer.response {
        Some(Response::AppendResult(_)) => Ok(()),
        Some(Response::Error(error)) => failure(Code::from_i32(error.code), &error.message),
        None => Err(AppendFailure::Failed(Error::new(
            Kind::Unavailable,
            "bigquery answered an append with nothing",
        ))),
    }
}

/// Returns nothing where the code says that the rows are there already.
pub(super) fn failure(code: Code, message: &str) -> Result<(), AppendFailure> {
    match code {
        Code::AlreadyExists => Ok(()),
        Code::OutOfRange => Err(AppendFailure::Beyond),
        Code::FailedPrecondition => Err(AppendFailure::Closed),
        Code::NotFound => Err(AppendFailure::Gone),
        code => {
            let text: String = message.chars().take(400).collect();
            let kind = match kind_of_status(code) {
                Kind::Config => Kind::Schema,
                other => other,
            };
            let error = Error::new(kind, "cannot append rows to bigquery")
                .with_source(format!("bigquery answered {code:?}: {text}"));
            Err(AppendFailure::Failed(error))
        }
    }
}

pub(super) fn commit_answer(answer: &storage::BatchCommitWriteStreamsResponse) -> CommitAnswer {
    if answer.stream_errors.is_empty() && answer.commit_time.is_some() {
        return CommitAnswer::Committed;
    }
    let mut reasons: Vec<String> = answer
        .stream_errors
        .iter()
        .map(|error| {
            let code = StorageErrorCode::try_from(error.code);
            code.map_or_else(|_| error.code.to_string(), |code| code.as_str_name().to_owned())
        })
        .collect();
    reasons.sort();
    reasons.dedup();
    CommitAnswer::Unclear(reasons.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::append_rows_response::AppendResult;

    fn response(response: Option<Response>) -> storage::AppendRowsResponse {
        storage::AppendRowsResponse { response, ..storage::AppendRowsResponse::default() }
    }

    #[test]
    fn rows_that_are_there_already_are_there() {
        assert!(
            append_answer(response(Some(Response::AppendResult(AppendResult::default())))).is_ok()
        );
        assert!(failure(Code::AlreadyExists, "").is_ok());
    }

    #[test]
    fn everything_else_is_told_apart() {
        assert!(matches!(failure(Code::OutOfRange, ""), Err(AppendFailure::Beyond)));
        assert!(matches!(failure(Code::FailedPrecondition, ""), Err(AppendFailure::Closed)));
        assert!(matches!(failure(Code::NotFound, ""), Err(AppendFailure::Gone)));
        for (code, kind) in [
            (Code::Unavailable, Kind::Unavailable),
            (Code::ResourceExhausted, Kind::Unavailable),
            (Code::PermissionDenied, Kind::Auth),
            (Code::InvalidArgument, Kind::Schema),
        ] {
            let Err(AppendFailure::Failed(error)) = failure(code, "m") else { panic!("{code:?}") };
            assert_eq!(error.kind(), kind);
        }
        let Err(AppendFailure::Failed(error)) = append_answer(response(None)) else { panic!() };
        assert!(error.kind().is_transient());
    }

    #[test]
    fn a_commit_with_errors_is_looked_up() {
        let error = storage::StorageError {
            code: StorageErrorCode::StreamAlreadyCommitted as i32,
            ..storage::StorageError::default()
        };
        let mut answer = storage::BatchCommitWriteStreamsResponse {
            commit_time: None,
            stream_errors: vec![error.clone(), error],
        };
        assert_eq!(
            commit_answer(&answer),
            CommitAnswer::Unclear("STREAM_ALREADY_COMMITTED".into())
        );
        answer.stream_errors.clear();
        assert_eq!(commit_answer(&answer), CommitAnswer::Unclear(String::new()));
        answer.commit_time = Some(prost_types::Timestamp::default());
        assert_eq!(commit_answer(&answer), CommitAnswer::Committed);
    }
}
