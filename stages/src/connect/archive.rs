//! Files of an archive: in a folder, or in a bucket of Cloud Storage.
//!
//! Invariant: a name gets its bytes once: nothing here overwrites a file. A file counts as written when the folder's
//! disk or the bucket has acknowledged it whole.

use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use schemas::plan::{Archive, ArchivePlace};
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Files removed at once.
const REMOVALS: usize = 8;
/// Tries of one request, and how long they may take together; whoever asked tries again after that.
const TRIES_MAX: usize = 4;
const TRIES_FOR: Duration = Duration::from_secs(20);
/// How long one request may take; a file has a few MiB.
const REQUEST_MAX: Duration = Duration::from_mins(1);

/// What became of a file that was to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is there with these bytes: made now, or by an attempt whose answer got lost.
    Written,
    /// It was there with other bytes, and still is.
    Occupied,
}

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path under the root, parts joined by `/`.
    pub path: Path,
    /// Its length.
    pub bytes: u64,
}

/// The files under one root.
pub struct Files {
    store: Arc<dyn ObjectStore>,
    root: Path,
    address: String,
    folder: Option<Folder>,
}

/// What a folder needs so that a file survives a power failure.
struct Folder {
    files: Arc<LocalFileSystem>,
    root: PathBuf,
    /// Folders whose own names are on the disk.
    anchored: Mutex<HashSet<PathBuf>>,
}

impl Files {
    /// Opens the archive of a plan. A folder must be there: one that is missing may be a disk that is not mounted.
    pub fn open(section: &Archive) -> Result<Self> {
        match &section.place {
            ArchivePlace::Folder(path) => Self::in_folder(path, section.url()),
            ArchivePlace::Bucket { name, prefix } => Self::in_bucket(section, name, prefix),
        }
    }

