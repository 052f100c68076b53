//! Carrying forward: rows that were inserted since the backup point, and stand aside, are copied into the tables that were restored.
//!
//! Only rows whose key the live tables lack, so what is there is never changed, and doing it again does nothing. Idempotent by that. It
//! belongs right behind the cut-over, before anything else writes: a row that somebody deletes in between comes back.
//!
//! What does not fit stays aside, counted, and why in the engine's own words: the server's would quote rows.

use std::collections::BTreeSet;

use serde::Serialize;

use super::beside::{self, Beside, Standing};
use super::bookkeeping::is_own;
use super::chunk::{Key, Range};
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::{literal, qualified, quote};
use super::inspect::{Content, Table};
use super::stored::{self, Listed, StoredKind};
use super::swap;

/// Bytes of rows that are copied by one statement: it holds no lock for long, and of a range with a misfit each row is tried by itself.
const PORTION: u64 = 512 * 1024;
/// Rows may refer to rows of tables that come later, where foreign keys go in circles.
const PASSES: usize = 3;
/// Unlike elsewhere a value that does not fit is refused, and so is a row whose parent is not there.
const STRICTLY: &str = "SET sql_mode='STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', \
    foreign_key_checks=1, check_constraint_checks=1, tx_isolation='READ-COMMITTED'";

/// What became of a table's rows that stood aside and were not in the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Carried {
    pub table: String,
    /// Rows that are live now.
    pub carried: u64,
    /// Rows that only the aside has.
    pub kept: u64,
    /// Why rows were kept, and what of those carried could not come along; never a value.
    pub why: Vec<String>,
}

/// Copies into the live tables what `aside` has and they lack, parents before children, in the order of the primary key. One entry for
/// each table of which something stood aside.
///
/// # Errors
/// [`Error::Schema`] when `aside` does not hold what a cut-over replaced.
pub async fn carry_forward(database: &Database, aside: &str) -> Result<Vec<Carried>> {
    beside::check_name(database.name(), aside)?;
    let mut session = database.locked().await?;
    swap::settle(&mut session, database).await?;
    if !matches!(beside::sign(&mut session, aside).await?, Some(Beside { state: Standing::Aside, .. })) {
        return Err(Error::Schema { schema: aside.to_owned(), reason: "it does not hold what a cut-over replaced".to_owned() });
    }
    let stored = stored::list(&mut session, database.name()).await?;
    let live = beside::tables(&mut session, database.name()).await?;
    let mut pairs: Vec<Pair> = Vec::new();
    for replaced in beside::tables(&mut session, aside).await?.into_iter().filter(|table| !is_own(&table.name)) {
        if let Some(live) = live.iter().find(|live| live.name == replaced.name) {
            pairs.push(Pair::of(database.name(), live, aside, replaced, &stored));
        }
    }
    parents_first(&mut pairs, &references(&mut session, database.name()).await?);
    let mut asides = Vec::new();
    for pair in pairs {
        let kept = pair.missing(&mut session).await?;
        if kept > 0 {
            asides.push(Aside { pair, carried: 0, kept, why: BTreeSet::new() });
        }
    }
    session.run("refuse what does not fit", STRICTLY).await?;
    for _ in 0..PASSES {
        let mut copied = 0;
        for aside in asides.iter_mut().filter(|aside| aside.kept > 0) {
            copied += aside.copy(&mut session).await?;
        }
        if copied == 0 {
            break;
        }
    }
    session.close().await;
    Ok(asides.into_iter().map(Aside::outcome).collect())
}

/// What of a table stands aside, and what has become of it so far.
struct Aside {
    pair: Pair,
    carried: u64,
    kept: u64,
    /// In the last pass.
    why: BTreeSet<&'static str>,
}

impl Aside {
    /// One pass; how many rows it brought over.
    async fn copy(&mut self, session: &mut Session) -> Result<u64> {
        self.why.clear();
        let copied = self.pair.copy(session, &mut self.why).await?;
        self.carried += copied;
        self.kept = self.kept.saturating_sub(copied);
        Ok(copied)
    }

