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

/// A compressed file being written. Nothing is visible in the store before [`Upload::finish`].
pub(super) struct Upload {
    path: Path,
    writer: BufWriter,
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
        Ok(Self { writer: BufWriter::new(Arc::clone(store), path.clone()), path, encoder, hash: Sha256::new(), size: 0 })
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
        io(&self.path, self.writer.shutdown()).await?;
        Ok(Written { sha256: hex::encode(self.hash.finalize()), size: self.size })
    }

    async fn send(&mut self, portion: &[u8]) -> Result<()> {
        self.hash.update(portion);
        self.size += portion.len() as u64;
        io(&self.path, self.writer.write_all(portion)).await
    }
}

/// Writes a small file at once.
pub(super) async fn put(store: &Arc<dyn ObjectStore>, path: &Path, content: Vec<u8>) -> Result<()> {
    within(path, store.put(path, PutPayload::from(content))).await.map(drop)
}

/// Reads a small file; `None` if there is none.
pub(super) async fn get(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Option<Vec<u8>>> {
    let found = match within_raw(path, store.get(path)).await? {
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
        let found = match within_raw(&path, store.get(&path)).await? {
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
        let found = hex::encode(self.hash.finalize());
        if found == sha256 {
            return Ok(());
        }
        Err(Error::Corrupt { path: self.path.to_string(), reason: format!("its sha256 is {found}, the manifest says {sha256}") })
    }
}

async fn io<T>(path: &Path, work: impl Future<Output = std::io::Result<T>>) -> Result<T> {
    match tokio::time::timeout(STORE_TIMEOUT, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(path, error.to_string(), Class::Transient)),
        Err(_) => Err(failed(path, format!("no answer within {STORE_TIMEOUT:?}"), Class::Transient)),
    }
}

async fn within<T>(path: &Path, work: impl Future<Output = object_store::Result<T>>) -> Result<T> {
    within_raw(path, work).await?.map_err(|error| explain(path, &error))
}

async fn within_raw<T>(path: &Path, work: impl Future<Output = object_store::Result<T>>) -> Result<object_store::Result<T>> {
    tokio::time::timeout(STORE_TIMEOUT, work)
        .await
        .map_err(|_| failed(path, format!("no answer within {STORE_TIMEOUT:?}"), Class::Transient))
}

fn explain(path: &Path, error: &object_store::Error) -> Error {
    let class = match error {
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. }
        | object_store::Error::InvalidPath { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::NotImplemented { .. }
        | object_store::Error::UnknownConfigurationKey { .. } => Class::Permanent,
        _ => Class::Transient,
    };
    failed(path, error.to_string(), class)
}

fn failed(path: &Path, reason: String, class: Class) -> Error {
    Error::Store { path: path.to_string(), reason, class }
}
