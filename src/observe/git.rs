//! Git as a source: one bare mirror for each repository and credential, one fetch for all Releases that use it.
//!
//! A fetch goes on by itself: whoever wants to know waits for it only for a moment, so that a server that hangs delays the
//! Releases of its own repository and no others. What was cut off, by a deadline or by the end of the operator, is begun
//! again; a mirror that is found broken is thrown away and fetched anew, once.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use git2::{Oid, Repository};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

pub use super::{
    git_error::Error,
    git_transport::Limits,
    git_tree::{PathError, ReleaseError},
    git_verify::Distrust,
};
use super::{
    git_http::Public,
    git_mirror::{self, Find, Look},
    git_ssh::Place,
    git_tree::Stop,
};
use crate::{
    access::GitAccess,
    api::{Content, release::GitSource},
};

/// How long a reconcile waits for a fetch: it holds one of the operator's few places.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for a repository whose last fetch failed or took longer than that.
const PATIENCE_IN_TROUBLE: Duration = Duration::from_millis(500);
/// Fetches at the same time. Each holds a thread that may block, of which the runtime has 512.
const FETCHES: usize = 48;
/// Of repositories in trouble: they must not keep the others from fetching, however many they are.
const FETCHES_IN_TROUBLE: usize = 16;
/// A repository that is too large is not received again and again only to find that it still is.
const REFUSED_FOR: Duration = Duration::from_secs(15 * 60);
/// Trees remembered for one mirror: one for each Release of the repository, and some history.
const TREES_KEPT: usize = 4_096;

/// What a reference resolves to.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub content: Arc<Content>,
    /// `main@sha1:<40 hex>`.
    pub revision: String,
    /// One line for people: why, author, who signed, which commits it reverts.
    pub cause: String,
    /// Who signed it: principal or key id. `None`: nobody asked.
    pub signer: Option<String>,
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
    limits: Limits,
    public: Public,
    known: Mutex<HashMap<String, Arc<Mirror>>>,
    lanes: Lanes,
    /// Ends the fetches that are under way when the operator does.
    stop: CancellationToken,
    _ends: DropGuard,
}

struct Lanes {
    well: Arc<Semaphore>,
    in_trouble: Arc<Semaphore>,
}

/// One repository as one credential sees it.
struct Mirror {
    dir: PathBuf,
    state: Mutex<State>,
    /// The last releases read, by the id of the folder they were read from: the same tree is not read twice.
    read: Mutex<HashMap<Oid, Result<Arc<Content>, ReleaseError>>>,
}

#[derive(Default)]
struct State {
    /// When the last good fetch began.
    fetched: Option<Instant>,
    /// The last fetch was not good: when it began, and why.
    trouble: Option<(Instant, Error)>,
    under_way: Option<UnderWay>,
    condition: Condition,
}

#[derive(Clone)]
struct UnderWay {
    begun: Instant,
    done: watch::Receiver<()>,
}

/// What is known about the files of a mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Condition {
    /// Not looked at since the operator started: what an earlier one left half done has to be cleared away.
    #[default]
    Unknown,
    Good,
    /// To be thrown away before the next fetch.
    Broken,
    /// Thrown away and fetched anew; if it is broken again, that does not help.
    Renewed,
}

impl Mirrors {
    /// Prepares the folder.
    pub fn new(dir: PathBuf, limits: Limits) -> Result<Self, Error> {
        std::fs::create_dir_all(&dir).map_err(|error| Error::Mirror { dir: dir.display().to_string(), detail: error.to_string() })?;
        let stop = CancellationToken::new();
        let lanes = Lanes { well: Arc::new(Semaphore::new(FETCHES)), in_trouble: Arc::new(Semaphore::new(FETCHES_IN_TROUBLE)) };
        Ok(Self { dir, limits, public: Public::default(), known: Mutex::default(), lanes, _ends: stop.clone().drop_guard(), stop })
    }

    /// Resolves the source's reference, checks its signature where the source asks for that, and reads the release in its
    /// folder. `now` is the time that keys may have expired at.
    pub async fn resolve(&self, source: &GitSource, access: GitAccess, freshness: Freshness, now: Timestamp) -> Result<Resolved, Error> {
        checked(&source.url)?;
        let mirror = self.mirror(&source.url, &access);
        self.fetched(&mirror, source, &access, freshness).await?;
        let access = Arc::new(access);
        match look(&mirror, source, &access, now).await {
            Err(Stop::Corrupt(first)) if mirror.give_up() => {
                mirror.tell(&first);
                self.fetched(&mirror, source, &access, Freshness::Now).await?;
                settled(&mirror, look(&mirror, source, &access, now).await)
            }
            seen => settled(&mirror, seen),
        }
    }

