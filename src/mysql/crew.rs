//! Several sessions that share one list of jobs. A job may bring further ones.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::endpoint::Session;
use super::error::{Error, Result};

/// The server hears the session that holds the lock this often while others work: it ends one that is silent, and with it the lock.
const SPEAK_EVERY: Duration = Duration::from_secs(30);

/// What is to be done, and by how many something is being done.
pub(super) struct Jobs<J> {
    list: Mutex<List<J>>,
    changed: Notify,
}

struct List<J> {
    waiting: VecDeque<J>,
    at_work: usize,
}

impl<J> Jobs<J> {
    fn new(jobs: impl IntoIterator<Item = J>) -> Arc<Self> {
        Arc::new(Self { list: Mutex::new(List { waiting: jobs.into_iter().collect(), at_work: 0 }), changed: Notify::new() })
    }

    /// Another job, which is done before those that wait: what belongs together stays together.
    pub fn push(&self, job: J) {
        self.with(|list| list.waiting.push_front(job));
        self.changed.notify_waiters();
    }

    /// The next job; `None` once all are done.
    async fn take(&self) -> Option<J> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before looking, so that nothing that comes in between is missed.
            changed.as_mut().enable();
            let (job, idle) = self.with(|list| {
                let job = list.waiting.pop_front();
                list.at_work += usize::from(job.is_some());
                (job, list.at_work == 0)
            });
            if job.is_some() || idle {
                return job;
            }
            changed.await;
        }
    }

    fn done(&self) {
        self.with(|list| list.at_work -= 1);
        self.changed.notify_waiters();
    }

    fn with<T>(&self, act: impl FnOnce(&mut List<J>) -> T) -> T {
        act(&mut self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Lets every session take jobs, of which each may bring further ones, until none is left. Gives back the sessions and what the jobs
/// came to, in no order. The first error ends all; sessions that were at work are gone then.
pub(super) async fn share<J, R, F>(
    sessions: Vec<Session>,
    jobs: impl IntoIterator<Item = J>,
    work: impl Fn(Session, J, Arc<Jobs<J>>) -> F + Clone + Send + 'static,
) -> Result<(Vec<Session>, Vec<R>)>
where
    J: Send + 'static,
    R: Send + 'static,
    F: Future<Output = Result<(Session, R)>> + Send,
{
    let jobs = Jobs::new(jobs);
    let mut crew = JoinSet::new();
    for mut session in sessions {
        let (jobs, work) = (Arc::clone(&jobs), work.clone());
        crew.spawn(async move {
            let mut results = Vec::new();
            while let Some(job) = jobs.take().await {
                let (back, result) = work(session, job, Arc::clone(&jobs)).await?;
                jobs.done();
                session = back;
                results.push(result);
            }
            Ok::<_, Error>((session, results))
        });
    }
    let (mut sessions, mut results) = (Vec::new(), Vec::new());
    while let Some(ended) = crew.join_next().await {
        let (session, done) =
            ended.map_err(|error| Error::Lost { doing: "work in several sessions".to_owned(), reason: error.to_string() })??;
        sessions.push(session);
        results.extend(done);
    }
    Ok((sessions, results))
}

/// Ends sessions whose work is done.
pub(super) async fn dismiss(sessions: Vec<Session>) {
    for session in sessions {
        session.close().await;
    }
}

/// Does `work`, which does not use `session`, and keeps that session from being ended meanwhile.
pub(super) async fn beside<T>(session: &mut Session, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    loop {
        match tokio::time::timeout(SPEAK_EVERY, work.as_mut()).await {
            Ok(done) => return done,
            Err(_) => session.run("keep the session", "DO 0").await?,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_that_come_from_jobs_are_done_by_whoever_is_free() {
        let jobs = Jobs::new([3_u32]);
        let worker = |jobs: Arc<Jobs<u32>>| async move {
            let mut done = 0;
            while let Some(job) = jobs.take().await {
                for _ in 0..job {
                    jobs.push(job - 1);
                }
                tokio::task::yield_now().await;
                done += 1;
                jobs.done();
            }
            done
        };
        let (one, other) = tokio::join!(worker(Arc::clone(&jobs)), worker(Arc::clone(&jobs)));
        assert_eq!(one + other, 1 + 3 + 6 + 6);
        assert!(one > 1 && other > 1, "{one} {other}");
    }
}
