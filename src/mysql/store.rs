//! Files of a backup: compressed, sealed and hashed on their way into the object store, hashed, opened and unpacked on their way out.

use std::io::Write as _;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use age::DecryptError;
use futures::{StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::error::Class;

use super::error::{Error, Result};
use super::sealing::{Bytes, Portions, Sealer, Sealing, Tray};

/// How long one request to the store may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(120);
/// On this kind of data level 3 took longer and gave larger files.
const LEVEL: i32 = 1;
/// Compressed bytes are handed on in portions of this size.
const PORTION: usize = 1024 * 1024;
/// A manifest is read into memory as a whole; a larger object is not one.
const MANIFEST_LIMIT: u64 = 256 * 1024 * 1024;

/// Bytes of a part of a file: the least that S3 takes, and what a session holds of it twice, once being filled and once on its way.
/// A file has at most 10,000 of them.
const PART: usize = 5 * 1024 * 1024;
/// Parts of a file on their way at the same time. Each further one is held in memory, for every session of every backup.
const PARTS_UNDER_WAY: usize = 1;

/// Where backups lie, and how their files are sealed.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    sealing: Arc<Sealing>,
}

impl Store {
    /// Nothing is sealed, and nothing that is can be opened.
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, sealing: Arc::default() }
    }

    #[must_use]
    pub fn with_sealing(self, sealing: Sealing) -> Self {
        Self { sealing: Arc::new(sealing), ..self }
    }

    /// Whether there is a key that opens what is sealed.
    pub fn has_identity(&self) -> bool {
        self.sealing.has_identity()
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealing.is_on()
    }

    /// What the names of files of SQL end with.
    pub(super) fn ending(&self) -> &'static str {
        if self.is_sealed() { SEALED } else { PLAIN }
    }

    fn locked(&self, path: &Path, error: &DecryptError) -> Error {
        let path = path.to_string();
        let reason = match error {
            DecryptError::NoMatchingKeys if self.sealing.has_identity() => {
                "the identity that was given is none of those that it was encrypted for"
            }
            DecryptError::NoMatchingKeys => {
                "no identity was given: name its Secret in spec.database.backup.encryption.identitySecretRef, or its file with --identity"
            }
            _ => return Error::Corrupt { path, reason: format!("it can't be decrypted: {error}") },
        };
        Error::Locked { path, reason }
    }
}

/// What it holds, as it is stored.
impl Deref for Store {
    type Target = Arc<dyn ObjectStore>;

    fn deref(&self) -> &Self::Target {
        &self.objects
    }
}

/// A compressed file being written. Nothing is visible in the store before [`Upload::finish`]; one that is dropped before takes back
/// what it sent, as far as it still can.
pub(super) struct Upload {
    encoder: zstd::stream::write::Encoder<'static, Sealer>,
    tray: Tray,
    sending: Sending,
}

/// What was sent of a file.
struct Sending {
    path: Path,
    writer: Option<BufWriter>,
    hash: Sha256,
    size: u64,
}

/// What was written.
pub(super) struct Written {
    /// Of the compressed file.
    pub sha256: String,
    /// Compressed bytes.
    pub size: u64,
}

impl Upload {
    pub fn begin(store: &Store, path: Path) -> Result<Self> {
        let tray = Tray::default();
        let sealer = Sealer::begin(&store.sealing, tray.clone()).map_err(|error| unwritable(&path, &error))?;
        let encoder = zstd::stream::write::Encoder::new(sealer, LEVEL).map_err(|error| unwritable(&path, &error))?;
        Ok(Self { encoder, tray, sending: Sending::begin(store, path) })
    }

    pub async fn write(&mut self, text: &[u8]) -> Result<()> {
        self.encoder.write_all(text).map_err(|error| unwritable(&self.sending.path, &error))?;
        if self.tray.len() >= PORTION { self.sending.send(&self.tray.take()).await } else { Ok(()) }
    }

    pub async fn finish(self) -> Result<Written> {
        let Self { encoder, tray, mut sending } = self;
        encoder.finish().and_then(Sealer::finish).map_err(|error| unwritable(&sending.path, &error))?;
        sending.send(&tray.take()).await?;
        sending.finish().await
    }
}

