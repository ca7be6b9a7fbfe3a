//! Application Default Credentials: one authenticator for REST and gRPC.
//!
//! Invariant: a token is fetched anew before it expires (the library's cache does that), and at most once a minute
//! because the server refused it; neither tokens nor keys are ever printed.

use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use futures::future::BoxFuture;
use gcp_bigquery_client::error::BQError;
use gcp_bigquery_client::yup_oauth2::{self, AccessToken};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/bigquery"];
/// What a stand-in is shown; it asks for nothing.
const NO_TOKEN: &str = "none";
/// A token younger than this that is refused is not refused for its age.
const FRESH: Duration = Duration::from_mins(1);
/// How long after a renewal a refusal may be of a request that left with the token before it.
const IN_FLIGHT: Duration = Duration::from_secs(10);
const HINT: &str = "run: gcloud auth application-default login, or name a key file in GOOGLE_APPLICATION_CREDENTIALS";

type Token = std::result::Result<AccessToken, yup_oauth2::Error>;
type Fetch = Arc<dyn Fn(bool) -> BoxFuture<'static, Token> + Send + Sync>;

/// Where tokens come from.
#[derive(Clone)]
pub(super) struct Credentials {
    fetch: Option<Fetch>,
    renewal: Arc<Renewal>,
}

#[derive(Default)]
struct Renewal {
    is_wanted: AtomicBool,
    renewed: Mutex<Option<Instant>>,
}

impl Credentials {
    /// No credentials, for a stand-in.
    pub(super) fn none() -> Self {
        Self { fetch: None, renewal: Arc::default() }
    }

    /// Finds credentials where Google's own tools look: the file of `GOOGLE_APPLICATION_CREDENTIALS`, the one that
    /// `gcloud auth application-default login` writes, else the metadata server of a machine in Google Cloud.
    pub(super) async fn application_default() -> Result<Self> {
        let credentials = Self { fetch: Some(fetcher().await?), renewal: Arc::default() };
        credentials.token().await?;
        Ok(credentials)
    }

    /// Returns a token that is valid now.
    pub(super) async fn token(&self) -> Result<String> {
        let Some(fetch) = &self.fetch else { return Ok(NO_TOKEN.to_owned()) };
        let is_renewal = self.renewal.is_wanted.swap(false, Ordering::SeqCst);
        let token = match fetch(is_renewal).await {
            Ok(token) => token,
            Err(error) => return Err(refused(error)),
        };
        if is_renewal {
            *self.renewal.renewed.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Instant::now());
        }
        match token.token() {
            Some(token) => Ok(token.to_owned()),
            None => Err(Error::new(Kind::Auth, "google sent no access token").with_hint(HINT)),
        }
    }

    /// Notes that the server refused a token; returns whether a new one is worth a try.
    pub(super) fn renew(&self) -> bool {
        if self.fetch.is_none() {
            return false;
        }
        let renewed = *self.renewal.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        match renewed.map(|renewed| renewed.elapsed()) {
            Some(age) if age < IN_FLIGHT => return true,
            Some(age) if age < FRESH => return false,
            _ => {}
        }
        self.renewal.is_wanted.store(true, Ordering::SeqCst);
        true
    }
}

#[async_trait]
impl gcp_bigquery_client::auth::Authenticator for Credentials {
    async fn access_token(&self) -> std::result::Result<String, BQError> {
        self.token().await.map_err(|error| BQError::ConnectionPoolError(error.to_string()))
    }
}

async fn fetcher() -> Result<Fetch> {
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
                authenticator.force_refreshed_token(&SCOPES).await
            } else {
                authenticator.token(&SCOPES).await
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
    use std::sync::atomic::AtomicUsize;

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
        assert!(!none.renew());
    }

    /// Credentials whose source counts: how often it was asked, and how often to fetch anew whatever it holds.
    fn counting() -> (Credentials, Arc<[AtomicUsize; 2]>) {
        let asked: Arc<[AtomicUsize; 2]> = Arc::default();
        let counted = Arc::clone(&asked);
        let fetch: Fetch = Arc::new(move |is_renewal| {
            counted[usize::from(is_renewal)].fetch_add(1, Ordering::SeqCst);
            let renewed = counted[1].load(Ordering::SeqCst);
            Box::pin(async move { Ok(AccessToken::from(info(&format!("token {renewed}")))) })
        });
        (Credentials { fetch: Some(fetch), renewal: Arc::default() }, asked)
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
    async fn a_refused_token_is_fetched_anew_once_and_not_again_within_a_minute() {
        let (credentials, asked) = counting();
        let counts = || [asked[0].load(Ordering::SeqCst), asked[1].load(Ordering::SeqCst)];
        // GIVEN a token in use
        assert_eq!(credentials.token().await.unwrap(), "token 0");
        assert_eq!(counts(), [1, 0]);
        // WHEN the server refuses it, to several callers at once
        assert!(credentials.renew() && credentials.renew());
        // THEN the next call fetches a new one, and those after it take what is held
        assert_eq!(credentials.token().await.unwrap(), "token 1");
        assert_eq!(credentials.token().await.unwrap(), "token 1");
        assert_eq!(counts(), [2, 1]);
        // WHEN a request is refused that left with the old one THEN it is sent again, with what is held
        assert!(credentials.renew());
        assert_eq!(credentials.token().await.unwrap(), "token 1");
        assert_eq!(counts(), [3, 1]);
        // WHEN the new one is refused as well THEN its age is not why
        *credentials.renewal.renewed.lock().unwrap() = Instant::now().checked_sub(IN_FLIGHT * 2);
        assert!(!credentials.renew());
        // WHEN it has grown old THEN it is fetched anew
        *credentials.renewal.renewed.lock().unwrap() = Instant::now().checked_sub(FRESH * 2);
        assert!(credentials.renew());
        assert_eq!(credentials.token().await.unwrap(), "token 2");
        assert_eq!(counts(), [3, 2]);
    }
}
