//! Work that runs beside the steps of a Release: the step that began it only asks how far it has come, and any other step ends it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{task::JoinHandle, time::timeout};

use super::{Place, operation, uid};
use crate::{api::Release, mysql};

/// What runs, by the uid of its Release.
pub struct Beside<T>(Arc<Mutex<HashMap<String, Running<T>>>>);

struct Running<T> {
    /// The one whose step began it. Another may want something of the same name from another database, or into another store.
    operation: String,
    work: JoinHandle<mysql::Result<T>>,
}

impl<T> Default for Beside<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Beside<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + 'static> Beside<T> {
    /// Ends what runs of this Release, if anything does: its sessions go with it, and the database's lock with them.
    pub fn stop(&self, uid: &str) {
        if let Some(running) = self.with(|running| running.remove(uid)) {
            running.work.abort();
        }
    }

    /// What came of the work for this operation; `None` while it runs, or where none for it does.
    pub fn ended(&self, release: &Release) -> Option<mysql::Result<T>> {
        self.with(|running| {
            let of_it = running.get_mut(uid(release)).filter(|running| running.operation == operation(release))?;
            let ended = (&mut of_it.work).now_or_never()?;
            running.remove(uid(release));
            Some(ended.unwrap_or_else(|error| Err(mysql::Error::Lost { doing: "work beside".to_owned(), reason: error.to_string() })))
        })
    }

    /// Whether this operation has begun it, and not yet heard what came of it.
    pub fn runs(&self, release: &Release) -> bool {
        self.with(|running| running.get(uid(release)).is_some_and(|running| running.operation == operation(release)))
    }

    /// Begins it, for as long as `limit`, in one of the places that bound how many run at the same time.
    pub fn begin(
        &self,
        release: &Release,
        place: Place,
        limit: Duration,
        doing: &'static str,
        work: impl Future<Output = mysql::Result<T>> + Send + 'static,
    ) {
        let work = tokio::spawn(async move {
            let _place = place;
            match timeout(limit, work).await {
                Ok(done) => done,
                Err(_) => Err(mysql::Error::TimedOut { doing: doing.to_owned(), limit }),
            }
        });
        let replaced = self.with(|running| running.insert(uid(release).to_owned(), Running { operation: operation(release), work }));
        if let Some(replaced) = replaced {
            replaced.work.abort();
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut HashMap<String, Running<T>>) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