impl Sending {
    fn begin(store: &Store, path: Path) -> Self {
        let writer = BufWriter::with_capacity(Arc::clone(store), path.clone(), PART).with_max_concurrency(PARTS_UNDER_WAY);
        Self { path, writer: Some(writer), hash: Sha256::new(), size: 0 }
    }

    async fn send(&mut self, portion: &[u8]) -> Result<()> {
        self.hash.update(portion);
        self.size += portion.len() as u64;
        match &mut self.writer {
            Some(writer) => io(&self.path, writer.write_all(portion)).await,
            None => Err(failed(&self.path, "the file was ended already".to_owned(), Class::Permanent)),
        }
    }

    async fn finish(mut self) -> Result<Written> {
        // What can't be completed is taken back by the writer itself.
        if let Some(mut writer) = self.writer.take() {
            io(&self.path, writer.shutdown()).await?;
        }
        Ok(Written { sha256: hex::encode(std::mem::take(&mut self.hash).finalize()), size: self.size })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let (Some(mut writer), Ok(runtime)) = (self.writer.take(), tokio::runtime::Handle::try_current()) else { return };
        let path = self.path.clone();
        runtime.spawn(async move {
            if let Err(error) = within(&path, writer.abort()).await {
                tracing::warn!(%error, "parts of a file that was not finished may be left in the store");
            }
        });
    }
}

/// Writes a small file at once.
pub(super) async fn put(store: &Store, path: &Path, content: Vec<u8>) -> Result<()> {
    within(path, store.put(path, PutPayload::from(content))).await.map(drop)
}

/// Writes a small file at once, sealed.
pub(super) async fn put_sealed(store: &Store, path: &Path, content: &[u8]) -> Result<Written> {
    let tray = Tray::default();
    let mut sealer = Sealer::begin(&store.sealing, tray.clone()).map_err(|error| unwritable(path, &error))?;
    sealer.write_all(content).and_then(|()| sealer.finish()).map_err(|error| unwritable(path, &error))?;
    let mut sending = Sending::begin(store, path.clone());
    sending.send(&tray.take()).await?;
    sending.finish().await
}

/// Reads a small file that is sealed, and that has this digest.
pub(super) async fn get_sealed(store: &Store, path: &Path, sha256: &str) -> Result<Vec<u8>> {
    let corrupt = |reason: &str| Error::Corrupt { path: path.to_string(), reason: reason.to_owned() };
    let content = get(store, path).await?.ok_or_else(|| corrupt("the file is missing"))?;
    if hex::encode(Sha256::digest(&content)) != sha256 {
        return Err(corrupt("its sha256 is not what manifest.json says"));
    }
    store.sealing.open_whole(&content).map_err(|error| store.locked(path, &error))
}

/// Reads a small file; `None` if there is none.
pub(super) async fn get(store: &Store, path: &Path) -> Result<Option<Vec<u8>>> {
    let found = match in_time(path, store.get(path)).await? {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(explain(path, &error)),
    };
    if found.meta.size > MANIFEST_LIMIT {
        return Err(Error::Corrupt { path: path.to_string(), reason: format!("{} bytes are too many for this file", found.meta.size) });
    }
    Ok(Some(within(path, found.bytes()).await?.to_vec()))
}

/// A file being read, as it is stored.
pub(super) struct Download {
    path: Path,
    portions: Portions,
    hash: Arc<Mutex<Sha256>>,
}

impl Download {
    pub async fn begin(store: &Store, path: Path) -> Result<Self> {
        let found = match in_time(&path, store.get(&path)).await? {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::Corrupt { path: path.to_string(), reason: "the file is missing".to_owned() });
            }
            Err(error) => return Err(explain(&path, &error)),
        };
        let hash = Arc::new(Mutex::new(Sha256::new()));
        let hashed = Arc::clone(&hash);
        let update = move |portion: &Bytes| hashed.lock().unwrap_or_else(PoisonError::into_inner).update(portion);
        let portions = found.into_stream().inspect_ok(update).map_err(std::io::Error::from);
        Ok(Self { path, portions: portions.boxed(), hash })
    }

    /// The same file, opened where its name says that it is sealed.
    async fn opened(self, store: &Store) -> Result<Self> {
        if !self.path.as_ref().ends_with(SEALED) {
            return Ok(self);
        }
        let Self { path, portions, hash } = self;
        let portions = in_time(&path, store.sealing.open(portions)).await?.map_err(|error| match error {
            DecryptError::Io(error) => explain_io(&path, &error),
            error => store.locked(&path, &error),
        })?;
        Ok(Self { path, portions, hash })
    }

    /// The next bytes; `None` at the end.
    pub async fn portion(&mut self) -> Result<Option<Bytes>> {
        io(&self.path, self.portions.try_next()).await
    }

    /// Compares what was read with what should have been.
    pub fn finish(self, sha256: &str) -> Result<()> {
        let Self { path, hash, .. } = self;
        let found = hex::encode(hash.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize());
        if found == sha256 {
            return Ok(());
        }
        Err(Error::Corrupt { path: path.to_string(), reason: format!("its sha256 is {found}, the manifest says {sha256}") })
    }

    fn corrupt(&self, reason: String) -> Error {
        Error::Corrupt { path: self.path.to_string(), reason }
    }
}

