//! Migrate: apply a release's migrations.
//!
//! Idempotent: the database records each migration statement by statement; one that is applied is passed over.

use super::{Error, Outcome, Task, done};
use crate::{
    api::{Kept, Migration},
    mysql,
};

pub async fn run(task: &Task<'_>, number: u64, versions: &[u64]) -> Result<Outcome, Error> {
    let kept = task.kept(number).await?;
    let database = task.own_database().await?;
    let mut labels = Vec::new();
    for version in versions {
        let migration = named(&kept, number, *version)?;
        task.may_act()?;
        mysql::apply(&database, &script(migration), number, &task.owner().await?).await?;
        labels.push(migration.label());
    }
    done(format!("applied {}", labels.join(", ")))
}

/// A migration of a kept release.
pub fn named(kept: &Kept, number: u64, version: u64) -> Result<&Migration, Error> {
    let found = kept.content.migrations.iter().find(|migration| migration.version == version);
    found.ok_or_else(|| Error::Inconsistent(format!("release {number} has no migration {version:04}")))
}

/// The same as the database records it.
pub fn script(migration: &Migration) -> mysql::Migration {
    let Migration { version, name, up, .. } = migration;
    mysql::Migration { version: *version, name: name.clone(), sql: up.clone(), checksum: migration.checksum() }
}
