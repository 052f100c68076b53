//! RevertSchema: run down scripts, newest first.
//!
//! Idempotent: the database records each script statement by statement; a migration that is gone is passed over.

use super::{Error, Outcome, Task, done};
use crate::{api::operation::Revert, mysql};

pub async fn run(task: &Task<'_>, reverts: &[Revert]) -> Result<Outcome, Error> {
    let database = task.database().await?;
    let mut labels = Vec::new();
    for Revert { migration: version, release } in reverts {
        let kept = task.kept(*release).await?;
        let migration = kept.content.migrations.iter().find(|migration| migration.version == *version);
        let (migration, down) = migration
            .and_then(|migration| Some((migration, migration.down.as_ref()?)))
            .ok_or_else(|| Error::Inconsistent(format!("release {release} has no down script for migration {version:04}")))?;
        mysql::revert(&database, *version, down).await?;
        labels.push(migration.label());
    }
    done(format!("reverted {}", labels.join(", ")))
}
