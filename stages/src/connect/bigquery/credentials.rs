//! Application Default Credentials: one authenticator for REST and gRPC, of BigQuery and of whatever else of Google is asked.
//!
//! Invariant: a token is fetched anew before it expires (the library's cache does that) and where the server refuses one
//! that held; one that was fetched for a refusal and is refused before it ever held is not. Neither tokens nor keys are
//! ever printed.

use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use futures::future::BoxFuture;
use gcp_bigquery_client::error::BQError;
use gcp_bigquery_client::yup_oauth2::{self, AccessToken};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a token is asked for: the APIs that take it.
pub(in crate::connect) type Scopes = &'static [&'static str];

/// BigQuery alone.
pub(super) const BIGQUERY: Scopes = &["https://www.googleapis.com/auth/bigquery"];
/// What a stand-in is shown; it asks for nothing.
const NO_TOKEN: &str = "none";
/// So many tokens in a row that one API refuses are not refused for their age, whatever the other one takes.
const REFUSED_MAX: u32 = 3;
const HINT: &str = "run: gcloud auth application-default login, or name a key file in GOOGLE_APPLICATION_CREDENTIALS";

const REFUSED_HINT: &str = "see that the account of the credentials is enabled, that its key or session was not revoked and that this machine's clock is right, then: rekindle check";

type Token = std::result::Result<AccessToken, yup_oauth2::Error>;
type Fetch = Arc<dyn Fn(bool) -> BoxFuture<'static, Token> + Send + Sync>;

/// The two ways in, which judge tokens apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connect) enum Way {
    Rest,
    Grpc,
}

/// Where tokens come from.
#[derive(Clone)]
pub(in crate::connect) struct Credentials {
    fetch: Option<Fetch>,
    /// One caller fetches at a time, so that an old token never comes in after a new one.
    gate: Arc<tokio::sync::Mutex<()>>,
    known: Arc<Mutex<Known>>,
}

/// What is known of the token in use.
#[derive(Default)]
struct Known {
    token: Option<String>,
    /// Whether it was fetched because the one before was refused.
    is_renewed: bool,
    /// Whether a call with it was let in.
    has_held: bool,
    is_renewal_wanted: bool,
    /// By way: the last token refused, and how many there were since one was taken.
    refused: [(Option<String>, u32); 2],
}

impl Credentials {
    /// No credentials, for a stand-in.
    pub(in crate::connect) fn none() -> Self {
        Self::from(None)
    }

    /// Finds credentials where Google's own tools look: the file of `GOOGLE_APPLICATION_CREDENTIALS`, the one that
    /// `gcloud auth application-default login` writes, else the metadata server of a machine in Google Cloud.
    pub(in crate::connect) async fn application_default(scopes: Scopes) -> Result<Self> {
        let credentials = Self::from(Some(fetcher(scopes).await?));
        credentials.token().await?;
        Ok(credentials)
    }