    fn outcome(self) -> Carried {
        let Self { pair: Pair { replaced, dropped, .. }, carried, kept, why } = self;
        let mut why: Vec<String> = why.into_iter().map(ToOwned::to_owned).collect();
        if carried > 0 && !dropped.is_empty() {
            why.push(format!("without what the restored table has no column for: {}", dropped.join(", ")));
        }
        Carried { table: replaced.name, carried, kept, why }
    }
}

/// A table as it is live and as it stands aside.
struct Pair {
    live: String,
    aside: String,
    aside_schema: String,
    replaced: Table,
    /// Of both, in the same order; empty where rows can't be told from each other.
    key: Vec<String>,
    /// That both have and somebody writes.
    columns: Vec<String>,
    /// That only the replaced table has.
    dropped: Vec<String>,
    /// Why nothing is copied, whatever is there.
    barred: Option<&'static str>,
}

impl Pair {
    fn of(database: &str, live: &Table, schema: &str, replaced: Table, stored: &[Listed]) -> Self {
        let has_key = live.key_is_whole && replaced.key_is_whole && live.key == replaced.key && !live.key.is_empty();
        let fires = |object: &Listed| object.kind == StoredKind::Trigger && object.fires_on_insert(&live.name);
        let barred = if !has_key {
            Some("it has no primary key, or another one than before: rows can't be told from each other")
        } else if stored.iter().any(fires) {
            Some("its triggers would do once more what they did")
        } else {
            None
        };
        let is_written =
            |table: &Table, name: &str| table.columns.iter().any(|other| other.name == name && other.content == Content::Given);
        let names = |table: &Table| -> Vec<String> {
            table.columns.iter().filter(|column| column.content == Content::Given).map(|column| column.name.clone()).collect()
        };
        Self {
            live: qualified(database, &live.name),
            aside: qualified(schema, &live.name),
            aside_schema: schema.to_owned(),
            key: if has_key { live.key.clone() } else { Vec::new() },
            columns: names(live).into_iter().filter(|name| replaced.columns.iter().any(|column| column.name == *name)).collect(),
            dropped: names(&replaced).into_iter().filter(|name| !is_written(live, name)).collect(),
            barred,
            replaced,
        }
    }

    /// How many rows only the aside has.
    async fn missing(&self, session: &mut Session) -> Result<u64> {
        let sql = if self.key.is_empty() {
            format!(
                "SELECT GREATEST(0, CAST((SELECT COUNT(*) FROM {}) AS SIGNED) - CAST((SELECT COUNT(*) FROM {}) AS SIGNED))",
                self.aside, self.live
            )
        } else {
            format!("SELECT COUNT(*) FROM {} AS `a` WHERE {}", self.aside, self.is_missing())
        };
        let rows = session.rows_long(&format!("count what stands aside of table {}", self.replaced.name), sql).await?;
        rows.first().map_or(Ok(0), |row| row.count(0))
    }

    fn is_missing(&self) -> String {
        let same: Vec<String> = self.key.iter().map(|column| format!("`l`.{0} = `a`.{0}", quote(column))).collect();
        format!("NOT EXISTS (SELECT 1 FROM {} AS `l` WHERE {})", self.live, same.join(" AND "))
    }

    /// Copies what fits, says why the rest does not, and how many rows it was.
    async fn copy(&self, session: &mut Session, why: &mut BTreeSet<&'static str>) -> Result<u64> {
        if let Some(barred) = self.barred {
            why.insert(barred);
            return Ok(0);
        }
        let Some(key) = Key::of(&self.replaced) else {
            // Its keys have no literals: the table is one portion.
            return Ok(noted(self.insert(session, None).await?, why));
        };
        let schema = (self.aside_schema.as_str(), &self.replaced);
        let (mut after, mut copied) = (None, 0);
        loop {
            let range = key.range(session, schema, after, PORTION).await?;
            copied += match self.insert(session, range.condition(&key.columns, "a")).await? {
                Tried::Fits(rows) => rows,
                Tried::Misfit(_) => self.one_by_one(session, &key, &range, why).await?,
            };
            match range.upto {
                Some(upto) => after = Some(upto),
                None => return Ok(copied),
            }
        }
    }

