//! What a backup consists of. Written last: a backup without a manifest does not exist, whatever else lies at its prefix.

use std::collections::BTreeMap;

use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::checksum::TableSum;
use super::chunk::Range;
use super::error::{Error, Result};
use super::granted::Granted;
use super::sequence::Sequence;
use super::store::{self, Store};
use super::stored::StoredObject;
use super::summary::{self, Summary};
use super::views::Agreement;

/// Raised when an older engine could not load the files any more.
const FORMAT: u32 = 4;
/// The oldest that this engine reads. Up to it there are no stored objects and up to 3 no sequences, since a schema with any was refused.
const OLDEST: u32 = 2;
pub(super) const FILE: &str = "manifest.json";
/// The field that is left out of its own digest.
const DIGEST: &str = "digest";

/// What may be told of a backup to whoever sees its store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub format: u32,
    /// sha256 of the canonical JSON of the file that this stands in, without this field: keys sorted, no spaces.
    pub digest: String,
    /// The backup point's name.
    pub point: String,
    /// The operation that took it.
    pub operation: String,
    /// The release number that was live.
    pub release: u64,
    /// The schema it was taken of, its default character set and collation.
    pub database: String,
    pub charset: String,
    pub collation: String,
    pub server_version: String,
    /// The instant of the snapshot by the server's clock, RFC 3339 in UTC.
    pub taken_at: String,
    /// The instant in the binary log, if the server writes one.
    pub position: Option<Position>,
    /// How it was made sure that all of it is of that instant.
    pub agreement: Agreement,
    /// The highest applied migration.
    pub schema_version: Option<u64>,
    /// All of them, ascending; `None` in backups from before this was recorded.
    #[serde(default)]
    pub migrations: Option<Vec<u64>>,
}

/// One consistent copy of a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    #[serde(flatten)]
    pub head: Head,
    /// The file with all definitions.
    pub schema: File,
    /// By name.
    #[serde(default)]
    pub sequences: Vec<Sequence>,
    /// By name.
    pub tables: Vec<Table>,
    /// The file that makes the stored objects, for those who restore by hand; `None` if there are none.
    #[serde(default)]
    pub stored: Option<File>,
    /// Views, triggers, routines and events, in the order in which they can be made.
    #[serde(default)]
    pub objects: Vec<StoredObject>,
    /// Who may do what, as far as the account that took it may see that; for people.
    #[serde(default)]
    pub grants: Vec<Granted>,
}

/// A place in the server's binary log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub file: String,
    pub offset: u64,
    pub gtid: Option<String>,
}

/// A compressed file of SQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Below the backup's prefix.
    pub name: String,
    /// Compressed bytes.
    pub bytes: u64,
    /// Of the compressed file.
    pub sha256: String,
}

/// A table of the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    /// `SHOW CREATE TABLE`, `AUTO_INCREMENT` included.
    pub definition: String,
    /// The primary key's columns; empty without one.
    pub key: Vec<String>,
    /// Together all rows, each in one of them; in the order of the key.
    pub chunks: Vec<Chunk>,
    /// The longest statement in the files and the longest value, in bytes: `max_allowed_packet` must be at least as large to load it.
    pub longest_statement: u64,
    pub longest_value: u64,
}

/// Some rows of a table, in a file of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    #[serde(flatten)]
    pub range: Range,
    /// Rows and checksum, by the server, as the rows were read.
    #[serde(flatten)]
    pub sum: TableSum,
    pub file: File,
}

impl Table {
    /// Rows and checksum of all chunks.
    pub fn sum(&self) -> TableSum {
        self.chunks.iter().map(|chunk| chunk.sum).sum()
    }
}

