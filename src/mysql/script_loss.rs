//! How much down scripts take away from what the live schema holds now. Reads only, in one snapshot.
//!
//! [`super::destruction`] says what a script takes; here it is counted. What can't be counted is reported without a number, never left
//! out. Conditions are run as [`super::rows_taken`] printed them, in a read-only transaction; one that the server does not take counts as
//! none. Rows that follow others by a foreign key are counted too.

use std::collections::BTreeSet;

use super::destruction::{self, Names, TableName, Takes, Verb};
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::{literal, qualified, quote};
use super::inspect::{self, Column, Kind, Listing, Table, Unsupported, Versions};
use super::script::{self, Effect};
use super::stored::{self, StoredKind};
use super::widening;
use crate::error::Class;

/// Something of value that a script takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptLoss {
    /// As the caller labelled the script.
    pub migration: String,
    /// What goes and how much of it, for people: `column trades.note: 12 values`.
    pub what: String,
    /// Rows or values; `None` where it can't be told, which is not nothing.
    pub rows: Option<u64>,
}

/// What `scripts` (label and SQL, in the order in which they would run) take away. Empty: they lose nothing.
///
/// # Errors
/// Anything about getting in and reading; [`Error::Moved`] when a table changed its definition meanwhile: measure again.
pub async fn script_loss(database: &Database, scripts: &[(String, String)]) -> Result<Vec<ScriptLoss>> {
    let mut names = Names::new(Some(database.name()));
    let mut taken = Vec::new();
    let mut writers = Vec::new();
    for (label, sql) in scripts {
        taken.extend(destruction::read(sql, &mut names).into_iter().map(|found| (label, found)));
        if script::cut(sql).is_ok_and(|pieces| pieces.iter().any(|piece| piece.effect == Ok(Effect::Data))) {
            writers.push(label);
        }
    }
    if taken.is_empty() && writers.is_empty() {
        return Ok(Vec::new());
    }
    let mut session = database.session().await?;
    let mut losses = Vec::new();
    // What they do is written nowhere in the scripts.
    let objects = stored::list(&mut session, database.name()).await?;
    for object in objects.into_iter().filter(|object| matches!(object.kind, StoredKind::Trigger | StoredKind::Function)) {
        for migration in &writers {
            let what = format!("{object} may run with the script, and what it does can't be told");
            losses.push(ScriptLoss { migration: (*migration).clone(), what, rows: None });
        }
    }
    let mut measure = Measure::begin(database.name(), &mut session).await?;
    for (migration, found) in taken {
        for (what, rows) in measure.one(&found.takes, &found.statement).await? {
            if rows != Some(0) {
                losses.push(ScriptLoss { migration: migration.clone(), what, rows });
            }
        }
    }
    session.close().await;
    Ok(losses)
}

/// A snapshot of the live schema, and what its tables look like.
struct Measure<'a> {
    live: &'a str,
    session: &'a mut Session,
    listing: Listing,
    links: Vec<Link>,
}

/// A foreign key whose children follow their parents.
struct Link {
    parent: String,
    child: String,
    verb: Verb,
}

