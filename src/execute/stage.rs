//! Stage: load a backup point into a shadow schema and compare every table with the point.
//!
//! Idempotent: a shadow that is complete says so itself; anything less goes on at the chunks that are missing. Nothing live is touched.

use super::{Error, Outcome, Task, done};
use crate::{
    api::operation::Staged,
    mysql::{self, Loaded},
};

pub async fn run(task: &Task<'_>, point: &str, shadow: &str) -> Result<Outcome, Error> {
    let store = task.readable_store().await?;
    let database = task.heard_database().await?;
    let loaded = mysql::load(&database, &store, &task.prefix(point), shadow).await?;
    done(format!("BackupPoint {point} is loaded into {shadow} and verified: {} tables, {} rows", loaded.tables, loaded.rows))
}

/// Begins to do the same beside a release that bakes, once. Whatever becomes of it is for a rollback to find: what is missing is loaded then.
pub async fn beside(task: &Task<'_>, Staged { point, shadow }: &Staged) {
    if task.hands.stages.runs(task.uid(), point) {
        return;
    }
    let (database, store) = match (task.database().await, task.readable_store().await) {
        (Ok(database), Ok(store)) => (database.with_connections(1), store),
        (Err(error), _) | (_, Err(error)) => return tracing::warn!(point, shadow, %error, "not staged"),
    };
    let (prefix, name, shadow) = (task.prefix(point), point.clone(), shadow.clone());
    let work = async move {
        let loaded = mysql::load(&database, &store, &prefix, &shadow).await;
        match &loaded {
            Ok(Loaded { rows, .. }) => tracing::info!(point = name, shadow, rows, "staged while the release bakes"),
            Err(error) => tracing::warn!(point = name, shadow, %error, "not staged"),
        }
        loaded
    };
    task.hands.stages.begin(task, point, "stage", work);
}