/// The same, unpacked.
pub(super) struct Unpacked {
    download: Download,
    decoder: zstd::stream::write::Decoder<'static, Vec<u8>>,
    /// Compressed bytes that were read and not yet unpacked.
    left: Bytes,
}

/// Compressed bytes that are unpacked at once. What they become is held in memory, up to many thousand times as much.
const SLICE: usize = 4 * 1024;

impl Unpacked {
    pub async fn begin(store: &Store, path: Path) -> Result<Self> {
        let download = Download::begin(store, path).await?.opened(store).await?;
        let decoder = zstd::stream::write::Decoder::new(Vec::new()).map_err(|error| download.corrupt(error.to_string()))?;
        Ok(Self { download, decoder, left: Bytes::new() })
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if self.left.is_empty()
            && let Some(portion) = self.download.portion().await?
        {
            self.left = portion;
        }
        let slice = self.left.split_to(self.left.len().min(SLICE));
        let unpacked = if slice.is_empty() { self.decoder.flush() } else { self.decoder.write_all(&slice) };
        unpacked.map_err(|error| self.download.corrupt(error.to_string()))?;
        let bytes = std::mem::take(self.decoder.get_mut());
        Ok(if slice.is_empty() && bytes.is_empty() { None } else { Some(bytes) })
    }

    pub fn finish(self, sha256: &str) -> Result<()> {
        self.download.finish(sha256)
    }
}

/// What the names of all files of a backup but its manifest end with.
const PLAIN: &str = ".sql.zst";
const SEALED: &str = ".sql.zst.age";

/// Removes files of a backup right below `prefix` that `is_ours` does not know: what an earlier try left, and what whoever restores by
/// hand would run. Nothing else is touched, and nothing in folders below.
pub(super) async fn sweep(store: &Store, prefix: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
    for file in within(prefix, store.list_with_delimiter(Some(prefix))).await?.objects {
        if file.location.filename().is_some_and(|name| (name.ends_with(PLAIN) || name.ends_with(SEALED)) && !is_ours(name)) {
            within(&file.location, store.delete(&file.location)).await?;
        }
    }
    Ok(())
}

/// All files of a store.
pub(super) async fn list(store: &Store) -> Result<Vec<Path>> {
    let (mut listing, mut found) = (store.list(None), Vec::new());
    while let Some(file) = within(&Path::default(), listing.try_next()).await? {
        found.push(file.location);
    }
    Ok(found)
}

/// Asks a store what it holds at `prefix`, to find out whether it answers and lets in who asks.
///
/// # Errors
/// [`Error::Store`]: passing where it does not answer.
pub async fn ask_store(store: &Store, prefix: &Path) -> Result<()> {
    within(prefix, store.list(Some(prefix)).try_next()).await.map(drop)
}

/// Deletes the backup at `prefix`: first its manifest, so that at no instant a backup seems to be there whose files are not, then its
/// files. Where there is nothing, nothing is done. Anything else in the folder stays.
///
/// # Errors
/// [`Error::Store`]; the same call again deletes what is left.
pub async fn forget(store: &Store, prefix: &Path) -> Result<()> {
    for name in [super::manifest::FILE, super::summary::SEALED] {
        let file = prefix.clone().join(name);
        match in_time(&file, store.delete(&file)).await? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(explain(&file, &error)),
        }
    }
    sweep(store, prefix, |_| false).await
}

async fn io<T>(path: &Path, work: impl Future<Output = std::io::Result<T>>) -> Result<T> {
    in_time(path, work).await?.map_err(|error| explain_io(path, &error))
}

