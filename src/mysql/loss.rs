//! What a cut-over would take away: the rows of the live schema that the shadow does not have, has differently, or has in addition.
//! Reads only, both schemas in one snapshot.

use super::beside;
use super::bookkeeping::is_own;
use super::checksum;
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::{qualified, quote};
use super::inspect::{Column, Content, Fallback, Table};
use super::rows::{self, Encoding};

/// The difference of one table, as seen from the backup point: what happened since.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    fn is_none(&self) -> bool {
        let Self { table: _, inserted, changed, deleted, basis: _, untold } = self;
        *inserted == 0 && *changed == 0 && *deleted == 0 && untold.is_empty()
    }
}

/// How the rows were told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    let mut session = database.session().await?;
    if beside::sign(&mut session, shadow).await?.is_none() {
        return Err(Error::Schema { schema: shadow.to_owned(), reason: "it is not there: load it first".to_owned() });
    }
    session.run("begin the snapshot", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    session.run("begin the snapshot", "START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let mut live = beside::tables(&mut session, database.name()).await?;
    live.retain(|table| !is_own(&table.name));
    let mut replacement = beside::tables(&mut session, shadow).await?;
    replacement.retain(|table| !is_own(&table.name));

    let mut losses = Vec::new();
    for table in &live {
        let other = replacement.iter().find(|other| other.name == table.name);
        losses.push(one(&mut session, database.name(), shadow, table, other).await?);
    }
    for table in replacement.iter().filter(|table| live.iter().all(|other| other.name != table.name)) {
        let deleted = count(&mut session, shadow, &table.name).await?;
        losses.push(TableLoss { table: table.name.clone(), inserted: 0, changed: 0, deleted, basis: Basis::Key, untold: Vec::new() });
    }
    session.close().await;
    losses.retain(|loss| !loss.is_none());
    losses.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(losses)
}

async fn one(session: &mut Session, live: &str, shadow: &str, table: &Table, other: Option<&Table>) -> Result<TableLoss> {
    let name = table.name.clone();
    let Some(other) = other else {
        let inserted = count(session, live, &name).await?;
        return Ok(TableLoss { table: name, inserted, changed: 0, deleted: 0, basis: Basis::Key, untold: Vec::new() });
    };
    let comparable = common(table, other);
    let has = |name: &String| comparable.iter().any(|(column, _)| *column == name);
    if table.key.is_empty() || table.key != other.key || !table.key.iter().all(has) {
        return by_number(session, live, shadow, table, other).await;
    }
    let on = table.key.iter().map(|column| format!("l.{0} = s.{0}", quote(column))).collect::<Vec<_>>().join(" AND ");
    let first = table.key.first().map(|column| quote(column)).unwrap_or_default();
    let (l, s) = (qualified(live, &name), qualified(shadow, &name));
    let only = |left: &str, right: &str, missing: &str| {
        format!("SELECT COUNT(*) FROM {left} LEFT JOIN {right} ON {on} WHERE {missing}.{first} IS NULL")
    };
    let inserted = ask(session, &name, only(&format!("{l} AS l"), &format!("{s} AS s"), "s")).await?;
    let deleted = ask(session, &name, only(&format!("{s} AS s"), &format!("{l} AS l"), "l")).await?;
    let (digest_here, digest_there) = (rows::digest(comparable.iter().copied(), "l"), rows::digest(comparable.iter().copied(), "s"));
    let mut differs = vec![format!("{digest_here} <> {digest_there}")];
    let mut untold = Vec::new();
    for column in table.columns.iter().filter(|column| column.content == Content::Given && !has(&column.name)) {
        if other.columns.iter().any(|twin| twin.name == column.name) {
            untold.push(format!("column {} is of another type", column.name));
        } else {
            differs.push(filled(column));
        }
    }
    let differs = differs.join(" OR ");
    let changed = ask(session, &name, format!("SELECT COUNT(*) FROM {l} AS l JOIN {s} AS s ON {on} WHERE {differs}")).await?;
    Ok(TableLoss { table: name, inserted, changed, deleted, basis: Basis::Key, untold })
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
    let name = table.name.clone();
    let given = |table: &Table| table.columns.iter().filter(|column| column.content == Content::Given).count();
    let alike = [given(table), given(other)].iter().all(|columns| *columns == common(table, other).len());
    let (here, there) = (checksum::sum(session, live, table).await?, checksum::sum(session, shadow, other).await?);
    let untold =
        if alike && here == there { Vec::new() } else { vec!["without a common key, rows that changed can't be counted".to_owned()] };
    let (inserted, deleted) = (here.rows.saturating_sub(there.rows), there.rows.saturating_sub(here.rows));
    Ok(TableLoss { table: name, inserted, changed: 0, deleted, basis: Basis::Count, untold })
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

async fn count(session: &mut Session, schema: &str, table: &str) -> Result<u64> {
    ask(session, table, format!("SELECT COUNT(*) FROM {}", qualified(schema, table))).await
}

async fn ask(session: &mut Session, table: &str, sql: String) -> Result<u64> {
    let doing = format!("compare table {table} with its replacement");
    match session.rows_long(&doing, sql).await?.first() {
        Some(row) => row.count(0),
        None => Err(Error::Unreadable { doing, reason: "no row".to_owned() }),
    }
}
