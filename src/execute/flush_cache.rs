//! FlushCache: remove the keys that the release that is taken back left behind.
//!
//! Idempotent: removing what is gone removes nothing.

use super::{Error, Outcome, Task, done};

pub async fn run(task: &Task<'_>, prefix: &str) -> Result<Outcome, Error> {
    let removed = task.cache().await?.flush(prefix).await?;
    done(format!("{removed} keys below {prefix} removed"))
}
