//! Git as a source: one bare mirror for each repository and credential, one fetch for all Releases that use it.
//!
//! libgit2 blocks, so everything with a repository runs on a blocking thread and returns plain data. A mirror that hangs
//! holds only its own lock: Releases of other repositories go on.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use git2::{AutotagOption, Commit, ErrorClass, ErrorCode, FetchOptions, FetchPrune, ObjectType, Oid, Repository, Tree};
use sha2::{Digest, Sha256};
use tokio::{runtime::Handle, sync::OwnedMutexGuard};

use super::{git_http::Connection, manifest};
use crate::{
    access::GitAccess,
    api::{
        Content,
        release::{GitRef, GitSource},
    },
};

/// One fetch in all. A larger repository goes on where it was cut off at the next look.
const FETCH_DEADLINE: Duration = Duration::from_secs(120);
/// `release.yaml` and each migration; larger ones are data, not a description.
const LARGEST_FILE: usize = 512 * 1024;
const MANIFEST: &str = "release.yaml";
/// git's file mode of a symbolic link: its blob is a path, not a text.
const SYMBOLIC_LINK: i32 = 0o120_000;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("{url} could not be reached: {detail}; check spec.source.git.url and the network")]
    Unreachable { url: String, detail: String },
    #[error("{url} did not answer within {} s", FETCH_DEADLINE.as_secs())]
    TimedOut { url: String },
    #[error("{url} refused the credentials; check the Secret that spec.source.git.secretRef names")]
    AuthFailed { url: String },
    #[error(
        "{url} shows a certificate that can't be trusted: {detail}; put the CA into key ca.crt of the Secret that spec.source.git.secretRef names"
    )]
    Untrusted { url: String, detail: String },
    #[error("there is no repository at {url}, or the credentials may not see it; check spec.source.git.url")]
    NoRepository { url: String },
    #[error("spec.source.git.url has credentials in it; move them to the Secret that spec.source.git.secretRef names")]
    CredentialsInUrl,
    #[error("{url} has no {reference}; check spec.source.git.ref")]
    NoRef { url: String, reference: String },
    #[error("{revision} has no folder {path:?}; check spec.source.git.path")]
    NoPath { revision: String, path: String },
    #[error("{revision}, folder {path:?}: {source}")]
    Release { revision: String, path: String, source: ReleaseError },
    #[error("the git mirror in {dir}: {detail}")]
    Mirror { dir: String, detail: String },
}

impl Error {
    /// CamelCase, for a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Mirror { .. } => "SourceUnavailable",
            Self::AuthFailed { .. } | Self::Untrusted { .. } | Self::CredentialsInUrl => "SourceAccessDenied",
            Self::NoRepository { .. } | Self::NoRef { .. } | Self::NoPath { .. } => "SourceNotFound",
            Self::Release { .. } => "InvalidRelease",
        }
    }

    /// Whether looking again can help without anybody changing anything.
    pub fn is_passing(&self) -> bool {
        self.reason() == "SourceUnavailable"
    }
}

/// What is wrong with the release in a folder. Without the revision, so that it can be remembered with the tree.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReleaseError {
    #[error("there is no release.yaml; add it or correct spec.source.git.path")]
    NoManifest,
    #[error("{0} is not a text file of at most {LARGEST_FILE} bytes")]
    BadFile(String),
    #[error("release.yaml names the folder {0:?} for its migrations, but there is none beside it")]
    NoMigrations(String),
    #[error(transparent)]
    Invalid(#[from] manifest::Error),
}

/// What a reference resolves to.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub content: Arc<Content>,
    /// `main@sha1:<40 hex>`.
    pub revision: String,
    /// Author and subject of the commit.
    pub cause: String,
}

/// Whether a copy that was fetched a moment ago will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Fetched within this time.
    Within(Duration),
    /// Look at the server now.
    Now,
}

/// All mirrors, below one folder.
pub struct Mirrors {
    dir: PathBuf,
    known: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Mirror>>>>,
}

/// One repository as one credential sees it.
#[derive(Default)]
struct Mirror {
    fetched: Option<Instant>,
    /// The last releases read, by the id of the folder they were read from: the same tree is not read twice.
    read: HashMap<Oid, Result<Arc<Content>, ReleaseError>>,
}

