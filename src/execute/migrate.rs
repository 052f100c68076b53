//! Migrate: apply a release's migrations.
//!
//! Idempotent: the database records each migration statement by statement; one that is applied is passed over.

use super::{Error, Outcome, Task, done};
use crate::mysql;

pub async fn run(task: &Task<'_>, number: u64, versions: &[u64]) -> Result<Outcome, Error> {
    let kept = task.kept(number).await?;
    let database = task.own_database().await?;
    let mut labels = Vec::new();
    for version in versions {
        let migration = kept
            .content
            .migrations
            .iter()
            .find(|migration| migration.version == *version)
            .ok_or_else(|| Error::Inconsistent(format!("release {number} has no migration {version:04}")))?;
        let script =
            mysql::Migration { version: *version, name: migration.name.clone(), sql: migration.up.clone(), checksum: migration.checksum() };
        task.may_act()?;
        mysql::apply(&database, &script, number, &task.owner().await?).await?;
        labels.push(migration.label());
    }
    done(format!("applied {}", labels.join(", ")))
}
