//! What can be told of a backup without its key: enough to list it, to compare its files, and to restore it by hand.
//!
//! Of a backup that is not sealed it is read out of the manifest. Of one that is, it stands in the manifest's place, and the manifest
//! beside it is sealed like the rows: it holds the tables' definitions, literals of their keys, and sums over their values.

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Error, Result};
use super::manifest::{self, File, Head, Manifest};
use super::store::{self, Store};

/// The sealed manifest.
pub(super) const SEALED: &str = "manifest.json.age";

/// How the files of a backup are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encryption {
    #[serde(rename = "age")]
    Age,
}

/// One backup, without anything that only who may read its rows should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    #[serde(flatten)]
    pub head: Head,
    /// Whether all that is not here is sealed.
    pub encryption: Option<Encryption>,
    /// How many there are.
    pub tables: u64,
    pub rows: u64,
    /// In the order in which they can be run.
    pub files: Vec<File>,
    /// The manifest itself, where it is sealed.
    pub manifest: Option<File>,
}

impl Summary {
    /// Bytes of all files that hold definitions and rows.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(super) fn of(manifest: &Manifest) -> Self {
        Self {
            head: manifest.head.clone(),
            encryption: None,
            tables: manifest.tables.len() as u64,
            rows: manifest.rows(),
            files: manifest.files().cloned().collect(),
            manifest: None,
        }
    }
}

/// What can be told of the backup at `prefix`; `None` if there is no complete one.
///
/// # Errors
/// As [`manifest::read_manifest`], but for a missing key.
pub async fn read_summary(store: &Store, prefix: &Path) -> Result<Option<Summary>> {
    let path = prefix.clone().join(manifest::FILE);
    let Some(value) = manifest::document(store, &path).await? else { return Ok(None) };
    if is_sealed(&value) { manifest::parsed(&path, value) } else { manifest::parsed(&path, value).map(|manifest| Summary::of(&manifest)) }
        .map(Some)
}

pub(super) fn is_sealed(value: &Value) -> bool {
    value.get("encryption").is_some_and(|encryption| !encryption.is_null())
}

/// Writes the manifest sealed, and then what can be told of it in its place.
pub(super) async fn write_sealed(store: &Store, prefix: &Path, manifest: &Manifest) -> Result<Summary> {
    let path = prefix.clone().join(SEALED);
    let written = store::put_sealed(store, &path, &manifest::text(&path, manifest)?).await?;
    let file = File { name: SEALED.to_owned(), bytes: written.size, sha256: written.sha256 };
    let mut summary = Summary { encryption: Some(Encryption::Age), manifest: Some(file), ..Summary::of(manifest) };
    let path = prefix.clone().join(manifest::FILE);
    summary.head.digest = manifest::digest(manifest::value(&path, &summary)?);
    store::put(store, &path, manifest::text(&path, &summary)?).await?;
    Ok(summary)
}

/// Opens the manifest that `summary` (of a sealed backup) names.
pub(super) async fn open(store: &Store, prefix: &Path, summary: Summary) -> Result<Value> {
    let corrupt = |reason: &str| Error::Corrupt { path: prefix.to_string(), reason: reason.to_owned() };
    let file = summary.manifest.ok_or_else(|| corrupt("it is sealed and names no sealed manifest"))?;
    let path = prefix.clone().join(file.name.as_str());
    let content = store::get_sealed(store, &path, &file.sha256).await?;
    manifest::checked(&path, &content)
}