fn explain_io(path: &Path, error: &std::io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<object_store::Error>()) {
        Some(inner) => explain(path, inner),
        None if error.kind() == std::io::ErrorKind::InvalidData => Error::Corrupt { path: path.to_string(), reason: error.to_string() },
        None => failed(path, error.to_string(), Class::Transient),
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    failed(path, error.to_string(), Class::Permanent)
}

async fn within<T>(path: &Path, work: impl Future<Output = object_store::Result<T>>) -> Result<T> {
    in_time(path, work).await?.map_err(|error| explain(path, &error))
}

async fn in_time<T>(path: &Path, work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(STORE_TIMEOUT, work)
        .await
        .map_err(|_| failed(path, format!("no answer within {STORE_TIMEOUT:?}"), Class::Transient))
}

/// Says what a store's client says, without its URLs, which may carry a signature, and without the answer, which may be anybody's.
fn explain(path: &Path, error: &object_store::Error) -> Error {
    let said = error.to_string();
    let status = between(&said, "status code: ", ":");
    let code = between(&said, "<Code>", "</Code>");
    let is_refusal = |status: &str| status.starts_with('4') && !["408", "409", "425", "429"].contains(&status.get(..3).unwrap_or_default());
    let class = match error {
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. }
        | object_store::Error::InvalidPath { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::NotImplemented { .. }
        | object_store::Error::UnknownConfigurationKey { .. } => Class::Permanent,
        _ if status.is_some_and(is_refusal) => Class::Permanent,
        _ => Class::Transient,
    };
    let reason = match (status, code) {
        (None, _) => root(error),
        (Some(status), None) => status.to_owned(),
        (Some(status), Some(code)) => format!("{status} ({code})"),
    };
    let remedy = match status.and_then(|status| status.get(..3)) {
        Some("401" | "403") => "; check the store's keys and what they are allowed to do there",
        Some("404") => "; check that the bucket or container is there",
        Some(_) | None => "",
    };
    failed(path, format!("{reason}{remedy}"), class)
}

/// The innermost reason, where no server answered: what stands around it names URLs.
fn root(error: &object_store::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(found, _)| found)
}

fn failed(path: &Path, reason: String, class: Class) -> Error {
    Error::Store { path: path.to_string(), reason, class }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_is_told_without_urls_and_bodies() {
        let path = Path::from("before");
        let told = |text: &str| {
            let error = explain(&path, &object_store::Error::Generic { store: "S3", source: text.into() });
            (error.class(), error.to_string())
        };
        let (class, message) = told(
            "Error performing PUT https://shop.blob.example/b?sig=hush in 1ms - Server returned non-2xx status code: 403 Forbidden: <?xml \
             ?><Error><Code>AuthenticationFailed</Code><Message>hush</Message></Error>",
        );
        let expected =
            "backup store, before: 403 Forbidden (AuthenticationFailed); check the store's keys and what they are allowed to do there";
        assert_eq!((class, message.as_str()), (Class::Permanent, expected));
        let (class, message) = told("Server returned non-2xx status code: 503 Slow Down: hush");
        assert_eq!((class, message.as_str()), (Class::Transient, "backup store, before: 503 Slow Down"));
        assert_eq!(told("Server returned non-2xx status code: 429 Too Many Requests: ").0, Class::Transient);
        assert_eq!(told("connection refused"), (Class::Transient, "backup store, before: connection refused".to_owned()));
    }

    #[tokio::test]
    async fn a_forgotten_backup_leaves_nothing_but_what_is_not_its_own() {
        let store = Store::new(Arc::new(object_store::memory::InMemory::new()));
        let prefix = Path::from("shops/uid/one");
        let names = ["manifest.json", "schema.sql.zst", "t-0.sql.zst", "note.txt", "below/other.sql.zst"];
        for name in names {
            put(&store, &Path::from(format!("{prefix}/{name}")), vec![1]).await.expect("memory can be written");
        }
        for _ in 0..2 {
            forget(&store, &prefix).await.expect("what is gone already is no error");
            let left: Vec<String> =
                store.list(Some(&prefix)).map_ok(|file| file.location.to_string()).try_collect().await.expect("it lists");
            assert_eq!(left, ["shops/uid/one/below/other.sql.zst", "shops/uid/one/note.txt"]);
        }
    }
}
