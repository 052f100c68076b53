//! Rehearse: prove that a backup point can be restored, and measure how long that takes.
//!
//! It runs beside everything else: the step only asks how far it has come, and any other step of the same Release ends it. So nobody who
//! wants a release taken back waits for it. Idempotent: a rehearsal that was cut off begins anew, in a schema that it drops first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::FutureExt as _;
use jiff::Timestamp;
use kube::Api;
use tokio::{task::JoinHandle, time::timeout};

use super::{Error, Outcome, Task, done, waiting};
use crate::{
    api::{
        BackupPoint, Span,
        backup_point::{RehearsalOutcome, Rehearsed},
    },
    cluster::within,
    mysql::{self, Rehearsal},
};

/// Those that run, by the uid of their Release.
#[derive(Clone, Default)]
pub struct Rehearsals(Arc<Mutex<HashMap<String, Running>>>);

struct Running {
    point: String,
    work: JoinHandle<mysql::Result<Rehearsal>>,
}

impl Rehearsals {
    /// Ends the one of this Release, if there is one: its sessions go with it, and the database's lock with them.
    pub fn stop(&self, uid: &str) {
        if let Some(running) = self.with(|running| running.remove(uid)) {
            running.work.abort();
        }
    }

    /// What came of the one of this Release; `None` while it runs, or where none for this point does.
    fn ended(&self, uid: &str, point: &str) -> Option<mysql::Result<Rehearsal>> {
        self.with(|running| {
            let of_it = running.get_mut(uid).filter(|running| running.point == point)?;
            let ended = (&mut of_it.work).now_or_never()?;
            running.remove(uid);
            Some(ended.unwrap_or_else(|error| Err(mysql::Error::Lost { doing: "rehearse".to_owned(), reason: error.to_string() })))
        })
    }

    fn runs(&self, uid: &str, point: &str) -> bool {
        self.with(|running| running.get(uid).is_some_and(|running| running.point == point))
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, Running>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub async fn run(task: &Task<'_>, point: &str, scratch: &str, now: Timestamp) -> Result<Outcome, Error> {
    let rehearsals = &task.hands.rehearsals;
    let api: Api<BackupPoint> = Api::namespaced(task.hands.client.clone(), &task.namespace);
    let Some(mut object) = within(format!("reading BackupPoint {point}"), api.get_opt(point)).await? else {
        rehearsals.stop(task.uid());
        return Ok(Outcome::Failed { message: format!("BackupPoint {point} is gone") });
    };
    let Some(ended) = rehearsals.ended(task.uid(), point) else {
        if !rehearsals.runs(task.uid(), point) {
            begin(task, point, scratch).await?;
        }
        return waiting(format!("{point} is loaded into {scratch} and compared"));
    };
    let rehearsed = match ended {
        Ok(Rehearsal { tables, rows, took }) => Rehearsed {
            at: now,
            outcome: RehearsalOutcome::Passed,
            took: Some(Span(took)),
            message: format!("{tables} tables with {rows} rows were loaded and compared, and every table was checked"),
        },
        Err(error) if blames_the_point(&error) => {
            Rehearsed { at: now, outcome: RehearsalOutcome::Failed, took: None, message: error.to_string() }
        }
        Err(error) => return Err(error.into()),
    };
    let mut status = object.status.take().unwrap_or_default();
    status.rehearsed = Some(rehearsed.clone());
    task.hands.pen.point(&object, &status).await?;
    match rehearsed {
        Rehearsed { outcome: RehearsalOutcome::Passed, took: Some(took), message, .. } => {
            done(format!("BackupPoint {point} can be restored in {took}: {message}"))
        }
        Rehearsed { message, .. } => {
            Ok(Outcome::Failed { message: format!("BackupPoint {point} can't be restored and is never chosen: {message}") })
        }
    }
}

async fn begin(task: &Task<'_>, point: &str, scratch: &str) -> Result<(), Error> {
    let store = task.readable_store().await?;
    let (database, prefix, scratch) = (task.database().await?, task.prefix(point), scratch.to_owned());
    // As many as may run at the same time; without a place it is asked for again.
    let Ok(place) = Arc::clone(&task.hands.streams).try_acquire_owned() else { return Ok(()) };
    let limit = task.release.spec.timeout.0;
    let work = tokio::spawn(async move {
        let _place = place;
        match timeout(limit, mysql::rehearse(&database, &store, &prefix, &scratch)).await {
            Ok(done) => done,
            Err(_) => Err(mysql::Error::TimedOut { doing: "rehearse".to_owned(), limit }),
        }
    });
    task.hands.rehearsals.with(|running| running.insert(task.uid().to_owned(), Running { point: point.to_owned(), work }));
    Ok(())
}

/// Whether the point itself is not fit. A full disk, a missing account or a server that takes no long statements is mended, and the
/// point is as good as it was.
fn blames_the_point(error: &mysql::Error) -> bool {
    matches!(error, mysql::Error::Mismatch { .. } | mysql::Error::Corrupt { .. } | mysql::Error::NoBackup { .. })
}
