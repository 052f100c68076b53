//! What a cut-over would take away: the rows of the live schema that the shadow does not have, has differently, or has in addition.
//! Reads only, both schemas as of one instant, range by range of the primary key: rows are compared only where the sums differ.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::beside;
use super::bookkeeping::is_own;
use super::checksum;
use super::chunk::{Key, Range};
use super::crew::{self, Jobs};
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::{qualified, quote};
use super::inspect::{Column, Content, Fallback, Table, Versions};
use super::rows::{self, Encoding};
use super::views;

/// Of a system-versioned table of which every row is as it was.
const OTHER_PAST: &str = "rows were changed and changed back, or the history was";

/// The difference of one table, as seen from the backup point: what happened since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableLoss {
    pub table: String,
    /// Rows that only the live table has: a cut-over moves them aside.
    pub inserted: u64,
    /// Rows whose values differ in the columns that both have, or that hold something in a column that only the live table has.
    pub changed: u64,
    /// Rows that only the shadow has: a cut-over brings them back.
    pub deleted: u64,
    pub basis: Basis,
    /// What could not be compared, for people: it may have changed, and nothing above counts it.
    pub untold: Vec<String>,
}

impl TableLoss {
    fn none(table: &str) -> Self {
        Self { table: table.to_owned(), inserted: 0, changed: 0, deleted: 0, basis: Basis::Key, untold: Vec::new() }
    }

    fn is_none(&self) -> bool {
        let Self { table: _, inserted, changed, deleted, basis: _, untold } = self;
        *inserted == 0 && *changed == 0 && *deleted == 0 && untold.is_empty()
    }

    /// Takes in another part of the same table.
    fn add(&mut self, part: Self) {
        self.inserted += part.inserted;
        self.changed += part.changed;
        self.deleted += part.deleted;
        self.untold.extend(part.untold.into_iter().filter(|what| !self.untold.contains(what)).collect::<Vec<_>>());
    }
}

impl fmt::Display for TableLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, inserted, changed, deleted, basis, untold } = self;
        let basis = if *basis == Basis::Count { ", by number only" } else { "" };
        write!(f, "{table}: {inserted} inserted, {changed} changed, {deleted} deleted{basis}")?;
        untold.iter().try_for_each(|what| write!(f, "; {what}"))
    }
}

/// How the rows were told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Basis {
    /// By primary key.
    Key,
    /// Without a primary key that both have, by the numbers of rows: rows that came and went cancel each other out. Whether anything
    /// differs at all is told by the sum of the rows.
    Count,
}

/// One entry for each table that differs, by name; the engine's own tables left out.
///
/// # Errors
/// [`Error::Schema`] when there is no such shadow.
pub async fn loss(database: &Database, shadow: &str) -> Result<Vec<TableLoss>> {
    beside::check_name(database.name(), shadow)?;
    let mut views = views::open(database, database.connections()).await?;
    let Some(first) = views.sessions.first_mut() else { return Ok(Vec::new()) };
    if beside::sign(first, shadow).await?.is_none() {
        return Err(Error::Schema { schema: shadow.to_owned(), reason: "it is not there: load it first".to_owned() });
    }
    let mut live = beside::tables(first, database.name()).await?;
    live.retain(|table| !is_own(&table.name));
    let mut replacement = beside::tables(first, shadow).await?;
    replacement.retain(|table| !is_own(&table.name));

    let mut pairs: Vec<Pair> = Vec::new();
    for table in live {
        let other = replacement.iter().position(|other| other.name == table.name).map(|at| replacement.swap_remove(at));
        pairs.push(other.map_or_else(|| Pair::Leaving(table.clone()), |other| Pair::Twins(table.clone(), other)));
    }
    pairs.extend(replacement.into_iter().map(Pair::Returning));
    let schemas = Arc::new(Schemas { live: database.name().to_owned(), shadow: shadow.to_owned(), chunk: database.chunk() });
    let jobs = pairs.into_iter().map(|pair| Job { pair: Arc::new(pair), after: None });
    let counted = crew::share(views.sessions, jobs, move |session, job, jobs| Arc::clone(&schemas).part(session, job, jobs));
    let (sessions, parts) = counted.await?;
    crew::dismiss(sessions).await;

    let mut losses: BTreeMap<String, TableLoss> = BTreeMap::new();
    for part in parts.into_iter().filter(|part| !part.is_none()) {
        match losses.entry(part.table.clone()) {
            Entry::Vacant(first) => drop(first.insert(part)),
            Entry::Occupied(mut sum) => sum.get_mut().add(part),
        }
    }
    Ok(losses.into_values().collect())
}