    fn from(fetch: Option<Fetch>) -> Self {
        Self { fetch, gate: Arc::default(), known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a token that is valid now, as far as it was told.
    pub(in crate::connect) async fn token(&self) -> Result<String> {
        let Some(fetch) = &self.fetch else { return Ok(NO_TOKEN.to_owned()) };
        let _gate = self.gate.lock().await;
        let is_renewal = self.known().is_renewal_wanted;
        let fetched = fetch(is_renewal).await.map_err(refused)?;
        let Some(token) = fetched.token() else {
            return Err(Error::new(Kind::Auth, "google sent no access token").with_hint(HINT));
        };
        let mut known = self.known();
        if is_renewal {
            known.is_renewal_wanted = false;
        }
        if known.token.as_deref() != Some(token) {
            known.token = Some(token.to_owned());
            (known.is_renewed, known.has_held) = (is_renewal, false);
        }
        Ok(token.to_owned())
    }

    /// Notes that a call with this token was let in.
    pub(in crate::connect) fn held(&self, way: Way, token: &str) {
        let mut known = self.known();
        known.refused[way as usize] = (None, 0);
        if known.token.as_deref() == Some(token) {
            known.has_held = true;
        }
    }

    /// Notes that the server refused this token; returns whether another try may do better: with the token that has
    /// replaced it, or with a new one.
    pub(in crate::connect) fn renew(&self, way: Way, token: &str) -> bool {
        if self.fetch.is_none() {
            return false;
        }
        let mut known = self.known();
        if known.token.as_deref() != Some(token) {
            return true;
        }
        let (last, count) = &mut known.refused[way as usize];
        if last.as_deref() != Some(token) {
            (*last, *count) = (Some(token.to_owned()), *count + 1);
        }
        let is_in_vain =
            known.is_renewed && (!known.has_held || known.refused[way as usize].1 >= REFUSED_MAX);
        known.is_renewal_wanted |= !is_in_vain;
        !is_in_vain
    }

    /// Notes that a call which had been let in ended because its token has grown old.
    pub(super) fn renew_old(&self) {
        let mut known = self.known();
        known.is_renewal_wanted |= known.has_held;
    }

    /// The error of a refusal that a new token does not mend.
    pub(super) fn rejected(&self, what: &str) -> Error {
        let cause = match self.fetch {
            Some(_) => "bigquery refused the token, and a new one too",
            None => "bigquery asked for a token, and an endpoint without TLS is shown none",
        };
        Error::new(Kind::Auth, what.to_owned()).with_hint(REFUSED_HINT).with_source(cause)
    }
}

#[async_trait]
impl gcp_bigquery_client::auth::Authenticator for Credentials {
    async fn access_token(&self) -> std::result::Result<String, BQError> {
        self.token().await.map_err(|error| BQError::ConnectionPoolError(error.to_string()))
    }
}

async fn fetcher(scopes: Scopes) -> Result<Fetch> {
    let unusable = |error: std::io::Error| {
        Error::new(Kind::Auth, "cannot use the application default credentials")
            .with_hint(HINT)
            .with_source(error)
    };
    let authenticator = match credential_file() {
        Some(path) => {
            let text = tokio::fs::read_to_string(&path).await.map_err(unusable)?;
            let (kind, secret) = kind_of(&text).map_err(unusable)?;
            match kind.as_str() {
                "service_account" => {
                    let key = parsed(secret).map_err(unusable)?;
                    yup_oauth2::ServiceAccountAuthenticator::builder(key).build().await
                }
                "authorized_user" => {
                    let secret = parsed(secret).map_err(unusable)?;
                    yup_oauth2::AuthorizedUserAuthenticator::builder(secret).build().await
                }
                "external_account" => {
                    let secret = parsed(secret).map_err(unusable)?;
                    yup_oauth2::ExternalAccountAuthenticator::builder(secret).build().await
                }
                other => {
                    let message = format!("credentials of type {other:?} are not built yet");
                    return Err(Error::new(Kind::Auth, message).with_hint(HINT));
                }
            }
        }
        None => metadata_server().await,
    };
    let authenticator = authenticator.map_err(unusable)?;
    Ok(Arc::new(move |is_renewal| {
        let authenticator = authenticator.clone();
        Box::pin(async move {
            if is_renewal {
                authenticator.force_refreshed_token(scopes).await
            } else {
                authenticator.token(scopes).await
            }
        })
    }))
}

/// The type of a credential file, and its content.
fn kind_of(text: &str) -> std::io::Result<(String, serde_json::Value)> {
    // The cause is not attached: a parser's message may quote the file.
    let unreadable = || std::io::Error::other("the credential file is not the JSON of credentials");
    let secret: serde_json::Value = serde_json::from_str(text).map_err(|_| unreadable())?;
    let kind = secret.get("type").and_then(|kind| kind.as_str()).ok_or_else(unreadable)?;
    Ok((kind.to_owned(), secret))
}

fn parsed<T: serde::de::DeserializeOwned>(secret: serde_json::Value) -> std::io::Result<T> {
    serde_json::from_value(secret)
        .map_err(|_| std::io::Error::other("the credential file lacks a field of its type"))
}

/// The file that `GOOGLE_APPLICATION_CREDENTIALS` names, whether or not it is there, or the one of gcloud if it is.
fn credential_file() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS") {
        return Some(named.into());
    }
    let folder = match std::env::var_os("CLOUDSDK_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".config/gcloud"),
    };
    Some(folder.join("application_default_credentials.json")).filter(|path| path.is_file())
}

type Built = std::io::Result<
    yup_oauth2::authenticator::Authenticator<
        <yup_oauth2::DefaultHyperClientBuilder as yup_oauth2::HyperClientBuilder>::Connector,
    >,
>;

async fn metadata_server() -> Built {
    use yup_oauth2::authenticator::ApplicationDefaultCredentialsTypes;
    let options = yup_oauth2::ApplicationDefaultCredentialsFlowOpts::default();
    match yup_oauth2::ApplicationDefaultCredentialsAuthenticator::builder(options).await {
        ApplicationDefaultCredentialsTypes::InstanceMetadata(builder) => builder.build().await,
        ApplicationDefaultCredentialsTypes::ServiceAccount(builder) => builder.build().await,
    }
}