    fn mirror(&self, url: &str, access: &GitAccess) -> Arc<Mirror> {
        let key = key(url, access);
        let mut known = lock(&self.known);
        let new = || Arc::new(Mirror { dir: self.dir.join(&key), state: Mutex::default(), read: Mutex::default() });
        Arc::clone(known.entry(key.clone()).or_insert_with(new))
    }

    /// Waits until the mirror is fresh enough, but not for long.
    async fn fetched(&self, mirror: &Arc<Mirror>, source: &GitSource, access: &GitAccess, freshness: Freshness) -> Result<(), Error> {
        let asked = Instant::now();
        let is_new = |begun: Instant| match freshness {
            Freshness::Within(age) => begun >= asked || asked.duration_since(begun) < age,
            Freshness::Now => begun >= asked,
        };
        loop {
            let (mut fetch, patience) = {
                let mut state = lock(&mirror.state);
                if state.condition != Condition::Broken && state.fetched.is_some_and(is_new) {
                    return Ok(());
                }
                match &state.trouble {
                    Some((begun, error)) if *begun >= asked => return Err(error.clone()),
                    Some((begun, error @ Error::TooLarge { .. })) if freshness != Freshness::Now && begun.elapsed() < REFUSED_FOR => {
                        return Err(error.clone());
                    }
                    Some(_) | None => {}
                }
                let is_in_trouble = state.trouble.is_some();
                let fetch = state.under_way.get_or_insert_with(|| self.begin(Arc::clone(mirror), source, access, is_in_trouble));
                (fetch.clone(), if is_in_trouble { PATIENCE_IN_TROUBLE } else { PATIENCE })
            };
            let left = patience.saturating_sub(fetch.begun.elapsed());
            // An error means that the fetch has ended without a word: the next round sees that.
            if tokio::time::timeout(left, fetch.done.changed()).await.is_ok() {
                continue;
            }
            let state = lock(&mirror.state);
            return match (&state.trouble, freshness, state.fetched) {
                (Some((_, error)), _, _) => Err(error.clone()),
                // What was seen last stands until the fetch says something else.
                (None, Freshness::Within(_), Some(_)) if state.condition != Condition::Broken => Ok(()),
                (None, _, _) => Err(Error::UnderWay { url: source.url.clone() }),
            };
        }
    }

    /// Begins a fetch that goes on by itself.
    fn begin(&self, mirror: Arc<Mirror>, source: &GitSource, access: &GitAccess, is_in_trouble: bool) -> UnderWay {
        let begun = Instant::now();
        let (sender, done) = watch::channel(());
        let lane = Arc::clone(if is_in_trouble { &self.lanes.in_trouble } else { &self.lanes.well });
        let (url, access, limits, stop) = (source.url.clone(), access.clone(), self.limits, self.stop.clone());
        let public = self.public.clone();
        tokio::spawn(async move {
            let permit = lane.acquire_owned().await;
            let found = match lock(&mirror.state).condition {
                Condition::Unknown => Find::LeftBehind,
                Condition::Broken => Find::Broken,
                Condition::Good | Condition::Renewed => Find::AsItIs,
            };
            let dir = mirror.dir.clone();
            let fetch = tokio::task::spawn_blocking(move || git_mirror::fetch(&dir, found, &url, &access, limits, &public, stop));
            let result = fetch.await.unwrap_or_else(|error| Err(Stop::Refused(mirror.error(&error.to_string()))));
            drop(permit);
            mirror.finish(begun, found, result);
            // Nobody may be waiting any more.
            let _ = sender.send(());
        });
        UnderWay { begun, done }
    }
}

