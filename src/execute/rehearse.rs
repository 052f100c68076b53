//! Rehearse: prove that a backup point can be restored, and measure how long that takes.
//!
//! It runs beside everything else: the step only asks how far it has come, and any other step of the same Release ends it. So nobody who
//! wants a release taken back waits for it. Idempotent: a rehearsal that was cut off begins anew, in a schema that it drops first.

use jiff::Timestamp;
use kube::Api;

use super::{Error, Outcome, Place, Task, checks, done, waiting};
use crate::{
    api::{
        BackupPoint, Span,
        backup_point::{RehearsalOutcome, Rehearsed},
    },
    cluster::within,
    mysql::{self, Rehearsal},
};

pub async fn run(task: &Task<'_>, point: &str, scratch: &str, now: Timestamp) -> Result<Outcome, Error> {
    let rehearsals = &task.hands.rehearsals;
    let api: Api<BackupPoint> = Api::namespaced(task.hands.client.clone(), &task.namespace);
    let Some(mut object) = within(format!("reading BackupPoint {point}"), api.get_opt(point)).await? else {
        rehearsals.stop(task.uid());
        return Ok(Outcome::Failed { message: format!("BackupPoint {point} is gone") });
    };
    let Some(ended) = rehearsals.ended(task.release) else {
        if let Some(place) = task.take_place() {
            begin(task, place, point, scratch).await?;
        }
        return waiting(format!("{point} is loaded into {scratch} and compared"));
    };
    let rehearsed = match ended {
        Ok(Rehearsal { tables, rows, took, answers }) => {
            let checks = checks::of_copy(task, answers).await;
            let message = format!("{tables} tables with {rows} rows were loaded and compared, and every table was checked{checks}");
            Rehearsed { at: now, outcome: RehearsalOutcome::Passed, took: Some(Span(took)), message }
        }
        Err(error) if blames_the_point(task, &error).await? => {
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

async fn begin(task: &Task<'_>, place: Place, point: &str, scratch: &str) -> Result<(), Error> {
    let store = task.readable_store().await?;
    let (database, prefix, scratch) = (task.database().await?, task.prefix(point), scratch.to_owned());
    let questions = checks::questions(task);
    let work = async move { mysql::rehearse(&database, &store, &prefix, &scratch, &questions).await };
    task.hands.rehearsals.begin(task.release, place, task.release.spec.timeout.0, "rehearse", work);
    Ok(())
}

/// Whether the point itself is not fit. A full disk, a missing account or a server that takes no long statements is mended, and the point
/// is as good as it was; so it is where nothing lies in the store at all, as on a volume that is not there.
async fn blames_the_point(task: &Task<'_>, error: &mysql::Error) -> Result<bool, Error> {
    Ok(match error {
        mysql::Error::Mismatch { .. } | mysql::Error::Corrupt { .. } => true,
        mysql::Error::NoBackup { .. } => !mysql::points(&task.readable_store().await?).await?.is_empty(),
        _ => false,
    })
}
