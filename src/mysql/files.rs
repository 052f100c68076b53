//! The files of a backup without a database: whether they are whole, and as one stream of SQL.

use std::io::Write;

use object_store::path::Path;

use super::error::{Error, Result};
use super::manifest::{FILE, File, Manifest, read_manifest};
use super::store::{self, Download, Store, Unpacked};
use super::summary::{Summary, read_summary};

/// Reads every file of the backup at `prefix` and compares its digest, which is that of the file as it is stored: for that a sealed one
/// needs no key.
///
/// # Errors
/// [`Error::NoBackup`]; [`Error::Corrupt`], naming the file.
pub async fn verify(store: &Store, prefix: &Path) -> Result<Summary> {
    let summary = read_summary(store, prefix).await?.ok_or_else(|| Error::NoBackup { prefix: prefix.to_string() })?;
    for file in summary.files.iter().chain(&summary.manifest) {
        whole(store, prefix, file).await?;
    }
    Ok(summary)
}

/// Writes the statements of all files in their order: definitions, then rows. Digests are compared file by file, as they are written.
///
/// # Errors
/// As [`verify`]; [`Error::Output`] when `out` can't be written to.
pub async fn export(store: &Store, prefix: &Path, out: &mut impl Write) -> Result<()> {
    for file in complete(store, prefix).await?.files() {
        let mut unpacked = Unpacked::begin(store, prefix.clone().join(file.name.as_str())).await?;
        while let Some(bytes) = unpacked.next().await? {
            out.write_all(&bytes).map_err(|error| Error::Output { reason: error.to_string() })?;
        }
        unpacked.finish(&file.sha256)?;
    }
    out.flush().map_err(|error| Error::Output { reason: error.to_string() })
}

/// Where in the store complete backups lie, in no order.
///
/// # Errors
/// [`Error::Store`].
pub async fn points(store: &Store) -> Result<Vec<Path>> {
    let folder = |file: Path| (file.filename() == Some(FILE)).then(|| Path::from_iter(file.parts().take(file.parts_count() - 1)));
    Ok(store::list(store).await?.into_iter().filter_map(folder).collect())
}

/// The manifest of a backup that is there.
pub(super) async fn complete(store: &Store, prefix: &Path) -> Result<Manifest> {
    read_manifest(store, prefix).await?.ok_or_else(|| Error::NoBackup { prefix: prefix.to_string() })
}

/// Reads one file to its end and compares its digest.
pub(super) async fn whole(store: &Store, prefix: &Path, file: &File) -> Result<()> {
    let mut download = Download::begin(store, prefix.clone().join(file.name.as_str())).await?;
    while download.portion().await?.is_some() {}
    download.finish(&file.sha256)
}
