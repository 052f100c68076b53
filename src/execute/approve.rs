//! Approve: measure what the operation would take away. Whether a person has to agree is for `plan` to say.
//!
//! Idempotent: it reads.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Error, Outcome, Task};
use crate::{
    api::{
        Span,
        operation::{ApprovalState, Loss, Revert, Risk, Tolerated},
    },
    mysql,
};

pub async fn run(task: &Task<'_>, risk: &Risk, now: Timestamp) -> Result<Outcome, Error> {
    Ok(Outcome::Measured { loss: measure(task, risk, now).await? })
}

/// Behind the fence nothing writes any more. Where nobody had to approve because nothing would be lost, that must still be so.
pub async fn still_holds(task: &Task<'_>, tolerated: Tolerated, risk: &Risk, now: Timestamp) -> Result<Result<(), Outcome>, Error> {
    let operation = task.release.status.as_ref().and_then(|status| status.operation.as_ref());
    let approved = operation.and_then(|operation| operation.approval.as_ref()).is_some_and(|it| it.state == ApprovalState::Approved);
    if tolerated == Tolerated::Any || approved {
        return Ok(Ok(()));
    }
    let loss = measure(task, risk, now).await?;
    if loss.is_none() {
        return Ok(Ok(()));
    }
    Ok(Err(Outcome::Unapproved {
        message: format!("it was written to after it was measured: {loss}; a person is asked before it goes on"),
    }))
}

async fn measure(task: &Task<'_>, risk: &Risk, now: Timestamp) -> Result<Loss, Error> {
    let database = task.database().await?;
    let begun = Instant::now();
    let mut loss = Loss {
        inserted: 0,
        changed: 0,
        deleted: 0,
        by_scripts: 0,
        since: None,
        measured_at: now,
        took: Span(Duration::ZERO),
        details: Vec::new(),
        uncertain: false,
    };
    match risk {
        Risk::Replacement { schema, since } => {
            loss.since = *since;
            for table in &mysql::loss(&database, schema).await? {
                loss.inserted += table.inserted;
                loss.changed += table.changed;
                loss.deleted += table.deleted;
                loss.uncertain |= !table.untold.is_empty();
                loss.details.push(table.to_string());
            }
        }
        Risk::Scripts { migrations } => {
            for lost in &mysql::script_loss(&database, &scripts(task, migrations).await?).await? {
                match lost.rows {
                    Some(rows) => loss.by_scripts += rows,
                    None => loss.uncertain = true,
                }
                loss.details.push(format!("{}: {}", lost.migration, lost.what));
            }
        }
    }
    // The age of what was measured counts from its end: measuring a large database takes longer than it may be old.
    let took = begun.elapsed();
    loss.took = Span(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)));
    loss.measured_at = now.checked_add(loss.took.0).unwrap_or(now);
    if loss.details.len() > Loss::LONGEST_LIST {
        let more = loss.details.len() - Loss::LONGEST_LIST;
        loss.details.truncate(Loss::LONGEST_LIST);
        loss.details.push(format!("and {more} more"));
    }
    Ok(loss)
}

/// The down scripts by their migrations' labels, in the order in which they run.
async fn scripts(task: &Task<'_>, migrations: &[Revert]) -> Result<Vec<(String, String)>, Error> {
    let mut scripts = Vec::new();
    for revert in migrations {
        let (migration, down) = task.down_script(revert).await?;
        scripts.push((migration.label(), down));
    }
    Ok(scripts)
}
