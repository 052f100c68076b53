//! RehearseMigrations: run the release's migrations on a copy of the data before they are run on the data.
//!
//! Nothing live is touched. Idempotent: it begins anew, in a schema that it drops first.

use std::time::Duration;

use super::{Error, Outcome, Task, done, migrate};
use crate::{
    api::Span,
    mysql::{self, Script, Trial, Tried},
};

/// So often it is begun anew where the server went away.
const TRIES: u32 = 5;

/// The copy.
pub struct Copy<'a> {
    pub point: &'a str,
    pub scratch: &'a str,
    /// Loading it may take so long.
    pub within: Duration,
}

pub async fn run(
    task: &Task<'_>,
    attempt: u32,
    (number, versions): (u64, &[u64]),
    Copy { point, scratch, within }: Copy<'_>,
    at_most: Option<Span>,
) -> Result<Outcome, Error> {
    let kept = task.kept(number).await?;
    let mut scripts = Vec::new();
    for version in versions {
        let migration = migrate::named(&kept, number, *version)?;
        scripts.push(Script { migration: migrate::script(migration), down: migration.down.clone() });
    }
    let (store, database, owner) = (task.readable_store().await?, task.heard_database().await?, task.owner().await?);
    let tried = Tried { scripts: &scripts, release: number, owner: &owner, within };
    let trial = match mysql::try_migrations(&database, &store, &task.prefix(point), scratch, &tried).await {
        // A server that goes away each time may do so because of the scripts.
        Err(error @ mysql::Error::Lost { .. }) if attempt >= TRIES => {
            return Ok(Outcome::Failed { message: format!("on a copy of the data, {attempt} times: {error}") });
        }
        trial => trial?,
    };
    match trial {
        Trial::Passed { times, taken_back } => {
            let all: Duration = times.iter().map(|(_, took)| *took).sum();
            let each: Vec<String> = times.iter().map(|(migration, took)| format!("{migration} {}", told(*took))).collect();
            let measured = format!("on a copy of the data the migrations took {} ({})", told(all), each.join(", "));
            match at_most.filter(|limit| all > limit.0) {
                Some(limit) => Ok(Outcome::Failed { message: format!("{measured}; spec.database.rehearseMigrations.atMost is {limit}") }),
                None => done(format!("{measured}, and {}", ways_back(taken_back, scripts.len()))),
            }
        }
        Trial::Failed { reason } => Ok(Outcome::Failed { message: format!("on a copy of the data: {reason}") }),
        Trial::Untold { reason } => done(format!("the migrations were not tried on a copy of the data: {reason}")),
    }
}

fn told(took: Duration) -> Span {
    Span(took.max(Duration::from_millis(1)))
}

fn ways_back(taken_back: usize, of: usize) -> String {
    match taken_back {
        0 => "there is no down script to take them back with".to_owned(),
        _ if taken_back == of => "their down scripts lead back".to_owned(),
        _ => format!("the down scripts of the last {taken_back} of {of} lead back"),
    }
}
