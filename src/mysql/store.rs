//! Files of a backup: compressed and hashed on their way into the object store, hashed and unpacked on their way out.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::error::Class;

use super::error::{Error, Result};

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

/// A compressed file being written. Nothing is visible in the store before [`Upload::finish`]; one that is dropped before takes back
/// what it sent, as far as it still can.
pub(super) struct Upload {
    path: Path,
    writer: Option<BufWriter>,
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
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
    pub fn begin(store: &Arc<dyn ObjectStore>, path: Path) -> Result<Self> {
        let encoder = zstd::stream::write::Encoder::new(Vec::with_capacity(PORTION * 2), LEVEL)
            .map_err(|error| failed(&path, error.to_string(), Class::Permanent))?;
        let writer = BufWriter::with_capacity(Arc::clone(store), path.clone(), PART).with_max_concurrency(PARTS_UNDER_WAY);
        Ok(Self { writer: Some(writer), path, encoder, hash: Sha256::new(), size: 0 })
    }

    pub async fn write(&mut self, text: &[u8]) -> Result<()> {
        self.encoder.write_all(text).map_err(|error| failed(&self.path, error.to_string(), Class::Permanent))?;
        if self.encoder.get_ref().len() >= PORTION {
            let portion = std::mem::replace(self.encoder.get_mut(), Vec::with_capacity(PORTION * 2));
            self.send(&portion).await?;
        }
        Ok(())
    }

    pub async fn finish(mut self) -> Result<Written> {
        let mut rest = Vec::new();
        self.encoder.flush().map_err(|error| failed(&self.path, error.to_string(), Class::Permanent))?;
        rest.append(self.encoder.get_mut());
        self.encoder.do_finish().map_err(|error| failed(&self.path, error.to_string(), Class::Permanent))?;
        rest.append(self.encoder.get_mut());
        self.send(&rest).await?;
        // What can't be completed is taken back by the writer itself.
        if let Some(mut writer) = self.writer.take() {
            io(&self.path, writer.shutdown()).await?;
        }
        Ok(Written { sha256: hex::encode(std::mem::take(&mut self.hash).finalize()), size: self.size })
    }

    async fn send(&mut self, portion: &[u8]) -> Result<()> {
        self.hash.update(portion);
        self.size += portion.len() as u64;
        match &mut self.writer {
            Some(writer) => io(&self.path, writer.write_all(portion)).await,
            None => Err(failed(&self.path, "the file was ended already".to_owned(), Class::Permanent)),
        }
    }
}

impl Drop for Upload {
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
pub(super) async fn put(store: &Arc<dyn ObjectStore>, path: &Path, content: Vec<u8>) -> Result<()> {
    within(path, store.put(path, PutPayload::from(content))).await.map(drop)
}

/// Reads a small file; `None` if there is none.
pub(super) async fn get(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Option<Vec<u8>>> {
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

/// A compressed file being read.
pub(super) struct Download {
    path: Path,
    portions: futures::stream::BoxStream<'static, object_store::Result<bytes_of::Bytes>>,
    hash: Sha256,
}

mod bytes_of {
    //! The type of a portion, without naming a further crate.
    pub type Bytes = <object_store::PutPayload as IntoIterator>::Item;
}

impl Download {
    pub async fn begin(store: &Arc<dyn ObjectStore>, path: Path) -> Result<Self> {
        let found = match in_time(&path, store.get(&path)).await? {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::Corrupt { path: path.to_string(), reason: "the file is missing".to_owned() });
            }
            Err(error) => return Err(explain(&path, &error)),
        };
        Ok(Self { path, portions: found.into_stream(), hash: Sha256::new() })
    }

    /// The next compressed bytes; `None` at the end.
    pub async fn portion(&mut self) -> Result<Option<bytes_of::Bytes>> {
        let portion = within(&self.path, self.portions.try_next()).await?;
        if let Some(portion) = &portion {
            self.hash.update(portion);
        }
        Ok(portion)
    }

    /// Compares what was read with what should have been.
    pub fn finish(self, sha256: &str) -> Result<()> {
        let Self { path, hash, .. } = self;
        let found = hex::encode(hash.finalize());
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
    left: bytes_of::Bytes,
}

/// Compressed bytes that are unpacked at once. What they become is held in memory, up to many thousand times as much.
const SLICE: usize = 4 * 1024;

impl Unpacked {
    pub async fn begin(store: &Arc<dyn ObjectStore>, path: Path) -> Result<Self> {
        let download = Download::begin(store, path).await?;
        let decoder = zstd::stream::write::Decoder::new(Vec::new()).map_err(|error| download.corrupt(error.to_string()))?;
        Ok(Self { download, decoder, left: bytes_of::Bytes::new() })
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
const ENDING: &str = ".sql.zst";

/// Removes files of a backup right below `prefix` that `is_ours` does not know: what an earlier try left, and what whoever restores by
/// hand would run. Nothing else is touched, and nothing in folders below.
pub(super) async fn sweep(store: &Arc<dyn ObjectStore>, prefix: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
    for file in within(prefix, store.list_with_delimiter(Some(prefix))).await?.objects {
        if file.location.filename().is_some_and(|name| name.ends_with(ENDING) && !is_ours(name)) {
            within(&file.location, store.delete(&file.location)).await?;
        }
    }
    Ok(())
}

/// All files of a store.
pub(super) async fn list(store: &Arc<dyn ObjectStore>) -> Result<Vec<Path>> {
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
pub async fn ask_store(store: &Arc<dyn ObjectStore>, prefix: &Path) -> Result<()> {
    within(prefix, store.list(Some(prefix)).try_next()).await.map(drop)
}

async fn io<T>(path: &Path, work: impl Future<Output = std::io::Result<T>>) -> Result<T> {
    in_time(path, work).await?.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<object_store::Error>()) {
        Some(inner) => explain(path, inner),
        None => failed(path, error.to_string(), Class::Transient),
    })
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
}