/// What becomes of a table.
enum Pair {
    /// Only the live schema has it.
    Leaving(Table),
    /// Only the shadow has it.
    Returning(Table),
    Twins(Table, Table),
}

/// A pair, or what of it comes after a key.
struct Job {
    pair: Arc<Pair>,
    after: Option<Vec<String>>,
}

/// Where the tables are.
struct Schemas {
    live: String,
    shadow: String,
    /// Bytes of rows that are compared at once.
    chunk: u64,
}

impl Schemas {
    /// One range of one table, or the whole table. The rest of it becomes another job.
    async fn part(self: Arc<Self>, mut session: Session, Job { pair, after }: Job, jobs: Arc<Jobs<Job>>) -> Result<(Session, TableLoss)> {
        let loss = match &*pair {
            Pair::Leaving(table) => TableLoss { inserted: count(&mut session, &self.live, table).await?, ..TableLoss::none(&table.name) },
            Pair::Returning(table) => {
                TableLoss { deleted: count(&mut session, &self.shadow, table).await?, ..TableLoss::none(&table.name) }
            }
            Pair::Twins(table, other) => {
                let twins = Twins { schemas: &self, table, other, comparable: common(table, other) };
                if twins.have_the_same_key() {
                    let range = match Key::of(table).filter(|_| twins.sort_alike()) {
                        Some(key) => key.range(&mut session, (&self.live, table), after, self.chunk).await?,
                        None => Range::default(),
                    };
                    if range.upto.is_some() {
                        jobs.push(Job { pair: Arc::clone(&pair), after: range.upto.clone() });
                    }
                    twins.compare(&mut session, &range).await?
                } else {
                    by_number(&mut session, &self.live, &self.shadow, table, other).await?
                }
            }
        };
        Ok((session, loss))
    }
}

/// A table and what would replace it.
struct Twins<'a> {
    schemas: &'a Schemas,
    table: &'a Table,
    other: &'a Table,
    comparable: Vec<(&'a str, Encoding)>,
}

impl Twins<'_> {
    fn has(&self, name: &str) -> bool {
        self.comparable.iter().any(|(column, _)| *column == name)
    }

    fn have_the_same_key(&self) -> bool {
        let Self { table, other, .. } = self;
        !table.key.is_empty() && table.key == other.key && table.key.iter().all(|name| self.has(name))
    }

    /// Whether the same keys come before and after an end of a range in both.
    fn sort_alike(&self) -> bool {
        let collation =
            |table: &Table, name: &String| table.columns.iter().find(|column| column.name == *name).map(|column| column.collation.clone());
        self.table.key_is_whole
            && self.other.key_is_whole
            && self.table.key.iter().all(|name| collation(self.table, name) == collation(self.other, name))
    }

    /// Row by row only where the sums are not the same: most of most tables does not change.
    async fn compare(&self, session: &mut Session, range: &Range) -> Result<TableLoss> {
        let Self { table, other, .. } = self;
        let mut loss = TableLoss::none(&table.name);
        let mut filled_ones = Vec::new();
        for column in table.columns.iter().filter(|column| column.content == Content::Given && !self.has(&column.name)) {
            if other.columns.iter().any(|twin| twin.name == column.name) {
                loss.untold.push(format!("column {} is of another type", column.name));
            } else {
                filled_ones.push(filled(column));
            }
        }
        let digest = |alias: &str| rows::digest(self.comparable.iter().copied(), alias);
        let here = checksum::sum_by(session, &self.schemas.live, (table, Versions::Last), range, &digest("t")).await?;
        let there = checksum::sum_by(session, &self.schemas.shadow, (other, Versions::Last), range, &digest("t")).await?;
        let (l, s) = (qualified(&self.schemas.live, &table.name), qualified(&self.schemas.shadow, &table.name));
        let on = table.key.iter().map(|column| format!("l.{0} = s.{0}", quote(column))).collect::<Vec<_>>().join(" AND ");
        let first = table.key.first().map(|column| quote(column)).unwrap_or_default();
        let within = |alias: &str| range.condition(&table.key, alias).map(|rows| format!(" AND {rows}")).unwrap_or_default();
        if here == there {
            if other_past(session, &self.schemas.live, &self.schemas.shadow, (table, other), range).await? {
                loss.untold.push(OTHER_PAST.to_owned());
            }
            // What both can hold is the same: left is what only the live table can.
            if !filled_ones.is_empty() {
                let changed = format!("SELECT COUNT(*) FROM {l} AS l WHERE ({}){}", filled_ones.join(" OR "), within("l"));
                loss.changed = ask(session, &table.name, changed).await?;
            }
            return Ok(loss);
        }
        let only = |left: &str, here: &str, right: &str, there: &str| {
            format!(
                "SELECT COUNT(*) FROM {left} AS {here} LEFT JOIN {right} AS {there} ON {on} WHERE {there}.{first} IS NULL{}",
                within(here)
            )
        };
        loss.inserted = ask(session, &table.name, only(&l, "l", &s, "s")).await?;
        loss.deleted = ask(session, &table.name, only(&s, "s", &l, "l")).await?;
        let differs: Vec<String> = std::iter::once(format!("{} <> {}", digest("l"), digest("s"))).chain(filled_ones).collect();
        let changed = format!("SELECT COUNT(*) FROM {l} AS l JOIN {s} AS s ON {on} WHERE ({}){}", differs.join(" OR "), within("l"));
        loss.changed = ask(session, &table.name, changed).await?;
        Ok(loss)
    }
}