/// Trees remembered for one mirror: one for each Release of the repository, and some history.
const TREES_KEPT: usize = 4_096;

impl Mirrors {
    /// Prepares the folder.
    pub fn new(dir: PathBuf) -> Result<Self, Error> {
        std::fs::create_dir_all(&dir).map_err(|error| Error::Mirror { dir: dir.display().to_string(), detail: error.to_string() })?;
        Ok(Self { dir, known: Mutex::new(HashMap::new()) })
    }

    /// Resolves the source's reference and reads the release in its folder.
    pub async fn resolve(&self, source: &GitSource, access: GitAccess, freshness: Freshness) -> Result<Resolved, Error> {
        let url =
            url::Url::parse(&source.url).map_err(|error| Error::Unreachable { url: source.url.clone(), detail: error.to_string() })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::CredentialsInUrl);
        }
        let key = key(&source.url, &access);
        let mirror = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(key.clone()).or_default())
        };
        let (dir, source) = (self.dir.join(&key), source.clone());
        let timed_out = Error::TimedOut { url: source.url.clone() };
        let work = async {
            let guard = mirror.lock_owned().await;
            // The guard goes along: a fetch that outlives the deadline still keeps others from the same folder.
            tokio::task::spawn_blocking(move || look(&dir, guard, &source, &access, freshness)).await
        };
        match tokio::time::timeout(FETCH_DEADLINE, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(stopped)) => Err(Error::Mirror { dir: key, detail: stopped.to_string() }),
            Err(_) => Err(timed_out),
        }
    }
}

fn look(
    dir: &Path,
    mut mirror: OwnedMutexGuard<Mirror>,
    source: &GitSource,
    access: &GitAccess,
    freshness: Freshness,
) -> Result<Resolved, Error> {
    let repository = open(dir)?;
    let fresh = match (freshness, mirror.fetched) {
        (Freshness::Within(age), Some(fetched)) => fetched.elapsed() < age,
        (Freshness::Within(_), None) | (Freshness::Now, _) => false,
    };
    if !fresh {
        fetch(&repository, &source.url, access)?;
        mirror.fetched = Some(Instant::now());
    }
    let (commit, name) = find(&repository, source)?;
    let revision = if name.is_empty() { format!("sha1:{}", commit.id()) } else { format!("{name}@sha1:{}", commit.id()) };
    let folder = commit
        .tree()
        .ok()
        .and_then(|root| below(&repository, root, &source.path))
        .ok_or_else(|| Error::NoPath { revision: revision.clone(), path: source.path.clone() })?;
    if mirror.read.len() > TREES_KEPT {
        mirror.read.clear();
    }
    let content = mirror
        .read
        .entry(folder.id())
        .or_insert_with(|| read(&repository, &folder).map(Arc::new))
        .clone()
        .map_err(|error| Error::Release { revision: revision.clone(), path: source.path.clone(), source: error })?;
    Ok(Resolved { content, revision, cause: cause(&commit) })
}

/// Opens the bare mirror, or makes it.
fn open(dir: &Path) -> Result<Repository, Error> {
    let fail = |error: git2::Error| Error::Mirror { dir: dir.display().to_string(), detail: error.message().to_owned() };
    match Repository::open_bare(dir) {
        Ok(repository) => Ok(repository),
        Err(error) if error.code() == ErrorCode::NotFound => Repository::init_bare(dir).map_err(fail),
        Err(error) => Err(fail(error)),
    }
}

/// Makes the mirror's branches and tags equal to the server's, also after a force-push.
fn fetch(repository: &Repository, url: &str, access: &GitAccess) -> Result<(), Error> {
    let fail = |error: git2::Error| explain(url, &error);
    let connection = Connection::new(access, Handle::current()).map_err(|detail| Error::Untrusted { url: url.to_owned(), detail })?;
    let mut options = FetchOptions::new();
    options.prune(FetchPrune::On).download_tags(AutotagOption::None);
    let mut remote = repository.remote_anonymous(url).map_err(fail)?;
    let refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
    connection.during(|| remote.fetch(&refspecs, Some(&mut options), None)).and_then(|fetched| fetched).map_err(fail)
}