impl Mirror {
    fn finish(&self, begun: Instant, found: Find, result: Result<(), Stop<Error>>) {
        let mut state = lock(&self.state);
        state.under_way = None;
        match (result, found) {
            (Ok(()), found) => {
                state.condition = match found {
                    Find::Broken => Condition::Renewed,
                    Find::LeftBehind if state.condition == Condition::Unknown => Condition::Good,
                    Find::LeftBehind | Find::AsItIs => state.condition,
                };
                (state.fetched, state.trouble) = (Some(begun), None);
            }
            (Err(Stop::Refused(error)), _) => state.trouble = Some((begun, error)),
            // Without trouble noted, whoever waits begins the next fetch at once.
            (Err(Stop::Corrupt(error)), Find::AsItIs | Find::LeftBehind) if state.condition != Condition::Renewed => {
                self.tell(&error);
                state.condition = Condition::Broken;
            }
            (Err(Stop::Corrupt(error)), _) => state.trouble = Some((begun, self.error(error.message()))),
        }
    }

    fn tell(&self, error: &git2::Error) {
        tracing::warn!(mirror = %self.dir.display(), error = error.message(), "a git mirror is broken; it is fetched anew");
    }

    fn error(&self, detail: &str) -> Error {
        Error::Mirror { dir: self.dir.display().to_string(), detail: detail.to_owned() }
    }

    /// Marks the mirror as broken; false if it was fetched anew already, and that did not help.
    fn give_up(&self) -> bool {
        let mut state = lock(&self.state);
        if state.condition == Condition::Renewed {
            return false;
        }
        state.condition = Condition::Broken;
        lock(&self.read).clear();
        true
    }
}

/// A look that found everything proves a renewed mirror good.
fn settled(mirror: &Mirror, seen: Result<Resolved, Stop<Error>>) -> Result<Resolved, Error> {
    match seen {
        Ok(resolved) => {
            let mut state = lock(&mirror.state);
            if state.condition == Condition::Renewed {
                state.condition = Condition::Good;
            }
            Ok(resolved)
        }
        Err(Stop::Refused(error)) => Err(error),
        Err(Stop::Corrupt(error)) => Err(mirror.error(error.message())),
    }
}

/// Looks into the mirror, on a thread that may block.
async fn look(mirror: &Arc<Mirror>, source: &GitSource, access: &Arc<GitAccess>, now: Timestamp) -> Result<Resolved, Stop<Error>> {
    let (looking, source, access) = (Arc::clone(mirror), source.clone(), Arc::clone(access));
    let work = tokio::task::spawn_blocking(move || {
        let repository = Repository::open_bare(&looking.dir).map_err(Stop::Corrupt)?;
        let look = Look { repository: &repository, source: &source, trust: access.trust.as_ref(), now };
        let remembered = |folder: Oid| lock(&looking.read).get(&folder).cloned();
        let remember = |folder: Oid, content: &Result<Arc<Content>, ReleaseError>| {
            let mut read = lock(&looking.read);
            if read.len() >= TREES_KEPT {
                read.clear();
            }
            read.insert(folder, content.clone());
        };
        look.resolve(remembered, remember)
    });
    work.await.unwrap_or_else(|error| Err(Stop::Refused(mirror.error(&error.to_string()))))
}

/// Refuses a URL that can't be meant, before anything is made or asked because of it.
fn checked(text: &str) -> Result<(), Error> {
    let bad = |detail: String| Error::BadUrl { url: text.to_owned(), detail };
    let remedy = "write https://host/path or ssh://git@host/path (for git@host:path)";
    let url = Url::parse(text).map_err(|_| bad(remedy.to_owned()))?;
    match url.scheme() {
        "http" | "https" if url.username().is_empty() && url.password().is_none() => Ok(()),
        "ssh" if url.password().is_none() => Place::read(&url).map(|_| ()).map_err(|detail| bad(format!("{detail}; {remedy}"))),
        "http" | "https" | "ssh" => Err(Error::CredentialsInUrl),
        _ => Err(bad(remedy.to_owned())),
    }
}

/// A folder name for the repository as this credential sees it: another credential never reads what the first one fetched.
fn key(url: &str, access: &GitAccess) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(url.as_bytes());
    if let Some((user, password)) = &access.user {
        add(user.as_bytes());
        add(password.reveal().as_bytes());
    }
    if let Some(ca) = &access.ca {
        add(ca);
    }
    if let Some(ssh) = &access.ssh {
        add(ssh.identity.reveal().as_bytes());
        add(ssh.passphrase.as_ref().map(|phrase| phrase.reveal()).unwrap_or_default().as_bytes());
        add(ssh.known_hosts.as_bytes());
    }
    hex::encode(hash.finalize()).chars().take(32).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
