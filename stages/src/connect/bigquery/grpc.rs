//! The Storage API over our own channels: tokens per call, routing headers, large messages.
//!
//! Invariant: every call carries a token that was valid when it was made, and the header that routes it.

use super::failure::from_status;
use super::grpc_tokens::{Refused, TokenChannel, refused};
use super::storage::big_query_read_client::BigQueryReadClient;
use super::storage::big_query_write_client::BigQueryWriteClient;
use super::{BigQuery, CHANNELS};
use crate::error::{Error, Kind, Result};
use crate::policy;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

/// Largest message taken; BigQuery's own clients allow 128 MB.
const RECEIVE_MAX: usize = 128 * 1024 * 1024;
/// Largest message sent; the service refuses appends of more than 10 MB itself.
const SEND_MAX: usize = 20 * 1024 * 1024;
/// How much of a stream may be on its way unread: enough to hide a round trip at 1 GB/s, little enough to hold back a
/// server whose rows nobody takes.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Makes a channel that connects when it is used first.
pub(super) fn channel(url: &str, timeout: Duration) -> Result<Channel> {
    let unusable = |error: tonic::transport::Error| {
        Error::new(Kind::Config, "cannot use \"grpc_endpoint\" of [bigquery]").with_source(error)
    };
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(unusable)?
        .connect_timeout(timeout.min(policy::answer_max()))
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .http2_keep_alive_interval(policy::answer_max() / 2)
        .keep_alive_timeout(policy::answer_max() / 2);
    let endpoint = if url.starts_with("https://") {
        let roots = ClientTlsConfig::new().with_native_roots();
        endpoint.tls_config(roots).map_err(unusable)?
    } else {
        endpoint
    };
    Ok(endpoint.connect_lazy())
}

/// Waits for an answer of the Storage API, which may cost the service work; one that stays away is a status, too.
pub async fn awaited<T>(
    answer: impl Future<Output = std::result::Result<T, Status>>,
) -> std::result::Result<T, Status> {
    let limit = policy::work_max();
    let late = || Status::deadline_exceeded(format!("no answer for {} s", limit.as_secs()));
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))
}

impl BigQuery {
    /// Returns a client that reads; each call may take another connection.
    pub fn read_client(&self) -> BigQueryReadClient<TokenChannel> {
        BigQueryReadClient::new(self.channel())
            .max_decoding_message_size(RECEIVE_MAX)
            .max_encoding_message_size(SEND_MAX)
    }

    /// Returns a client that writes; each call may take another connection.
    pub fn write_client(&self) -> BigQueryWriteClient<TokenChannel> {
        BigQueryWriteClient::new(self.channel())
            .max_decoding_message_size(RECEIVE_MAX)
            .max_encoding_message_size(SEND_MAX)
    }

    fn channel(&self) -> TokenChannel {
        let turn = self.shared.next_channel.fetch_add(1, Ordering::Relaxed) % CHANNELS;
        let channel = self.shared.channels[turn].clone();
        TokenChannel::new(channel, self.shared.credentials.clone())
    }

    /// Wraps a message (or a stream of them) with a token and the routing header, for example
    /// `&[("read_session.table", "projects/p/datasets/d/tables/t")]`.
    pub async fn request<T>(&self, message: T, routing: &[(&str, &str)]) -> Result<Request<T>> {
        let unusable = |_| Error::new(Kind::Internal, "a header for bigquery is no text");
        let mut request = Request::new(message);
        let token = format!("Bearer {}", self.shared.credentials.token().await?);
        let mut token: tonic::metadata::AsciiMetadataValue = token.parse().map_err(unusable)?;
        token.set_sensitive(true);
        request.metadata_mut().insert("authorization", token);
        let routing: Vec<String> =
            routing.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let routing = routing.join("&").parse().map_err(unusable)?;
        request.metadata_mut().insert("x-goog-request-params", routing);
        Ok(request)
    }

    /// Makes the error of a status while rows of a session are read: of one that is over, another one reads the same.
    pub fn failed_to_read(&self, status: &Status, what: &str) -> Error {
        if !is_session_over(status) {
            return self.failed(status, what);
        }
        let message = format!("{what}: the read session ended, and another one is to be made");
        let answered = format!("bigquery answered {:?}: {}", status.code(), status.message());
        Error::new(Kind::Unavailable, message).with_source(answered)
    }

    /// Makes the error of a gRPC status; a token that was refused for its age makes it transient.
    pub fn failed(&self, status: &Status, what: &str) -> Error {
        match refused(status) {
            Some(Refused::InVain) => return self.shared.credentials.rejected(what),
            Some(verdict) => {
                if verdict == Refused::Midway {
                    self.shared.credentials.renew_old();
                }
                return Error::new(Kind::Unavailable, what.to_owned())
                    .with_source("bigquery refused the token; a new one is fetched");
            }
            None => {}
        }
        // A channel that cannot connect reports so as a status of its own making.
        if status.code() == Code::Unavailable && std::error::Error::source(status).is_some() {
            return Error::new(Kind::Connection, what.to_owned())
                .with_hint("see that BigQuery's gRPC endpoint is reachable, then: rekindle check")
                .with_source(format!(
                    "bigquery at {}: {}",
                    self.shared.grpc_url,
                    status.message()
                ));
        }
        let text: String = status.message().chars().take(400).collect();
        from_status(status, what).with_source(format!(
            "bigquery at {} answered {:?}: {text}",
            self.shared.grpc_url,
            status.code()
        ))
    }
}

/// Whether a read session has ended: its streams were there when it was made, and are not found or cannot be read now.
pub fn is_session_over(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::FailedPrecondition)
}

/// Percent-encodes what a routing value must not hold; slashes stay, as Google's own clients have it.
fn escaped(value: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn routing_values_are_percent_encoded() {
        assert_eq!(escaped("projects/p/tables/a b&c"), "projects/p/tables/a%20b%26c");
    }
}
