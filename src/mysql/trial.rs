//! A release's migrations on a copy of the data: whether they go through, how long each takes, and whether their down scripts lead back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use object_store::path::Path;
use tokio::time::timeout;

use crate::error::Class;

use super::beside;
use super::definition;
use super::endpoint::Database;
use super::error::{Error, Result};
use super::files;
use super::load::load;
use super::migrate::{self, Migration, apply, revert};
use super::owner::{Owner, take_ownership};
use super::store::Store;
use super::within::Around;

/// Sessions of a load that was given up hold locks until the server has seen that nobody listens: a moment each.
const WHILE_BUSY: usize = 12;
/// Errors that a second copy brings, and the data themselves may not: no room, and privileges on the live schema alone.
const OF_THE_COPY: [u16; 7] = [1021, 1030, 1114, 1044, 1142, 1143, 1227];

/// A migration with its down script, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub migration: Migration,
    pub down: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// All went through, in this order.
    Passed { times: Vec<(String, Duration)>, taken_back: usize },
    /// One did not, or its down script does not lead back to the schema from before it.
    Failed { reason: String },
    /// A copy can't tell, for this reason. Nothing was run.
    Untold { reason: String },
}

/// What is tried, and for whom.
#[derive(Clone, Debug)]
pub struct Tried<'a> {
    /// In the order in which they will be applied.
    pub scripts: &'a [Script],
    pub release: u64,
    pub owner: &'a Owner,
    /// Loading may take so long.
    pub within: Duration,
}

/// Loads the backup at `prefix` into `scratch`, applies the scripts there as they would be applied to the live schema, takes them back with
/// their down scripts, newest first and as far as there are any, and drops the schema. What an earlier try left there is dropped first.
///
/// Scripts that reach beyond the tables of their schema, or need stored objects, which are not on the copy, are not run.
///
/// # Errors
/// As [`load`]; what a migration fails with for a passing reason. Something may be left in the schema then.
pub async fn try_migrations(database: &Database, store: &Store, prefix: &Path, scratch: &str, tried: &Tried<'_>) -> Result<Trial> {
    if let Some(reason) = leaves_the_copy(database, store, prefix, tried.scripts).await? {
        return Ok(Trial::Untold { reason });
    }
    beside::make_room(database, scratch).await?;
    let Ok(loaded) = timeout(tried.within, load(database, store, prefix, scratch)).await else {
        discard(database, scratch).await?;
        return Ok(Trial::Untold { reason: "loading a copy of the data takes longer than that may take".to_owned() });
    };
    loaded?;
    let trial = match forth_and_back(&database.in_schema(scratch), tried).await {
        Ok(trial) => trial,
        Err(Attempt::Failed(reason)) => Trial::Failed { reason },
        Err(Attempt::Untold(reason)) => Trial::Untold { reason },
        Err(Attempt::Broken(error)) => return Err(error),
    };
    discard(database, scratch).await?;
    Ok(trial)
}

async fn leaves_the_copy(database: &Database, store: &Store, prefix: &Path, scripts: &[Script]) -> Result<Option<String>> {
    let manifest = files::complete(store, prefix).await?;
    // A default that takes the next number names the sequence with its schema, which on a copy is the live one.
    if let Some(table) = manifest.tables.iter().find(|table| table.definition.to_lowercase().contains("nextval(")) {
        return Ok(Some(format!("rows of table {} take their numbers from a live sequence", table.name)));
    }
    let mut session = database.session().await?;
    let mut schemas = Vec::new();
    for row in session.rows("list the schemas", "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA").await? {
        schemas.push(row.string(0)?);
    }
    session.close().await;
    let around = Around::new(schemas, &manifest.objects);
    let left = |Script { migration, down }: &Script| {
        let up = around.left_by(&migration.sql).map(|how| format!("{}: {how}", label(migration)));
        up.or_else(|| around.left_by(down.as_ref()?).map(|how| format!("the down script of {}: {how}", label(migration))))
    };
    Ok(scripts.iter().find_map(left))
}

