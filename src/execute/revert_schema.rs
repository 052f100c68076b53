//! RevertSchema: run down scripts, newest first.
//!
//! Idempotent: the database records each script statement by statement; a migration that is gone is passed over.

use jiff::Timestamp;

use super::{Error, Outcome, Task, approve, done, fence};
use crate::{
    api::operation::{Revert, Risk, Tolerated},
    mysql,
};

pub async fn run(task: &Task<'_>, reverts: &[Revert], tolerated: Tolerated, now: Timestamp) -> Result<Outcome, Error> {
    let database = task.own_database().await?;
    let inventory = mysql::inspect(&database).await?;
    // Once the first script has begun there is no way but on.
    let untouched = reverts.iter().all(|revert| {
        inventory.migrations.iter().any(|applied| applied.version == revert.migration && applied.state == mysql::State::Applied)
    });
    if untouched {
        let risk = Risk::Scripts { migrations: reverts.to_vec() };
        if let Err(unapproved) = approve::still_holds(task, tolerated, &risk, now).await? {
            return Ok(unapproved);
        }
    }
    if let Err(open) = fence::holds(task, &fence::planned(task)).await? {
        return Ok(open);
    }
    let mut labels = Vec::new();
    for revert in reverts {
        let (migration, down) = task.down_script(revert).await?;
        task.may_act()?;
        mysql::revert(&database, migration.version, &down, &task.owner().await?).await?;
        labels.push(migration.label());
    }
    done(format!("reverted {}", labels.join(", ")))
}