    /// Of a range in which something does not fit.
    async fn one_by_one(&self, session: &mut Session, key: &Key, range: &Range, why: &mut BTreeSet<&'static str>) -> Result<u64> {
        let doing = format!("list what stands aside of table {}", self.replaced.name);
        let within = range.condition(&key.columns, "a").map(|condition| format!(" AND {condition}")).unwrap_or_default();
        let columns: Vec<String> = key.columns.iter().map(|column| format!("`a`.{}", quote(column))).collect();
        let sql =
            format!("SELECT 0,{} FROM {} AS `a` WHERE {}{within}{}", columns.join(","), self.aside, self.is_missing(), key.order("a"));
        session.run(&doing, "SET character_set_results=NULL").await?;
        let rows = session.rows_long(&doing, sql).await?;
        session.run(&doing, "SET character_set_results=utf8mb4").await?;
        let mut copied = 0;
        for row in rows {
            let values = (1..=key.columns.len()).map(|index| row.bytes(index)).collect::<Result<Vec<_>>>()?;
            let is_it: Vec<String> =
                columns.iter().zip(key.literals(values)).map(|(column, value)| format!("{column} = {value}")).collect();
            copied += noted(self.insert(session, Some(is_it.join(" AND "))).await?, why);
        }
        Ok(copied)
    }

    /// Copies all rows that are missing and meet `condition`, or none of them.
    async fn insert(&self, session: &mut Session, condition: Option<String>) -> Result<Tried> {
        let list = |alias: &str| self.columns.iter().map(|column| format!("{alias}{}", quote(column))).collect::<Vec<_>>().join(",");
        let within = condition.map(|condition| format!(" AND {condition}")).unwrap_or_default();
        let order: Vec<String> = self.key.iter().map(|column| format!("`a`.{}", quote(column))).collect();
        let sql = format!(
            "INSERT INTO {} ({}) SELECT {} FROM {} AS `a` WHERE {}{within} ORDER BY {}",
            self.live,
            list(""),
            list("`a`."),
            self.aside,
            self.is_missing(),
            order.join(",")
        );
        match session.run_long(&format!("carry rows of table {} forward", self.replaced.name), sql).await {
            Ok(rows) => Ok(Tried::Fits(rows)),
            Err(error) => error.code().and_then(misfit).map(Tried::Misfit).ok_or(error),
        }
    }
}

/// What came of an insertion.
enum Tried {
    /// So many rows.
    Fits(u64),
    /// None, and why.
    Misfit(&'static str),
}

/// How many rows it was; why none, is noted.
fn noted(tried: Tried, why: &mut BTreeSet<&'static str>) -> u64 {
    match tried {
        Tried::Fits(rows) => rows,
        Tried::Misfit(reason) => {
            why.insert(reason);
            0
        }
    }
}

/// What keeps a row from being inserted; any other error is one.
fn misfit(code: u16) -> Option<&'static str> {
    match code {
        1062 | 1586 => Some("another row has the value of a unique key"),
        1216 | 1452 => Some("what a foreign key refers to is not there"),
        4025 => Some("a CHECK does not hold"),
        1048 | 1364 => Some("a column that must have a value has none"),
        1264 | 1265 | 1292 | 1366 | 1406 | 1411 | 1416 | 1526 | 1690 | 1977 => Some("a value does not fit its column"),
        _ => None,
    }
}

/// Child and parent of every foreign key within a schema.
async fn references(session: &mut Session, schema: &str) -> Result<Vec<(String, String)>> {
    let sql = format!(
        "SELECT DISTINCT TABLE_NAME, REFERENCED_TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE \
         WHERE TABLE_SCHEMA = {0} AND REFERENCED_TABLE_SCHEMA = {0}",
        literal(schema)
    );
    session.rows("list the foreign keys", &sql).await?.iter().map(|row| Ok((row.string(0)?, row.string(1)?))).collect()
}

/// Tables behind those that they refer to; where that goes in circles, by name.
fn parents_first(pairs: &mut Vec<Pair>, references: &[(String, String)]) {
    let mut waiting = std::mem::take(pairs);
    while !waiting.is_empty() {
        let refers = |child: &Pair, parent: &Pair| {
            child.replaced.name != parent.replaced.name
                && references.iter().any(|(from, to)| *from == child.replaced.name && *to == parent.replaced.name)
        };
        let next = waiting.iter().position(|pair| waiting.iter().all(|other| !refers(pair, other))).unwrap_or(0);
        pairs.push(waiting.remove(next));
    }
}
