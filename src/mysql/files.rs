//! The files of a backup without a database: whether they are whole, and as one stream of SQL.

use std::io::Write;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;

use super::error::{Error, Result};
use super::manifest::{Manifest, read_manifest};
use super::store::Download;

/// Reads every file of the backup at `prefix` and compares its digest.
///
/// # Errors
/// [`Error::NoBackup`]; [`Error::Corrupt`], naming the file.
pub async fn verify(store: &Arc<dyn ObjectStore>, prefix: &Path) -> Result<Manifest> {
    let manifest = manifest(store, prefix).await?;
    for file in manifest.files() {
        let mut download = Download::begin(store, prefix.clone().join(file.name.as_str())).await?;
        while download.portion().await?.is_some() {}
        download.finish(&file.sha256)?;
    }
    Ok(manifest)
}

/// Writes the statements of all files in their order: definitions, then rows. Digests are compared file by file, as they are written.
///
/// # Errors
/// As [`verify`]; [`Error::Store`] when `out` can't be written to.
pub async fn export(store: &Arc<dyn ObjectStore>, prefix: &Path, out: &mut impl Write) -> Result<()> {
    let manifest = manifest(store, prefix).await?;
    for file in manifest.files() {
        let path = prefix.clone().join(file.name.as_str());
        let failed =
            |error: std::io::Error| Error::Corrupt { path: path.to_string(), reason: format!("it can't be unpacked and written: {error}") };
        let mut download = Download::begin(store, path.clone()).await?;
        let mut decoder = zstd::stream::write::Decoder::new(&mut *out).map_err(failed)?;
        while let Some(portion) = download.portion().await? {
            decoder.write_all(&portion).map_err(failed)?;
        }
        decoder.flush().map_err(failed)?;
        download.finish(&file.sha256)?;
    }
    Ok(())
}

async fn manifest(store: &Arc<dyn ObjectStore>, prefix: &Path) -> Result<Manifest> {
    read_manifest(store, prefix).await?.ok_or_else(|| Error::NoBackup { prefix: prefix.to_string() })
}
