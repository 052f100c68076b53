//! A schema change, as two files of SQL.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One schema change and, where there is one, its way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    pub version: u64,
    pub name: String,
    pub up: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("{0}: a migration is named NNNN_name.up.sql or NNNN_name.down.sql")]
    BadName(String),
    #[error("migration {version:04} stands there twice: {first} and {second}")]
    Twice { version: u64, first: String, second: String },
    #[error("migration {0} has a down script but no up script")]
    OnlyDown(String),
}

impl Migration {
    /// `NNNN_name`, as its files are called.
    pub fn label(&self) -> String {
        format!("{:04}_{}", self.version, self.name)
    }

    /// sha256 of the up script in hex: tells an edited migration from the one that was applied.
    pub fn checksum(&self) -> String {
        hex::encode(Sha256::digest(&self.up))
    }
}

/// Pairs up and down scripts (name and text of each file), ascending by version.
///
/// # Errors
/// The file or migration that is not named as it should be.
pub fn pair(files: Vec<(String, String)>) -> Result<Vec<Migration>, Error> {
    let mut found: BTreeMap<u64, (String, Option<String>, Option<String>)> = BTreeMap::new();
    for (file, text) in files {
        let bad = || Error::BadName(file.clone());
        let (stem, is_up) = match (file.strip_suffix(".up.sql"), file.strip_suffix(".down.sql")) {
            (Some(stem), _) => (stem, true),
            (None, Some(stem)) => (stem, false),
            (None, None) => return Err(bad()),
        };
        let (number, name) = stem.split_once('_').ok_or_else(bad)?;
        let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        // u64 as text has 20 digits; the limit keeps parse from being the judge of what a version is.
        if number.is_empty() || number.len() > 18 || !number.chars().all(|c| c.is_ascii_digit()) || !plain(name) {
            return Err(bad());
        }
        let version: u64 = number.parse().map_err(|_| bad())?;
        let entry = found.entry(version).or_insert_with(|| (name.to_owned(), None, None));
        let place = if is_up { &mut entry.1 } else { &mut entry.2 };
        if entry.0 != name || place.is_some() {
            return Err(Error::Twice { version, first: entry.0.clone(), second: name.to_owned() });
        }
        *place = Some(text);
    }
    found
        .into_iter()
        .map(|(version, (name, up, down))| {
            let up = up.ok_or_else(|| Error::OnlyDown(format!("{version:04}_{name}")))?;
            Ok(Migration { version, name, up, down })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), format!("-- {name}"))).collect()
    }

    #[test]
    fn migrations_are_paired_and_sorted() {
        let found = pair(files(&["0010_b.up.sql", "0002_a.down.sql", "0002_a.up.sql"])).expect("the names are good");
        let shape: Vec<(u64, &str, bool)> = found.iter().map(|m| (m.version, m.name.as_str(), m.down.is_some())).collect();
        assert_eq!(shape, [(2, "a", true), (10, "b", false)]);
    }

    #[test]
    fn a_bad_migration_is_refused_by_name() {
        for (names, message) in [
            (vec!["readme.md"], "readme.md: a migration is named NNNN_name.up.sql or NNNN_name.down.sql"),
            (vec!["x1_a.up.sql"], "x1_a.up.sql: a migration is named NNNN_name.up.sql or NNNN_name.down.sql"),
            (vec!["0001.up.sql"], "0001.up.sql: a migration is named NNNN_name.up.sql or NNNN_name.down.sql"),
            (vec!["0001_a.down.sql"], "migration 0001_a has a down script but no up script"),
            (vec!["0001_a.up.sql", "1_b.up.sql"], "migration 0001 stands there twice: a and b"),
        ] {
            assert_eq!(pair(files(&names)).map_err(|error| error.to_string()), Err(message.to_owned()));
        }
    }
}
