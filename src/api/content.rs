//! A release as content: what `release.yaml` and its migrations come to. Its digest is its identity.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Migration;

/// `release.yaml` as it stands in git.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: String,
    #[serde(default)]
    pub images: BTreeMap<String, String>,
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    #[serde(default)]
    pub secrets: BTreeSet<String>,
    /// Folder beside `release.yaml` with `NNNN_name.up.sql` and `NNNN_name.down.sql`.
    pub migrations: Option<String>,
}

/// One complete deployable state. Every part takes part in [`Content::digest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    pub version: String,
    /// Image by container name.
    pub images: BTreeMap<String, String>,
    /// Environment variables by name.
    pub config: BTreeMap<String, String>,
    /// Names of Secrets whose keys become environment variables.
    pub secrets: BTreeSet<String>,
    /// Ascending by version, versions unique.
    pub migrations: Vec<Migration>,
}

/// A release as its `ControllerRevision` keeps it: everything needed to go back to it, even without git.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    pub content: Content,
    pub revision: String,
    /// Keys of each Secret that the release names, as they were when it was kept.
    pub secret_keys: BTreeMap<String, Vec<String>>,
}

impl Content {
    /// `sha256:<hex>` of the canonical JSON: struct fields in their fixed order, maps sorted, no white space.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).expect("strings and integers always serialise");
        format!("sha256:{}", hex::encode(Sha256::digest(json)))
    }
}