impl<'a> Measure<'a> {
    async fn begin(live: &'a str, session: &'a mut Session) -> Result<Self> {
        let listing = inspect::list(session, live).await?;
        let links = links(session, live).await?;
        session.run("begin the snapshot", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        session.run("begin the snapshot", "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        Ok(Self { live, session, listing, links })
    }

    /// What goes, with its number where it can be counted.
    async fn one(&mut self, takes: &Takes, statement: &str) -> Result<Vec<(String, Option<u64>)>> {
        let table = match takes {
            Takes::Table(table) | Takes::Column { table, .. } | Takes::Values { table, .. } | Takes::Rows { table, .. } => table,
            Takes::Schema(schema) => return Ok(vec![(format!("schema {schema}, with all that it holds"), None)]),
            Takes::Unclear(reason) => return Ok(vec![(format!("it can't be told what this takes: {statement} ({reason})"), None)]),
        };
        let found = match self.find(table) {
            Found::Table(found) => found,
            // It is gone already, or the script can't run.
            Found::Nothing => return Ok(Vec::new()),
            Found::Elsewhere => {
                return Ok(vec![(format!("{table} is no InnoDB table of this schema, so what {statement} takes is not counted"), None)]);
            }
        };
        match takes {
            Takes::Table(_) => {
                let rows = self.count(&found, Versions::All, "COUNT(*)", None).await?;
                Ok(vec![(format!("table {table}: {rows} rows"), Some(rows))])
            }
            Takes::Column { column, .. } => {
                let Some(column) = given(&found, column) else { return Ok(Vec::new()) };
                let values = self.count(&found, Versions::All, &format!("COUNT({})", quote(&column.name)), None).await?;
                Ok(vec![(format!("column {table}.{}: {values} values", column.name), Some(values))])
            }
            Takes::Values { column, definition, .. } => {
                let Some(column) = given(&found, column) else { return Ok(Vec::new()) };
                let charset = self.charset(&found).await?;
                if widening::keeps(column, charset.as_deref(), definition) {
                    return Ok(Vec::new());
                }
                let values = self.count(&found, Versions::All, &format!("COUNT({})", quote(&column.name)), None).await?;
                let what = format!("column {table}.{}: {values} values, changed from {} to {definition}", column.name, column.column_type);
                Ok(vec![(what, Some(values))])
            }
            Takes::Rows { verb, condition, .. } => self.rows(&found, *verb, condition.as_deref()).await,
            Takes::Schema(_) | Takes::Unclear(_) => Ok(Vec::new()),
        }
    }

    async fn rows(&mut self, table: &Table, verb: Verb, condition: Option<&str>) -> Result<Vec<(String, Option<u64>)>> {
        let counted = match condition {
            Some(condition) => match self.count(table, Versions::Last, "COUNT(*)", Some(condition)).await {
                Ok(rows) => Some((rows, "")),
                // The script will fail there too, or finds a column that does not exist yet.
                Err(error @ Error::Refused { .. }) if error.class() == Class::Permanent => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        let (rows, up_to) = match (counted, verb) {
            (Some(counted), _) => counted,
            (None, Verb::Truncate) => (self.count(table, Versions::Last, "COUNT(*)", None).await?, ""),
            (None, Verb::Delete | Verb::Update | Verb::Replace) => (self.count(table, Versions::Last, "COUNT(*)", None).await?, "up to "),
        };
        let how = match verb {
            Verb::Truncate | Verb::Delete => "deleted",
            Verb::Update => "changed",
            Verb::Replace => "replaced",
        };
        let mut losses = vec![(format!("table {}: {up_to}{rows} rows {how}", table.name), Some(rows))];
        // TRUNCATE is refused for a table that others refer to.
        if rows > 0 && verb != Verb::Truncate {
            for child in followers(&self.links, &table.name, verb) {
                let Found::Table(found) = self.find(&TableName { schema: None, table: child }) else { continue };
                let rows = self.count(&found, Versions::Last, "COUNT(*)", None).await?;
                losses.push((format!("table {}: up to {rows} rows that follow those of {}", found.name, table.name), Some(rows)));
            }
        }
        Ok(losses)
    }

    fn find(&self, name: &TableName) -> Found {
        if name.schema.is_some() {
            return Found::Elsewhere;
        }
        let tables = &self.listing.tables;
        let exact = tables.iter().find(|table| table.name == name.table);
        // Some servers do not tell capitals apart in table names.
        if let Some(table) = exact.or_else(|| tables.iter().find(|table| table.name.to_lowercase() == name.table.to_lowercase())) {
            return Found::Table(table.clone());
        }
        let odd =
            |object: &&Unsupported| matches!(object.kind, Kind::ForeignEngine | Kind::SystemVersionedTable) && object.name == name.table;
        let is_other = self.listing.views.contains(&name.table) || self.listing.sequences.contains(&name.table);
        if is_other || self.listing.unsupported.iter().any(|object| odd(&object)) { Found::Elsewhere } else { Found::Nothing }
    }

    /// The past goes with a table or a column, and no statement changes it.
    async fn count(&mut self, table: &Table, versions: Versions, what: &str, condition: Option<&str>) -> Result<u64> {
        let doing = format!("count what would be lost of table {}", table.name);
        let filter = condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let sql = format!("SELECT {what} FROM {}{}{filter}", qualified(self.live, &table.name), table.versions(versions));
        let rows = self.session.rows_long(&doing, sql).await.map_err(|error| match error.code() {
            // Its definition is younger than the snapshot, or it is gone.
            Some(1412 | 1146) => Error::Moved { what: format!("table {}", table.name) },
            _ => error,
        })?;
        match rows.first() {
            Some(row) => row.count(0),
            None => Err(Error::Unreadable { doing, reason: "no row".to_owned() }),
        }
    }

    /// The character set of columns that name none.
    async fn charset(&mut self, table: &Table) -> Result<Option<String>> {
        let sql = format!(
            "SELECT TABLE_COLLATION FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            literal(self.live),
            literal(&table.name)
        );
        let Some(row) = self.session.row("read the table's collation", &sql).await? else { return Ok(None) };
        // The name of a collation begins with that of its character set.
        Ok(row.text(0)?.map(|collation| collation.split('_').next().unwrap_or_default().to_owned()))
    }
}

enum Found {
    Table(Table),
    /// Something that is not in the snapshot.
    Elsewhere,
    Nothing,
}

/// A column whose values are not computed from others.
fn given<'a>(table: &'a Table, column: &str) -> Option<&'a Column> {
    table.columns.iter().find(|known| known.name.to_lowercase() == column.to_lowercase() && known.content == inspect::Content::Given)
}

async fn links(session: &mut Session, live: &str) -> Result<Vec<Link>> {
    let sql = format!(
        "SELECT REFERENCED_TABLE_NAME, TABLE_NAME, DELETE_RULE, UPDATE_RULE FROM information_schema.REFERENTIAL_CONSTRAINTS \
         WHERE CONSTRAINT_SCHEMA = {}",
        literal(live)
    );
    let mut links = Vec::new();
    for row in session.rows("list the foreign keys", &sql).await? {
        for (verb, rule) in [(Verb::Delete, row.string(2)?), (Verb::Update, row.string(3)?)] {
            if !matches!(rule.as_str(), "RESTRICT" | "NO ACTION") {
                links.push(Link { parent: row.string(0)?, child: row.string(1)?, verb });
            }
        }
    }
    Ok(links)
}

/// The tables whose rows follow those of `table`, and those that follow these, each once.
fn followers(links: &[Link], table: &str, verb: Verb) -> Vec<String> {
    // A replaced row is deleted first; one that lost its parent may be changed and changes its own children.
    let counts = |link: &Link| verb != Verb::Update || link.verb == Verb::Update;
    let mut seen = BTreeSet::from([table.to_owned()]);
    let mut found: Vec<String> = Vec::new();
    let mut parents = vec![table.to_owned()];
    while let Some(parent) = parents.pop() {
        for link in links.iter().filter(|link| link.parent == parent && counts(link)) {
            if seen.insert(link.child.clone()) {
                found.push(link.child.clone());
                parents.push(link.child.clone());
            }
        }
    }
    found
}
