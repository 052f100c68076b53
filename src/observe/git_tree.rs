//! From a folder in a commit to a release's content. Reads objects of the mirror only: the same tree always gives the same.
//!
//! What stands in a repository is written by others: every name, size and number is checked before it is used.

use std::path::Path;

use git2::{ErrorCode, ObjectType, Oid, Repository, Tree, TreeEntry};

use super::manifest;
use crate::api::Content;

/// `release.yaml` and each migration; larger ones are data, not a description.
const LARGEST_FILE: usize = 512 * 1024;
/// Each version has an up and a down script. More of them are not a schema's history but a mistake, and each costs a read.
const MOST_FILES: usize = 4_096;
const MANIFEST: &str = "release.yaml";
/// git's file modes.
const SYMBOLIC_LINK: i32 = 0o120_000;
const SUBMODULE: i32 = 0o160_000;

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("it is absolute: write it from the folder that it is in")]
    Absolute,
    #[error("it leaves the folder by \"..\"")]
    Outside,
    #[error("it has a control character")]
    Control,
    #[error("there is no such folder")]
    Missing,
    #[error("it leads through a file")]
    File,
    #[error("it leads through a symbolic link, which is not followed")]
    Link,
    #[error("it leads through a submodule, which is not fetched")]
    Submodule,
}

/// What is wrong with the release in a folder. Without the revision, so that it can be remembered with the tree.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReleaseError {
    #[error("there is no release.yaml; add it or correct spec.source.git.path")]
    NoManifest,
    #[error("{0:?} is not a file; symbolic links and submodules are not followed")]
    NotFile(String),
    #[error("{0:?} has more than {LARGEST_FILE} bytes: move data out of it")]
    LargeFile(String),
    #[error("{0:?} is not UTF-8 text")]
    NotText(String),
    #[error("release.yaml names the folder {path:?} for its migrations: {problem}")]
    Migrations { path: String, problem: PathError },
    #[error("folder {folder:?} has more than {MOST_FILES} migration files: join old ones into one")]
    ManyFiles { folder: String },
    #[error("the migrations in {folder:?} come to more than {} bytes: move data out of them", manifest::LARGEST_RELEASE)]
    MuchText { folder: String },
    #[error(transparent)]
    Invalid(#[from] manifest::Error),
}

/// Why something could not be read out of the mirror.
#[derive(Debug)]
pub enum Stop<E> {
    /// What git holds is no good.
    Refused(E),
    /// The mirror itself is: an object that must be there is not, or not whole.
    Corrupt(git2::Error),
}

/// The tree below `path`. Every part must be a tree.
pub fn below<'a>(repository: &'a Repository, mut tree: Tree<'a>, path: &str) -> Result<Tree<'a>, Stop<PathError>> {
    for part in parts(path).map_err(Stop::Refused)? {
        let id = match tree.get_name(part) {
            None => return Err(Stop::Refused(PathError::Missing)),
            Some(entry) => match (entry.filemode(), entry.kind()) {
                (SYMBOLIC_LINK, _) => return Err(Stop::Refused(PathError::Link)),
                (SUBMODULE, _) => return Err(Stop::Refused(PathError::Submodule)),
                (_, Some(ObjectType::Tree)) => entry.id(),
                (_, _) => return Err(Stop::Refused(PathError::File)),
            },
        };
        tree = repository.find_tree(id).map_err(Stop::Corrupt)?;
    }
    Ok(tree)
}

/// The names that a path is made of.
fn parts(path: &str) -> Result<Vec<&str>, PathError> {
    // libgit2 takes names as C strings: a NUL would end the process.
    if path.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    if path.starts_with('/') {
        return Err(PathError::Absolute);
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") { Err(PathError::Outside) } else { Ok(parts) }
}

/// Reads the release in `folder`.
pub fn read(repository: &Repository, folder: &Tree<'_>) -> Result<Content, Stop<ReleaseError>> {
    let entry = folder.get_name(MANIFEST).ok_or(Stop::Refused(ReleaseError::NoManifest))?;
    let manifest = manifest::parse(&text(repository, &entry, MANIFEST)?).map_err(|error| Stop::Refused(error.into()))?;
    let files = match &manifest.migrations {
        Some(path) => migrations(repository, folder, path)?,
        None => Vec::new(),
    };
    manifest::assemble(manifest, files).map_err(|error| Stop::Refused(error.into()))
}

/// Name and text of each script in the folder.
fn migrations(repository: &Repository, folder: &Tree<'_>, path: &str) -> Result<Vec<(String, String)>, Stop<ReleaseError>> {
    let tree = below(repository, folder.clone(), path).map_err(|stop| match stop {
        Stop::Refused(problem) => Stop::Refused(ReleaseError::Migrations { path: path.to_owned(), problem }),
        Stop::Corrupt(error) => Stop::Corrupt(error),
    })?;
    let (mut files, mut weight) = (Vec::new(), 0);
    for entry in &tree {
        let bytes = entry.name_bytes();
        // A README beside the scripts is no migration; a misspelt script must not be passed over.
        if !Path::new(&*String::from_utf8_lossy(bytes)).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
            continue;
        }
        let file =
            std::str::from_utf8(bytes).map_err(|_| Stop::Refused(ReleaseError::NotText(String::from_utf8_lossy(bytes).into_owned())))?;
        if files.len() == MOST_FILES {
            return Err(Stop::Refused(ReleaseError::ManyFiles { folder: path.to_owned() }));
        }
        let text = text(repository, &entry, file)?;
        weight += text.len();
        // Checked here too, so that no more than this is ever held.
        if weight > manifest::LARGEST_RELEASE {
            return Err(Stop::Refused(ReleaseError::MuchText { folder: path.to_owned() }));
        }
        files.push((file.to_owned(), text));
    }
    Ok(files)
}

fn text(repository: &Repository, entry: &TreeEntry<'_>, file: &str) -> Result<String, Stop<ReleaseError>> {
    if entry.kind() != Some(ObjectType::Blob) || entry.filemode() == SYMBOLIC_LINK {
        return Err(Stop::Refused(ReleaseError::NotFile(file.to_owned())));
    }
    let bytes = blob(repository, entry.id()).map_err(Stop::Corrupt)?;
    let bytes = bytes.ok_or_else(|| Stop::Refused(ReleaseError::LargeFile(file.to_owned())))?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) | Err(_) => Err(Stop::Refused(ReleaseError::NotText(file.to_owned()))),
    }
}

/// The bytes of a blob, unless they are too many: the size is asked for first.
fn blob(repository: &Repository, id: Oid) -> Result<Option<Vec<u8>>, git2::Error> {
    let (size, kind) = repository.odb()?.read_header(id)?;
    if kind != ObjectType::Blob {
        return Err(git2::Error::new(ErrorCode::Invalid, git2::ErrorClass::Odb, format!("object {id} is not a blob")));
    }
    if size > LARGEST_FILE {
        return Ok(None);
    }
    Ok(Some(repository.find_blob(id)?.content().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside() {
        for (path, expected) in [
            ("", Ok(vec![])),
            (".", Ok(vec![])),
            ("a/./b//c/", Ok(vec!["a", "b", "c"])),
            ("a..b/...", Ok(vec!["a..b", "..."])),
            ("/a", Err(PathError::Absolute)),
            ("a/../b", Err(PathError::Outside)),
            ("..", Err(PathError::Outside)),
            ("a\0b", Err(PathError::Control)),
            ("a\nb", Err(PathError::Control)),
        ] {
            assert_eq!(parts(path), expected, "{path:?}");
        }
    }
}
