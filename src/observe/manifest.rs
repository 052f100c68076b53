//! From `release.yaml` and the files beside it, or from `spec.release`, to a release's content. Pure.

use crate::api::{Content, content::Manifest, migration, release::InlineRelease};

/// What a release may weigh: it must fit into one ControllerRevision, and etcd refuses objects above 1.5 MB.
pub const LARGEST_RELEASE: usize = 900 * 1024;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("release.yaml can't be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Migrations(#[from] migration::Error),
    #[error("config key {0:?} can't be an environment variable: use letters, digits and _")]
    BadKey(String),
    #[error("{field} {value:?} can't be the name of an object")]
    BadObjectName { field: &'static str, value: String },
    #[error("version is empty")]
    NoVersion,
    #[error("image of container {0:?} is empty")]
    NoImage(String),
    #[error("the release weighs {0} bytes, more than {LARGEST_RELEASE}: move data out of the migrations")]
    TooLarge(usize),
}

/// Reads `release.yaml`. Unknown fields, duplicate keys and alias bombs are refused.
pub fn parse(yaml: &str) -> Result<Manifest, Error> {
    serde_saphyr::from_str(yaml).map_err(|error| {
        // The first line says what and where; the rest draws the place in the file, which a condition can't show.
        let text = error.to_string();
        Error::Unreadable(text.lines().next().unwrap_or("not YAML").to_owned())
    })
}

/// Puts a manifest and its migration files (name, text) together.
pub fn assemble(manifest: Manifest, files: Vec<(String, String)>) -> Result<Content, Error> {
    let Manifest { version, images, config, secrets, migrations: _ } = manifest;
    checked(Content { version, images, config, secrets, migrations: migration::pair(files)? })
}

/// The content of a release that is written into the Release itself.
pub fn inline(release: &InlineRelease) -> Result<Content, Error> {
    let InlineRelease { version, images, config, secrets, migrations: inline } = release;
    let mut files = Vec::new();
    for migration in inline {
        files.push((format!("{}.up.sql", migration.name), migration.up.clone()));
        if let Some(down) = &migration.down {
            files.push((format!("{}.down.sql", migration.name), down.clone()));
        }
    }
    checked(Content {
        version: version.clone(),
        images: images.clone(),
        config: config.clone(),
        secrets: secrets.clone(),
        migrations: migration::pair(files)?,
    })
}

fn checked(content: Content) -> Result<Content, Error> {
    if content.version.trim().is_empty() {
        return Err(Error::NoVersion);
    }
    if let Some((container, _)) = content.images.iter().find(|(_, image)| image.trim().is_empty()) {
        return Err(Error::NoImage(container.clone()));
    }
    if let Some(key) = content.config.keys().find(|key| !is_variable(key)) {
        return Err(Error::BadKey(key.clone()));
    }
    if let Some(name) = content.secrets.iter().find(|name| !is_object_name(name)) {
        return Err(Error::BadObjectName { field: "secret", value: name.clone() });
    }
    let weight = serde_json::to_vec(&content).map_or(0, |json| json.len());
    if weight > LARGEST_RELEASE {
        return Err(Error::TooLarge(weight));
    }
    Ok(content)
}

fn is_variable(key: &str) -> bool {
    !key.starts_with(|c: char| c.is_ascii_digit()) && !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_object_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_manifest_is_refused_by_field() {
        for (yaml, part) in [
            ("version: 1.0.0\nimagse: {}\n", "imagse"),
            ("- a\n- b\n", "release.yaml can't be read"),
            ("version: [", "release.yaml can't be read"),
            ("images: {}\n", "version"),
            ("version: 1.0.0\nversion: 1.0.1\n", "duplicate"),
        ] {
            let error = parse(yaml).expect_err(yaml).to_string();
            assert!(error.contains(part), "{yaml:?}: {error}");
        }
    }

    #[test]
    fn content_has_one_digest_whatever_the_order_it_is_written_in() {
        let digest = |yaml: &str| {
            let manifest = parse(yaml).expect("the table holds valid manifests");
            assemble(manifest, Vec::new()).expect("the table holds valid releases").digest()
        };
        let one = digest("version: 1.0.0\nconfig: {A: '1', B: '2'}\n");
        assert_eq!(one, digest("config:\n  B: '2'\n  A: '1'\nversion: 1.0.0\n"));
        assert_ne!(one, digest("version: 1.0.0\nconfig: {A: '1', B: '3'}\n"));
    }
}
