//! Restore: swap the verified shadow for the live tables, in one statement.
//!
//! Idempotent: the swapped set carries a marker table that names the operation, so whether the swap happened is a fact of
//! the live database.

use std::time::Duration;

use super::{Error, Outcome, Task, done};
use crate::mysql::{self, Marker, Swap};

/// How long the swap waits for other transactions on these tables, in tries that each give up at once.
const SWAP_DEADLINE: Duration = Duration::from_secs(30);

pub async fn run(task: &Task<'_>, point: &str, shadow: &str, aside: &str, number: u64) -> Result<Outcome, Error> {
    let database = task.database().await?;
    let swap = Swap {
        shadow: shadow.to_owned(),
        aside: aside.to_owned(),
        marker: Marker { point: point.to_owned(), operation: task.operation(), release: number },
        deadline: SWAP_DEADLINE,
    };
    mysql::swap(&database, &swap).await?;
    // Measured after the swap, when neither side changes any more: the same after a crash as before it. Seen from the
    // aside the direction turns round: what it has and the live tables lack was inserted since the point.
    let (mut inserted, mut changed, mut deleted) = (0, 0, 0);
    for table in &mysql::loss(&database, aside).await? {
        inserted += table.deleted;
        changed += table.changed;
        deleted += table.inserted;
    }
    done(format!(
        "BackupPoint {point} is live; since it was taken {inserted} rows had been inserted, {changed} changed, {deleted} deleted: they are kept in schema {aside}"
    ))
}