fn explain(url: &str, error: &git2::Error) -> Error {
    let (url, detail) = (url.to_owned(), error.message().to_owned());
    match (error.code(), error.class()) {
        (ErrorCode::Auth, _) => Error::AuthFailed { url },
        (ErrorCode::Certificate, _) | (_, ErrorClass::Ssl) => Error::Untrusted { url, detail },
        (ErrorCode::NotFound, _) => Error::NoRepository { url },
        _ => Error::Unreachable { url, detail },
    }
}

/// The commit that the reference names, and the name to show.
fn find<'a>(repository: &'a Repository, source: &GitSource) -> Result<(Commit<'a>, String), Error> {
    let GitRef { branch, tag, commit } = &source.reference;
    let (lookup, shown, name) = match (branch, tag, commit) {
        (Some(branch), _, _) => (format!("refs/heads/{branch}"), format!("branch {branch}"), branch.clone()),
        (None, Some(tag), _) => (format!("refs/tags/{tag}"), format!("tag {tag}"), tag.clone()),
        (None, None, Some(commit)) => (commit.clone(), format!("commit {commit}"), String::new()),
        (None, None, None) => (String::new(), "reference".to_owned(), String::new()),
    };
    let missing = |_| Error::NoRef { url: source.url.clone(), reference: shown.clone() };
    let object = match Oid::from_str(&lookup) {
        Ok(id) if commit.is_some() => repository.find_object(id, None),
        Ok(_) | Err(_) => repository.find_reference(&lookup).and_then(|reference| reference.peel(ObjectType::Commit)),
    };
    let commit = object.and_then(|object| object.peel_to_commit()).map_err(missing)?;
    Ok((commit, name))
}

/// The tree below `path`. Every part must be a tree: symbolic links and submodules are not followed.
fn below<'a>(repository: &'a Repository, mut tree: Tree<'a>, path: &str) -> Option<Tree<'a>> {
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let id = tree.get_name(part).filter(|entry| entry.kind() == Some(ObjectType::Tree))?.id();
        tree = repository.find_tree(id).ok()?;
    }
    Some(tree)
}

fn read(repository: &Repository, folder: &Tree<'_>) -> Result<Content, ReleaseError> {
    if folder.get_name(MANIFEST).is_none() {
        return Err(ReleaseError::NoManifest);
    }
    let manifest = manifest::parse(&text(repository, folder, MANIFEST)?)?;
    let mut files = Vec::new();
    if let Some(name) = &manifest.migrations {
        let tree = below(repository, folder.clone(), name).ok_or_else(|| ReleaseError::NoMigrations(name.clone()))?;
        for entry in &tree {
            let file = String::from_utf8_lossy(entry.name_bytes()).into_owned();
            // A README beside the scripts is no migration; a misspelt script must not be passed over.
            if Path::new(&file).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
                files.push((file.clone(), text(repository, &tree, &file)?));
            }
        }
    }
    Ok(manifest::assemble(manifest, files)?)
}

fn text(repository: &Repository, tree: &Tree<'_>, file: &str) -> Result<String, ReleaseError> {
    let bad = || ReleaseError::BadFile(file.to_owned());
    let entry =
        tree.get_name(file).filter(|entry| entry.kind() == Some(ObjectType::Blob) && entry.filemode() != SYMBOLIC_LINK).ok_or_else(bad)?;
    let blob = repository.find_blob(entry.id()).map_err(|_| bad())?;
    if blob.size() > LARGEST_FILE {
        return Err(bad());
    }
    String::from_utf8(blob.content().to_vec()).map_err(|_| bad())
}

/// Who asked for it and how, in one line.
fn cause(commit: &Commit<'_>) -> String {
    let author = commit.author().name().unwrap_or("somebody").to_owned();
    let subject: String = commit.summary().ok().flatten().unwrap_or("no subject").chars().take(120).collect();
    format!("{subject:?} by {author}")
}

/// A folder name for the repository as this credential sees it: another credential never reads what the first one fetched.
fn key(url: &str, access: &GitAccess) -> String {
    let mut hash = Sha256::new();
    hash.update(url);
    if let Some((user, password)) = &access.user {
        hash.update([0]);
        hash.update(user);
        hash.update([0]);
        hash.update(password.reveal());
    }
    hash.update([0]);
    hash.update(access.ca.as_deref().unwrap_or_default());
    hex::encode(hash.finalize()).chars().take(32).collect()
}
