//! One bare mirror on disk: fetched from its server, and looked into. Blocks: only on threads that may.
//!
//! A fetch makes branches and tags equal to the server's, whatever they were before, so it may be repeated at any time. One
//! at a time: the caller sees to that.

use std::{fs, io, path::Path, sync::Arc};

use git2::{AutotagOption, Commit, ErrorClass, ErrorCode, FetchOptions, FetchPrune, ObjectType, Oid, Repository, Tag};
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    git::Resolved,
    git_cause::{self, Said},
    git_error::Error,
    git_http::{Http, Public},
    git_ssh::{Place, Ssh},
    git_transport::{Failure, Limits, Line, Reach},
    git_tree::{self, ReleaseError, Stop},
    git_verify::{self, Object, Signed},
};
use crate::{
    access::{GitAccess, GitTrust},
    api::{
        Content,
        release::{GitRef, GitSource},
    },
};

/// In which state a fetch finds the mirror's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    AsItIs,
    /// By an operator that has ended, perhaps in the middle of a fetch.
    LeftBehind,
    Broken,
}

/// Makes the mirror's branches and tags equal to the server's, also after a force-push.
pub fn fetch(
    dir: &Path,
    found: Find,
    url: &str,
    access: &GitAccess,
    limits: Limits,
    public: &Public,
    stop: CancellationToken,
) -> Result<(), Stop<Error>> {
    let on_disk = |error: io::Error| Stop::Refused(Error::Mirror { dir: dir.display().to_string(), detail: error.to_string() });
    match found {
        Find::AsItIs => {}
        Find::LeftBehind => tidy(dir).map_err(on_disk)?,
        Find::Broken if dir.exists() => fs::remove_dir_all(dir).map_err(on_disk)?,
        Find::Broken => {}
    }
    let failed = |failure: Failure| Stop::Refused(Error::of(url, failure, limits));
    let reach = reach(url, access, limits, public).map_err(failed)?;
    let repository = open(dir)?;
    let mut options = FetchOptions::new();
    options.prune(FetchPrune::On).download_tags(AutotagOption::None);
    let mut remote = repository.remote_anonymous(url).map_err(Stop::Corrupt)?;
    let refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
    let line = Line::new(reach, Handle::current(), limits, stop);
    match line.during(|| remote.fetch(&refspecs, Some(&mut options), None)) {
        Ok(()) => Ok(()),
        Err((_, Some(failure))) => Err(failed(failure)),
        // What the server said was no git, or ended too early.
        Err((error, None)) if error.class() == ErrorClass::Net => Err(failed(Failure::Unreachable(error.message().to_owned()))),
        // Whether a pack that came or one that was here is bad can't be told: a mirror made anew decides it.
        Err((error, None)) => Err(Stop::Corrupt(error)),
    }
}

fn reach(url: &str, access: &GitAccess, limits: Limits, public: &Public) -> Result<Reach, Failure> {
    match Url::parse(url) {
        Ok(parsed) if parsed.scheme() == "ssh" => {
            let access = access.ssh.as_ref().ok_or_else(|| Failure::Key("there is no SSH key".to_owned()))?;
            Ok(Reach::Ssh(Ssh::new(Place::read(&parsed).map_err(Failure::Unreachable)?, access)?))
        }
        Ok(_) => Ok(Reach::Http(Http::new(access, limits, public)?)),
        Err(error) => Err(Failure::Unreachable(error.to_string())),
    }
}

/// Opens the bare mirror, or makes it.
fn open(dir: &Path) -> Result<Repository, Stop<Error>> {
    match Repository::open_bare(dir) {
        Ok(repository) => Ok(repository),
        Err(error) if error.code() == ErrorCode::NotFound && !dir.exists() => Repository::init_bare(dir)
            .map_err(|error| Stop::Refused(Error::Mirror { dir: dir.display().to_string(), detail: error.message().to_owned() })),
        Err(error) => Err(Stop::Corrupt(error)),
    }
}

