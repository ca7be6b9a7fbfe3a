//! A channel that tells what became of the token each call showed.
//!
//! Invariant: a refusal is judged by the token that its own call showed, whichever is in use when the answer comes.

use super::credentials::{Credentials, Way};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Error};
use tonic::{Code, Status};

/// The header in which a verdict about a refused token comes back with its status; no server sends it.
const VERDICT: &str = "rekindle-token";
const OLD: &str = "old";
const IN_VAIN: &str = "in-vain";

/// What a refusal of a token means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another try shows another token.
    Old,
    /// A new one was refused as well.
    InVain,
    /// The call had been let in, and ended because its token has grown old.
    Midway,
}

/// A channel to the Storage API. Cheap to clone.
#[derive(Clone)]
pub struct TokenChannel {
    channel: Channel,
    credentials: Credentials,
}

impl TokenChannel {
    pub(super) fn new(channel: Channel, credentials: Credentials) -> Self {
        Self { channel, credentials }
    }
}

impl Service<Request<Body>> for TokenChannel {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<Response<Body>, Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let token = token_of(request.headers());
        let credentials = self.credentials.clone();
        let answer = self.channel.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            if let Some(token) = token {
                note(&credentials, &token, &mut response);
            }
            Ok(response)
        })
    }
}

fn token_of(headers: &HeaderMap) -> Option<String> {
    let shown = headers.get("authorization")?.to_str().ok()?;
    shown.strip_prefix("Bearer ").map(str::to_owned)
}

/// Reads the status that an answer begins with, and adds the verdict to a refusal.
fn note(credentials: &Credentials, token: &str, response: &mut Response<Body>) {
    let code = response.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
    match code {
        Some(Code::Unauthenticated) => {
            let verdict = if credentials.renew(Way::Grpc, token) { OLD } else { IN_VAIN };
            response.headers_mut().insert(VERDICT, HeaderValue::from_static(verdict));
        }
        // Whoever answers so may not have looked at the token.
        Some(Code::Unavailable) => {}
        _ if !response.status().is_success() => {}
        _ => credentials.held(Way::Grpc, token),
    }
}

/// Tells what a status says about its call's token.
pub(super) fn refused(status: &Status) -> Option<Refused> {
    if status.code() != Code::Unauthenticated {
        return None;
    }
    let verdict = status.metadata().get(VERDICT).map(tonic::metadata::MetadataValue::as_bytes);
    Some(match verdict {
        Some(verdict) if verdict == OLD.as_bytes() => Refused::Old,
        Some(_) => Refused::InVain,
        None => Refused::Midway,
    })
}