fn refused(error: yup_oauth2::Error) -> Error {
    let kind = match &error {
        yup_oauth2::Error::HttpError(_) | yup_oauth2::Error::HttpClientError(_) => Kind::Connection,
        _ => Kind::Auth,
    };
    Error::new(kind, "cannot get an access token of google").with_hint(HINT).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_credential_file_is_told_by_its_type_and_never_quoted() {
        let (kind, _) =
            kind_of(r#"{"type": "authorized_user", "refresh_token": "s3cret"}"#).unwrap();
        assert_eq!(kind, "authorized_user");
        for text in ["s3cret", r#"{"s3cret": 1}"#, r#"{"type": 3, "key": "s3cret"}"#] {
            assert!(!kind_of(text).unwrap_err().to_string().contains("s3cret"), "{text}");
        }
        let missing = parsed::<yup_oauth2::ServiceAccountKey>(serde_json::json!({"a": "s3cret"}));
        assert!(!missing.unwrap_err().to_string().contains("s3cret"));
    }

    #[tokio::test]
    async fn a_stand_in_is_shown_no_token_and_never_renews() {
        let none = Credentials::none();
        assert_eq!(none.token().await.unwrap(), NO_TOKEN);
        assert!(!none.renew(Way::Rest, NO_TOKEN));
    }

    /// Credentials whose source counts: how often it was asked, and how often to fetch anew whatever it holds.
    fn counting() -> (Credentials, Arc<[AtomicUsize; 2]>) {
        let asked: Arc<[AtomicUsize; 2]> = Arc::default();
        let counted = Arc::clone(&asked);
        let fetch: Fetch = Arc::new(move |is_renewal: bool| {
            counted[usize::from(is_renewal)].fetch_add(1, Ordering::SeqCst);
            let renewed = counted[1].load(Ordering::SeqCst);
            Box::pin(async move { Ok(AccessToken::from(info(&format!("token {renewed}")))) })
        });
        (Credentials::from(Some(fetch)), asked)
    }

    fn info(token: &str) -> yup_oauth2::storage::TokenInfo {
        yup_oauth2::storage::TokenInfo {
            access_token: Some(token.to_owned()),
            refresh_token: None,
            expires_at: None,
            id_token: None,
        }
    }

    #[tokio::test]
    async fn a_refused_token_is_fetched_anew_and_a_new_one_that_never_held_is_not() {
        let (credentials, asked) = counting();
        let counts = || [asked[0].load(Ordering::SeqCst), asked[1].load(Ordering::SeqCst)];
        let renew = |token| credentials.renew(Way::Rest, token);
        // GIVEN a token in use
        assert_eq!(credentials.token().await.unwrap(), "token 0");
        assert_eq!(counts(), [1, 0]);
        // WHEN the server refuses it, to several callers at once
        assert!(renew("token 0") && renew("token 0"));
        // THEN the next call fetches a new one, and those after it take what is held
        assert_eq!(credentials.token().await.unwrap(), "token 1");
        assert_eq!(credentials.token().await.unwrap(), "token 1");
        assert_eq!(counts(), [2, 1]);
        // WHEN a request is refused that left with the old one THEN it is sent again, with what is held
        assert!(renew("token 0"));
        assert_eq!(credentials.token().await.unwrap(), "token 1");
        assert_eq!(counts(), [3, 1]);
        // WHEN the new one is refused as well THEN its age is not why, for nobody
        assert!(!renew("token 1") && !credentials.renew(Way::Grpc, "token 1"));
        assert_eq!(credentials.token().await.unwrap(), "token 1");
        assert_eq!(counts(), [4, 1]);
    }

    #[tokio::test]
    async fn a_token_that_held_is_fetched_anew_as_often_as_it_grows_old() {
        let (credentials, _) = counting();
        for number in 0..20 {
            let token = credentials.token().await.unwrap();
            assert_eq!(token, format!("token {number}"));
            credentials.held(Way::Grpc, &token);
            assert!(credentials.renew(Way::Grpc, &token));
        }
        // One that ended a call which had been let in is old, whichever it was.
        let token = credentials.token().await.unwrap();
        credentials.renew_old();
        assert_eq!(credentials.token().await.unwrap(), token, "it never held");
        credentials.held(Way::Rest, &token);
        credentials.renew_old();
        assert_ne!(credentials.token().await.unwrap(), token);
    }

    #[tokio::test]
    async fn an_api_that_takes_no_token_at_all_ends_it_though_the_other_takes_them() {
        let (credentials, _) = counting();
        let mut tries = 0;
        loop {
            let token = credentials.token().await.unwrap();
            credentials.held(Way::Rest, &token);
            tries += 1;
            if !credentials.renew(Way::Grpc, &token) {
                break;
            }
        }
        assert_eq!(tries, REFUSED_MAX);
    }
}
