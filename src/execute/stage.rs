//! Stage: load a backup point into a shadow schema and compare every table with the point.
//!
//! Idempotent: a shadow that is complete says so itself; anything less goes on at the chunks that are missing. Nothing live is touched.

use super::{Error, Outcome, Task, done};
use crate::mysql;

pub async fn run(task: &Task<'_>, point: &str, shadow: &str) -> Result<Outcome, Error> {
    let store = task.readable_store().await?;
    let database = task.heard_database().await?;
    let loaded = mysql::load(&database, &store, &task.prefix(point), shadow).await?;
    done(format!("BackupPoint {point} is loaded into {shadow} and verified: {} tables, {} rows", loaded.tables, loaded.rows))
}