    fn in_folder(path: &str, address: String) -> Result<Self> {
        let root = PathBuf::from(path);
        if !root.is_dir() {
            let message = format!("the folder of the archive, {path}, is not there");
            return Err(Error::new(Kind::Config, message)
                .with_hint(format!("mount its disk, or make it: mkdir -p {path}")));
        }
        let files = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| failed(error, &format!("cannot open the archive {address}")))?;
        let files = Arc::new(files.with_automatic_cleanup(true));
        let store: Arc<dyn ObjectStore> = Arc::<LocalFileSystem>::clone(&files);
        let root = std::fs::canonicalize(&root).unwrap_or(root);
        let folder = Some(Folder { files, root, anchored: Mutex::default() });
        Ok(Self { store, root: Path::default(), address, folder })
    }

    fn in_bucket(section: &Archive, bucket: &str, prefix: &str) -> Result<Self> {
        let address = section.url();
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: TRIES_MAX,
            retry_timeout: TRIES_FOR,
        };
        // Rows go to Google by TLS alone; a stand-in names its own scheme.
        let is_stand_in = section.endpoint.is_some();
        let client = ClientOptions::new().with_timeout(REQUEST_MAX).with_allow_http(is_stand_in);
        let builder = match &section.endpoint {
            // Only a stand-in is named: it is shown no credentials, and none are looked for.
            Some(endpoint) => GoogleCloudStorageBuilder::new()
                .with_base_url(endpoint)
                .with_service_account_key(
                    r#"{"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true}"#,
                ),
            None => GoogleCloudStorageBuilder::from_env(),
        };
        let what = format!("cannot open the archive {address}");
        let store = builder
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_client_options(client)
            .build()
            .map_err(|error| failed(error, &what))?;
        let root = Path::parse(prefix).map_err(|error| failed(error.into(), &what))?;
        Ok(Self { store: Arc::new(store), root, address, folder: None })
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the path of a file under the root; each part may hold any letters.
    pub fn path(&self, parts: &[&str]) -> Path {
        let mut path = self.root.clone();
        for part in parts {
            path = path.join(*part);
        }
        path
    }

    /// Makes a file that is not there yet.
    pub async fn create(&self, path: &Path, bytes: Bytes) -> Result<Made> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from_bytes(bytes.clone());
        if let Err(error) = self.store.put_opts(path, payload, options).await {
            let is_there = matches!(error, object_store::Error::AlreadyExists { .. });
            let error = self.failed(error, "cannot write", path);
            if !is_there && !error.kind().is_transient() {
                return Err(error);
            }
            // A write may have been carried out although its answer got lost, or a repetition of it was refused.
            match self.read(path).await {
                Ok(Some(found)) if found == bytes => {}
                _ if !is_there => return Err(error),
                found => {
                    found?;
                    return Ok(Made::Occupied);
                }
            }
        }
        if let Some(folder) = &self.folder {
            folder.keep(path).await.map_err(|error| self.not_kept(path, error))?;
        }
        Ok(Made::Written)
    }

    /// Returns the bytes of a file.
    pub async fn read(&self, path: &Path) -> Result<Option<Bytes>> {
        let read = match self.store.get(path).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(error, "cannot read", path)),
        }
    }

    /// Returns every file in a folder and below, in order of their paths.
    pub async fn list(&self, folder: &Path) -> Result<Vec<Found>> {
        let listed = self.store.list(Some(folder)).try_collect::<Vec<_>>().await;
        let listed = match listed {
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            listed => listed.map_err(|error| self.failed(error, "cannot list", folder))?,
        };
        let mut found: Vec<Found> = listed
            .into_iter()
            .map(|meta| Found { path: meta.location, bytes: meta.size })
            .collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Removes files; returns how many were there.
    pub async fn remove(&self, paths: Vec<Path>) -> Result<u64> {
        let removed = stream::iter(paths)
            .map(|path| async move {
                match self.store.delete(&path).await {
                    Ok(()) => Ok(1),
                    Err(object_store::Error::NotFound { .. }) => Ok(0),
                    Err(error) => Err(self.failed(error, "cannot remove", &path)),
                }
            })
            .buffer_unordered(REMOVALS)
            .try_collect::<Vec<u64>>()
            .await?;
        if let Some(folder) = &self.folder {
            // Folders that became empty went too, and may come again.
            folder.anchored.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        Ok(removed.into_iter().sum())
    }

    fn failed(&self, error: object_store::Error, doing: &str, path: &Path) -> Error {
        failed(error, &format!("{doing} {path} of the archive {}", self.address))
    }

    fn not_kept(&self, path: &Path, error: io::Error) -> Error {
        let kind = of_io(error.kind());
        let message = format!("cannot flush {path} of the archive {} to its disk", self.address);
        Error::new(kind, message).with_source(error)
    }
}

impl Folder {
    /// Flushes a file and the names that lead to it.
    async fn keep(&self, path: &Path) -> io::Result<()> {
        let file = self.files.path_to_filesystem(path).map_err(io::Error::other)?;
        tokio::fs::File::open(&file).await?.sync_all().await?;
        let mut new = Vec::new();
        for folder in file.ancestors().skip(1) {
            tokio::fs::File::open(folder).await?.sync_all().await?;
            let is_known =
                self.anchored.lock().unwrap_or_else(PoisonError::into_inner).contains(folder);
            if is_known || folder == self.root {
                break;
            }
            new.push(folder.to_owned());
        }
        self.anchored.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
        Ok(())
    }
}

/// What an error of a file or of a bucket is: a system that is away may answer later, a right that is missing will not.
fn failed(error: object_store::Error, what: &str) -> Error {
    use object_store::Error as E;
    let (kind, hint) = match &error {
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => (
            Kind::Auth,
            "grant storage.objects.create, .get, .list and .delete on the bucket, and see that Application Default Credentials are there",
        ),
        E::NotFound { .. } => (Kind::Config, "see that the bucket of [archive] exists"),
        E::InvalidPath { .. } | E::NotSupported { .. } | E::NotImplemented { .. } => {
            (Kind::Config, "mend url in [archive], then: rekindle plan")
        }
        error => match io_kind(error) {
            Some(found) => {
                (of_io(found), "see to the folder of [archive], then run the same command again")
            }
            None => (
                Kind::Unavailable,
                "see that the bucket of [archive] can be reached, then run the same command again",
            ),
        },
    };
    Error::new(kind, what).with_hint(hint).with_source(error)
}

/// The first error of the file system among the causes; those of a network are no such.
fn io_kind(error: &object_store::Error) -> Option<io::ErrorKind> {
    let object_store::Error::Generic { store: "LocalFileSystem", .. } = error else { return None };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(found) = found.downcast_ref::<io::Error>() {
            return Some(found.kind());
        }
        cause = found.source();
    }
    Some(io::ErrorKind::Other)
}

fn of_io(kind: io::ErrorKind) -> Kind {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Capacity,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Config,
        io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle => Kind::Unavailable,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &std::path::Path) -> Files {
        let place = ArchivePlace::Folder(folder.to_str().unwrap().to_owned());
        Files::open(&Archive { place, endpoint: None, encrypt_key: None }).unwrap()
    }

    #[tokio::test]
    async fn a_name_gets_its_bytes_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let path = files.path(&["log:a", "b", "2025/11", "1"]);
        assert_eq!(files.read(&path).await.unwrap(), None);
        assert_eq!(files.list(&files.path(&["log:a"])).await.unwrap(), []);
        let bytes = Bytes::from_static(b"rows");
        assert_eq!(files.create(&path, bytes.clone()).await.unwrap(), Made::Written);
        // The same bytes may have come from an attempt whose answer got lost.
        assert_eq!(files.create(&path, bytes.clone()).await.unwrap(), Made::Written);
        assert_eq!(files.create(&path, "other".into()).await.unwrap(), Made::Occupied);
        assert_eq!(files.read(&path).await.unwrap(), Some(bytes));
        let listed = files.list(&files.path(&["log:a"])).await.unwrap();
        assert_eq!(listed, [Found { path: path.clone(), bytes: 4 }]);
        assert_eq!(files.remove(vec![path.clone(), path]).await.unwrap(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_refused() {
        let place = ArchivePlace::Folder("/nowhere/at/all".to_owned());
        let refused = Files::open(&Archive { place, endpoint: None, encrypt_key: None });
        let refused = refused.err().unwrap();
        assert_eq!(refused.kind(), Kind::Config);
        assert!(refused.hint().unwrap().contains("mkdir -p /nowhere/at/all"));
    }
}