/// Why a try ended.
enum Attempt {
    /// The scripts are not fit.
    Failed(String),
    /// They may be, and the copy is not.
    Untold(String),
    /// It can't be told yet.
    Broken(Error),
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

async fn forth_and_back(copy: &Database, Tried { scripts, release, owner, within: _ }: &Tried<'_>) -> std::result::Result<Trial, Attempt> {
    // The copy may be of a schema that another Release of this name had.
    take_ownership(copy, owner).await?;
    let (mut before, mut times) = (Vec::new(), Vec::new());
    for Script { migration, down: _ } in *scripts {
        before.push(definitions(copy).await?);
        let begun = Instant::now();
        fit(apply(copy, migration, *release, owner).await, String::new)?;
        times.push((label(migration), begun.elapsed()));
    }
    let mut taken_back = 0;
    for (Script { migration, down }, before) in scripts.iter().zip(&before).rev() {
        let Some(down) = down else { break };
        let of = || format!("the down script of {}", label(migration));
        fit(revert(copy, migration.version, down, owner).await, || format!("{} fails: ", of()))?;
        if let Some(difference) = difference(before, &definitions(copy).await?) {
            return Err(Attempt::Failed(format!("{} does not lead back: {difference}", of())));
        }
        taken_back += 1;
    }
    Ok(Trial::Passed { times, taken_back })
}

/// Tells scripts that are not fit from a copy, or a server, that is not.
fn fit(ran: Result<migrate::Outcome>, what: impl FnOnce() -> String) -> std::result::Result<(), Attempt> {
    match ran {
        Ok(_) => Ok(()),
        Err(error) if error.code().is_some_and(|code| OF_THE_COPY.contains(&code)) => Err(Attempt::Untold(error.to_string())),
        // What takes longer than a step may take is no better on the data.
        Err(error @ Error::TimedOut { .. }) => Err(Attempt::Failed(format!("{}{error}", what()))),
        Err(error @ (Error::Migration { .. } | Error::MigrationRefused { .. })) if error.class() == Class::Permanent => {
            Err(Attempt::Failed(format!("{}{error}", what())))
        }
        Err(error) => Err(Attempt::Broken(error)),
    }
}

async fn definitions(copy: &Database) -> Result<BTreeMap<String, String>> {
    let mut session = copy.session().await?;
    let all = definition::all(&mut session, copy.name()).await?;
    session.close().await;
    Ok(all)
}

/// The first table that is not what it was, and in what.
fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Option<String> {
    let missing = before.keys().find(|table| !after.contains_key(*table)).map(|table| format!("table {table} is not there again"));
    let left = after.keys().find(|table| !before.contains_key(*table)).map(|table| format!("table {table} is left"));
    let changed = || {
        before.iter().find_map(|(table, was)| {
            let (was, is) = (parts(was), parts(after.get(table)?));
            let place = (0..was.len().max(is.len())).find(|place| was.get(*place) != is.get(*place))?;
            let part = |parts: &[&str]| parts.get(place).map_or_else(|| "nothing".to_owned(), |part| (*part).to_owned());
            Some(format!("table {table} had {} and has {}", part(&was), part(&is)))
        })
    };
    missing.or(left).or_else(changed)
}

/// Columns in their order, then keys and constraints, whose order means nothing, and options.
fn parts(definition: &str) -> Vec<&str> {
    let lines = definition.lines().map(|line| line.trim().trim_end_matches(','));
    let (mut columns, mut others): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with('`'));
    others.sort_unstable();
    columns.append(&mut others);
    columns
}

async fn discard(database: &Database, scratch: &str) -> Result<()> {
    for _ in 1..WHILE_BUSY {
        match beside::discard(database, scratch).await {
            Err(error) if error.class() == Class::Transient => {}
            ended => return ended,
        }
    }
    beside::discard(database, scratch).await
}

fn label(Migration { version, name, .. }: &Migration) -> String {
    format!("{version:04}_{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_is_not_what_it_was_is_told_by_table_and_part() {
        let schema = |tables: &[(&str, &str)]| {
            tables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect::<BTreeMap<String, String>>()
        };
        let was = "CREATE TABLE `t` (\n  `a` int,\n  `b` int,\n  KEY `x` (`a`),\n  KEY `y` (`b`)\n) ENGINE=InnoDB";
        let before = schema(&[("t", was)]);
        for (after, said) in [
            (schema(&[("t", was)]), None),
            (schema(&[("t", &was.replace("KEY `x` (`a`),\n  KEY `y` (`b`)", "KEY `y` (`b`),\n  KEY `x` (`a`)"))]), None),
            (schema(&[]), Some("table t is not there again")),
            (schema(&[("t", was), ("u", was)]), Some("table u is left")),
            (schema(&[("t", &was.replace("  KEY `x` (`a`),\n", ""))]), Some("table t had KEY `x` (`a`) and has KEY `y` (`b`)")),
            (schema(&[("t", &was.replace("`a` int,\n  `b` int", "`b` int,\n  `a` int"))]), Some("table t had `a` int and has `b` int")),
        ] {
            assert_eq!(difference(&before, &after).as_deref(), said);
        }
    }
}
