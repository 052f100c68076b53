//! Stage: load a backup point into a shadow schema and compare every table with the point.
//!
//! Idempotent: a shadow that is complete says so itself; anything less goes on at the chunks that are missing. Nothing live is touched.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Error, Outcome, Task, done};
use crate::{
    api::operation::Staged,
    error::Class,
    mysql::{self, Loaded},
};

pub async fn run(task: &Task<'_>, point: &str, shadow: &str) -> Result<Outcome, Error> {
    let store = task.readable_store().await?;
    let database = task.heard_database().await?;
    let loaded = mysql::load(&database, &store, &task.prefix(point), shadow).await?;
    done(format!("BackupPoint {point} is loaded into {shadow} and verified: {} tables, {} rows", loaded.tables, loaded.rows))
}

/// Begins to do the same beside a release that bakes for `hold`, and goes on at it until it is done or what hinders it does not pass by itself.
/// Whatever becomes of it is for a rollback to find: what is missing is loaded then.
pub async fn beside(task: &Task<'_>, Staged { point, shadow }: &Staged, hold: Duration) {
    if task.hands.stages.runs(task.release) {
        return;
    }
    // Nobody waits for it, also not for a place.
    let Ok(place) = Arc::clone(&task.hands.beside).try_acquire_owned() else { return };
    let (database, store) = match (task.database().await, task.readable_store().await) {
        (Ok(database), Ok(store)) => (database.with_connections(1).yielding(), store),
        (Err(error), _) | (_, Err(error)) => return tracing::warn!(point, shadow, %error, "not staged"),
    };
    let (prefix, name, shadow) = (task.prefix(point), point.clone(), shadow.clone());
    let again = task.release.spec.retry_interval.0;
    let (limit, begun) = (task.release.spec.timeout.0, Instant::now());
    let work = async move {
        loop {
            let loaded = mysql::load(&database, &store, &prefix, &shadow).await;
            match &loaded {
                Ok(Loaded { rows, .. }) => tracing::info!(point = name, shadow, rows, "staged while the release bakes"),
                Err(error) => tracing::warn!(point = name, shadow, %error, "not staged"),
            }
            match &loaded {
                // Another of this Release's own, for example, that was killed and whose sessions still hold the lock.
                Err(error) if error.class() != Class::Permanent && begun.elapsed() < limit => tokio::time::sleep(again).await,
                Ok(_) | Err(_) => return loaded,
            }
        }
    };
    task.hands.stages.begin(task.release, place, hold.max(limit), "stage", work);
}