/// Removes what a fetch that was killed leaves behind: locks, which nobody else would ever open, and half a pack.
fn tidy(dir: &Path) -> io::Result<()> {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_pack =
                matches!(Path::new(&name).extension().and_then(|extension| extension.to_str()), Some("pack" | "idx" | "rev" | "keep"));
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if name.ends_with(".lock") || (folder.ends_with("objects/pack") && !is_pack) {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// One look into a mirror.
pub struct Look<'a> {
    pub repository: &'a Repository,
    pub source: &'a GitSource,
    pub trust: Option<&'a GitTrust>,
    pub now: Timestamp,
}

impl Look<'_> {
    /// What the source's reference resolves to. The signature is checked before anything of the tree is read or remembered.
    pub fn resolve(
        &self,
        remembered: impl Fn(Oid) -> Option<Result<Arc<Content>, ReleaseError>>,
        remember: impl Fn(Oid, &Result<Arc<Content>, ReleaseError>),
    ) -> Result<Resolved, Stop<Error>> {
        let (commit, tag) = self.find()?;
        let GitRef { branch, tag: tag_name, commit: _ } = &self.source.reference;
        let revision = match branch.as_ref().or(tag_name.as_ref()) {
            Some(name) => format!("{name}@sha1:{}", commit.id()),
            None => format!("sha1:{}", commit.id()),
        };
        let signer = self.verify(&revision, &commit, tag.as_ref())?;

        let path = &self.source.path;
        let root = commit.tree().map_err(Stop::Corrupt)?;
        let folder = git_tree::below(self.repository, root, path)
            .map_err(|stop| refused(stop, |problem| Error::NoPath { revision: revision.clone(), path: path.clone(), problem }))?;
        let content = match remembered(folder.id()) {
            Some(content) => content,
            None => {
                let content = match git_tree::read(self.repository, &folder) {
                    Ok(content) => Ok(Arc::new(content)),
                    Err(Stop::Refused(error)) => Err(error),
                    Err(Stop::Corrupt(error)) => return Err(Stop::Corrupt(error)),
                };
                remember(folder.id(), &content);
                content
            }
        };
        let content = content.map_err(|source| Stop::Refused(Error::Release { revision: revision.clone(), path: path.clone(), source }))?;
        Ok(Resolved { content, revision, cause: self.cause(&commit, signer.as_deref()), signer })
    }

    /// The commit that the reference names, and the annotated tag on the way to it.
    fn find(&self) -> Result<(Commit<'_>, Option<Tag<'_>>), Stop<Error>> {
        let GitRef { branch, tag, commit } = &self.source.reference;
        let (lookup, shown) = match (branch, tag, commit) {
            (Some(branch), _, _) => (format!("refs/heads/{branch}"), format!("branch {branch}")),
            (None, Some(tag), _) => (format!("refs/tags/{tag}"), format!("tag {tag}")),
            (None, None, Some(commit)) => (String::new(), format!("commit {commit}")),
            (None, None, None) => (String::new(), "reference".to_owned()),
        };
        let missing = || Stop::Refused(Error::NoRef { url: self.source.url.clone(), reference: shown.clone() });
        let id = match commit {
            Some(commit) if lookup.is_empty() => Oid::from_str(commit).map_err(|_| missing())?,
            Some(_) | None => match self.repository.find_reference(&lookup) {
                Ok(reference) => reference.target().ok_or_else(missing)?,
                Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => return Err(missing()),
                Err(error) => return Err(Stop::Corrupt(error)),
            },
        };
        let object = match self.repository.find_object(id, None) {
            Ok(object) => object,
            // A commit may be one that never was; what a branch or tag points to has been fetched with it.
            Err(error) if lookup.is_empty() && error.code() == ErrorCode::NotFound => return Err(missing()),
            Err(error) => return Err(Stop::Corrupt(error)),
        };
        let tag = object.as_tag().cloned();
        match object.peel(ObjectType::Commit) {
            Ok(commit) => Ok((commit.into_commit().map_err(|_| missing())?, tag)),
            Err(error) if error.code() == ErrorCode::NotFound => Err(Stop::Corrupt(error)),
            Err(_) => Err(missing()),
        }
    }

    fn verify(&self, revision: &str, commit: &Commit<'_>, tag: Option<&Tag<'_>>) -> Result<Option<String>, Stop<Error>> {
        let Some(verify) = &self.source.verify else { return Ok(None) };
        let refused = |distrust| Stop::Refused(Error::NotVerified { revision: revision.to_owned(), distrust });
        let Some(trust) = self.trust else {
            let detail = "its keys were not read".to_owned();
            return Err(refused(git_verify::Distrust::Keys { secret: verify.secret_ref.name.clone(), detail }));
        };
        let odb = self.repository.odb().map_err(Stop::Corrupt)?;
        let raw = |id| odb.read(id).map(|object| object.data().to_vec()).map_err(Stop::Corrupt);
        let (commit_raw, commit_name) = (raw(commit.id())?, format!("commit {}", commit.id()));
        let made = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MIN);
        let commit = Object { name: &commit_name, raw: &commit_raw, made: made(commit.time().seconds()) };
        let tag = match tag {
            // A signed tag that was made under another name must not stand in for this one.
            Some(tag) if tag.name_bytes() != self.source.reference.tag.as_deref().unwrap_or_default().as_bytes() => {
                let name = git_cause::clean(&String::from_utf8_lossy(tag.name_bytes()));
                return Err(refused(git_verify::Distrust::Renamed(name)));
            }
            Some(tag) => Some((raw(tag.id())?, format!("tag {}", tag.id()), tag.tagger().map_or(0, |tagger| tagger.when().seconds()))),
            None => None,
        };
        let tag = tag.as_ref().map(|(raw, name, seconds)| Object { name, raw, made: made(*seconds) });
        git_verify::verify(verify.mode, Signed { commit, tag }, trust, self.now).map(Some).map_err(refused)
    }

    fn cause(&self, commit: &Commit<'_>, signer: Option<&str>) -> String {
        let author = commit.author();
        let (author, message) = (String::from_utf8_lossy(author.name_bytes()), String::from_utf8_lossy(commit.message_bytes()));
        git_cause::cause(Said { author: &author, message: &message, signer }, |id| {
            let reverted = self.repository.find_object_by_prefix(id, Some(ObjectType::Commit)).ok()?.into_commit().ok()?;
            reverted.summary_bytes().map(|subject| String::from_utf8_lossy(subject).into_owned())
        })
    }
}

fn refused<A, B>(stop: Stop<A>, into: impl FnOnce(A) -> B) -> Stop<B> {
    match stop {
        Stop::Refused(problem) => Stop::Refused(into(problem)),
        Stop::Corrupt(error) => Stop::Corrupt(error),
    }
}