/// Somebody gave this column of the live table a value.
fn filled(column: &Column) -> String {
    let name = format!("l.{}", quote(&column.name));
    match column.default {
        Fallback::Given => format!("NOT ({name} <=> DEFAULT({name}))"),
        Fallback::None => format!("{name} IS NOT NULL"),
    }
}

/// Without a key that says which row is which.
async fn by_number(session: &mut Session, live: &str, shadow: &str, table: &Table, other: &Table) -> Result<TableLoss> {
    let given = |table: &Table| table.columns.iter().filter(|column| column.content == Content::Given).count();
    let alike = [given(table), given(other)].iter().all(|columns| *columns == common(table, other).len());
    let digest = rows::digest(common(table, other), "t");
    let here = checksum::sum_by(session, live, (table, Versions::Last), &Range::default(), &digest).await?;
    let there = checksum::sum_by(session, shadow, (other, Versions::Last), &Range::default(), &digest).await?;
    let untold = if !alike || here != there {
        vec!["without a common key, rows that changed can't be counted".to_owned()]
    } else if other_past(session, live, shadow, (table, other), &Range::default()).await? {
        vec![OTHER_PAST.to_owned()]
    } else {
        Vec::new()
    };
    let (inserted, deleted) = (here.rows.saturating_sub(there.rows), there.rows.saturating_sub(here.rows));
    Ok(TableLoss { inserted, deleted, basis: Basis::Count, untold, ..TableLoss::none(&table.name) })
}

/// Whether rows of the past differ, in the columns that both have.
async fn other_past(session: &mut Session, live: &str, shadow: &str, (table, other): (&Table, &Table), range: &Range) -> Result<bool> {
    if !table.is_versioned {
        return Ok(false);
    }
    let digest = rows::digest(common(table, other), "t");
    let past = checksum::sum_by(session, live, (table, Versions::All), range, &digest).await?;
    Ok(past != checksum::sum_by(session, shadow, (other, Versions::All), range, &digest).await?)
}

/// The columns that both tables store in a form that can be compared.
fn common<'a>(table: &'a Table, other: &Table) -> Vec<(&'a str, Encoding)> {
    let is_comparable = |a: &Column, b: &Column| {
        let same_text = match Encoding::of(a) {
            // A VARCHAR that only became longer holds the same values; a DECIMAL of another scale prints them differently.
            Some(Encoding::Short(_) | Encoding::Long(_)) => Encoding::of(a) == Encoding::of(b),
            _ => a.column_type == b.column_type,
        };
        same_text && a.charset == b.charset && a.content == Content::Given && b.content == Content::Given
    };
    table
        .columns
        .iter()
        .filter(|column| other.columns.iter().any(|twin| twin.name == column.name && is_comparable(column, twin)))
        .filter_map(|column| Some((column.name.as_str(), Encoding::of(column)?)))
        .collect()
}

/// With the rows of the past.
async fn count(session: &mut Session, schema: &str, table: &Table) -> Result<u64> {
    ask(session, &table.name, format!("SELECT COUNT(*) FROM {}{}", qualified(schema, &table.name), table.versions(Versions::All))).await
}

async fn ask(session: &mut Session, table: &str, sql: String) -> Result<u64> {
    let doing = format!("compare table {table} with its replacement");
    match session.rows_long(&doing, sql).await?.first() {
        Some(row) => row.count(0),
        None => Err(Error::Unreadable { doing, reason: "no row".to_owned() }),
    }
}
