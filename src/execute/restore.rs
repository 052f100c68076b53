//! Restore: swap the verified shadow, or what an earlier restore replaced, for the live tables, in one statement.
//!
//! Idempotent: the swapped set carries a marker table that names the operation, so whether the swap happened is a fact of
//! the live database.

use std::time::Duration;

use jiff::Timestamp;

use super::{Error, Outcome, Task, approve, done, fence};
use crate::{
    api::{
        operation::{Risk, Tolerated},
        release::CarryForward,
    },
    mysql::{self, Carried, Marker, Swap},
};

/// How long the swap waits for other transactions on these tables, in tries that each give up at once.
const SWAP_DEADLINE: Duration = Duration::from_secs(30);

/// What is swapped for what.
pub struct Cut<'a> {
    pub point: &'a str,
    pub shadow: &'a str,
    pub aside: &'a str,
    pub release: u64,
    pub tolerated: Tolerated,
    pub carry: CarryForward,
}

pub async fn run(task: &Task<'_>, cut: Cut<'_>, now: Timestamp) -> Result<Outcome, Error> {
    let Cut { point, shadow, aside, release, tolerated, carry } = cut;
    let database = task.own_database().await?;
    let swap = Swap {
        shadow: shadow.to_owned(),
        aside: aside.to_owned(),
        marker: Marker { point: point.to_owned(), operation: task.operation(), release },
        owner: Some(task.owner().await?),
        deadline: SWAP_DEADLINE,
    };
    // Once it has happened there is nothing left to ask: the shadow is the live schema then.
    let live = mysql::inspect(&database).await?.marker;
    if live.is_none_or(|marker| marker.operation != swap.marker.operation) {
        let risk = Risk::Replacement { schema: shadow.to_owned(), since: None };
        if let Err(unapproved) = approve::still_holds(task, tolerated, &risk, now).await? {
            return Ok(unapproved);
        }
        if let Err(open) = fence::holds(task, &fence::planned(task)).await? {
            return Ok(open);
        }
    }
    task.may_act()?;
    mysql::swap(&database, &swap).await?;
    // Behind the fence, so that nobody deletes what would come back.
    let carried = match carry {
        CarryForward::None => Vec::new(),
        CarryForward::Inserts => mysql::carry_forward(&database, aside).await?,
    };
    // Measured after the swap, when neither side changes any more: the same after a crash as before it. Seen from the
    // aside the direction turns round: what it has and the live tables lack was inserted since the point.
    let (mut inserted, mut changed, mut deleted) = (0, 0, 0);
    for table in &mysql::loss(&database, aside).await? {
        inserted += table.deleted;
        changed += table.changed;
        deleted += table.inserted;
    }
    let forward = carried_forward(&carried);
    done(format!(
        "{point} is live; since it was taken {forward}{inserted} rows had been inserted, {changed} changed, {deleted} deleted: they are kept in schema {aside}"
    ))
}

/// What came along, and what did not; empty where nothing was to.
fn carried_forward(tables: &[Carried]) -> String {
    let carried: u64 = tables.iter().map(|table| table.carried).sum();
    let kept: Vec<String> = tables
        .iter()
        .filter(|table| !table.why.is_empty())
        .map(|table| format!("{} of table {} ({})", table.kept, table.table, table.why.join("; ")))
        .collect();
    match (carried, kept.as_slice()) {
        (0, []) => String::new(),
        (_, []) => format!("{carried} rows had been inserted that are live again, and "),
        (_, kept) => format!("{carried} rows had been inserted that are live again, not {}; ", kept.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_carried_forward_is_told_in_one_sentence() {
        let table = |name: &str, carried, kept, why: &[&str]| Carried {
            table: name.to_owned(),
            carried,
            kept,
            why: why.iter().map(|why| (*why).to_owned()).collect(),
        };
        assert_eq!(carried_forward(&[]), "");
        assert_eq!(carried_forward(&[table("a", 3, 0, &[])]), "3 rows had been inserted that are live again, and ");
        assert_eq!(
            carried_forward(&[table("a", 3, 0, &[]), table("b", 1, 2, &["a CHECK does not hold"])]),
            "4 rows had been inserted that are live again, not 2 of table b (a CHECK does not hold); "
        );
    }
}