impl Manifest {
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.sum().rows).sum()
    }

    /// All files but the manifest itself.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        let rows = self.tables.iter().flat_map(|table| &table.chunks).map(|chunk| &chunk.file);
        std::iter::once(&self.schema).chain(rows).chain(&self.stored)
    }

    /// Compressed bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    pub(super) const FORMAT: u32 = FORMAT;

    /// Writes the manifest with its digest, and returns what can be told of it.
    pub(super) async fn write(mut self, store: &Store, prefix: &Path) -> Result<Summary> {
        let path = prefix.clone().join(FILE);
        self.head.digest = digest(value(&path, &self)?);
        if store.is_sealed() {
            return summary::write_sealed(store, prefix, &self).await;
        }
        store::put(store, &path, text(&path, &self)?).await?;
        Ok(Summary::of(&self))
    }
}

/// The manifest at `prefix`; `None` if there is no complete backup.
///
/// # Errors
/// [`Error::Corrupt`] when it can't be read, its digest is wrong or a newer engine wrote it; [`Error::Locked`] when it is sealed and the
/// store has not the key.
pub async fn read_manifest(store: &Store, prefix: &Path) -> Result<Option<Manifest>> {
    let path = prefix.clone().join(FILE);
    let Some(value) = document(store, &path).await? else { return Ok(None) };
    let value = if summary::is_sealed(&value) { summary::open(store, prefix, parsed(&path, value)?).await? } else { value };
    parsed(&path, value).map(Some)
}

/// What `manifest.json` says, its digest compared.
pub(super) async fn document(store: &Store, path: &Path) -> Result<Option<Value>> {
    match store::get(store, path).await? {
        Some(content) => checked(path, &content).map(Some),
        None => Ok(None),
    }
}

pub(super) fn checked(path: &Path, content: &[u8]) -> Result<Value> {
    let corrupt = |reason: String| Error::Corrupt { path: path.to_string(), reason };
    let value: Value = serde_json::from_slice(content).map_err(|error| corrupt(error.to_string()))?;
    if let Some(format) = value.get("format").and_then(Value::as_u64)
        && !(u64::from(OLDEST)..=u64::from(FORMAT)).contains(&format)
    {
        return Err(corrupt(format!("its format is {format}, this version reads {OLDEST} to {FORMAT}")));
    }
    let (found, said) = (digest(value.clone()), value.get(DIGEST).and_then(Value::as_str).unwrap_or_default());
    if said != found {
        return Err(corrupt(format!("its digest is {found}, it says {said}")));
    }
    Ok(value)
}

pub(super) fn parsed<T: DeserializeOwned>(path: &Path, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| Error::Corrupt { path: path.to_string(), reason: error.to_string() })
}

pub(super) fn value(path: &Path, manifest: &impl Serialize) -> Result<Value> {
    serde_json::to_value(manifest).map_err(|error| Error::Corrupt { path: path.to_string(), reason: error.to_string() })
}

pub(super) fn text(path: &Path, manifest: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(manifest).map_err(|error| Error::Corrupt { path: path.to_string(), reason: error.to_string() })
}

pub(super) fn digest(mut manifest: Value) -> String {
    if let Value::Object(fields) = &mut manifest {
        fields.remove(DIGEST);
    }
    let mut text = String::new();
    canonical(&manifest, &mut text);
    hex::encode(Sha256::digest(text))
}

/// Keys sorted here, since whether `serde_json` sorts them depends on what other crates ask of it.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            text.push('{');
            for (index, (key, value)) in fields.iter().collect::<BTreeMap<_, _>>().into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(value, text);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_depends_on_the_content_only() {
        let parse = |text: &str| digest(serde_json::from_str(text).expect("the test's JSON is valid"));
        let one = parse(r#"{"b": [1, {"y": null, "x": "ü\n"}], "a": true, "digest": "old"}"#);
        assert_eq!(one, parse(r#"{"a":true,"digest":"","b":[1,{"x":"ü\n","y":null}]}"#));
        assert_ne!(one, parse(r#"{"a":true,"b":[1,{"x":"ü\n","y":0}]}"#));
    }
}
