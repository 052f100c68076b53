//! What is in the database: reads only.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::beside::{self, Beside};
use super::bookkeeping::{self, Applied, Marker, State};
use super::definition;
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::grants;
use super::ident::literal;
use super::owner::{self, Owner};
use super::rows::Encoding;
use super::stored::{self, PASSING};

/// A look at the live schema.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// As the server names itself, for example `10.11.19-MariaDB-0+deb12u1-log`.
    pub server_version: String,
    /// The longest statement and value the server takes, in bytes.
    pub max_allowed_packet: u64,
    /// Base tables by name, the engine's own included.
    pub tables: Vec<Table>,
    /// The recorded migrations by version.
    pub migrations: Vec<Applied>,
    /// Which backup point was swapped in last, if ever.
    pub marker: Option<Marker>,
    /// The Release that migrates this schema; `None` if none did, or only an engine that recorded no owners.
    pub owner: Option<Owner>,
    /// The shadow and aside schemas of this database, by name.
    pub beside: Vec<Beside>,
    /// What a backup can't carry yet. While this is not empty, [`super::capture()`] and [`super::swap()`] refuse.
    pub unsupported: Vec<Unsupported>,
    /// By name.
    pub sequences: Vec<String>,
    /// Statements that give the user what it lacks.
    pub missing_grants: Vec<String>,
    /// Prepared XA transactions of the whole server (their schema can't be told): each blocks a cut-over that moves a table it touched.
    pub prepared_transactions: Vec<String>,
}

/// A base table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    /// `InnoDB`, …
    pub engine: String,
    /// In the table's order, invisible and generated ones included.
    pub columns: Vec<Column>,
    /// The primary key's columns; empty without one.
    pub key: Vec<String>,
    /// Whether the key holds its columns as they are, and not only the beginning of one.
    pub key_is_whole: bool,
    /// Whether the server keeps each row as it was before it was changed or deleted.
    pub is_versioned: bool,
    /// The column that counts, and its next value.
    pub counter: Option<String>,
    pub auto_increment: Option<u64>,
    /// The server's estimate of rows and of bytes with indexes.
    pub estimated_rows: u64,
    pub estimated_bytes: u64,
    /// And of the bytes of one row.
    pub row_bytes: u64,
}

impl Table {
    /// What comes behind the table's name in FROM.
    pub(super) fn versions(&self, versions: Versions) -> &'static str {
        if self.is_versioned && versions == Versions::All { " FOR SYSTEM_TIME ALL" } else { "" }
    }
}

/// Which rows of a system-versioned table are meant; any other has one version of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    /// Those of the past as well.
    All,
    /// Those of the present.
    Last,
}

/// A column of a base table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `varchar`, `int`, …
    pub data_type: String,
    /// `varchar(20)`, `int(10) unsigned`, …
    pub column_type: String,
    pub charset: Option<String>,
    pub collation: Option<String>,
    pub content: Content,
    /// What the server fills in for a row that does not say; NULL is a default too.
    pub default: Fallback,
}

impl Column {
    fn is_period(&self) -> bool {
        matches!(self.content, Content::Since | Content::Until)
    }
}

/// Whether a column has a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    Given,
    None,
}

/// Where a column's values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// From whoever writes the row: backed up.
    Given,
    /// From an expression: computed again when the row is loaded.
    Generated,
    /// From the server's clock: since when a row of a system-versioned table was as it is. Backed up.
    Since,
    /// And until when, with a latest time that stands for the present. Backed up.
    Until,
}

/// An object that a backup can't carry yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unsupported {
    pub kind: Kind,
    /// With its table or schema where the name alone does not say it.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Its history can't be written: it refers to transactions of this server by number, the server adds partitions by itself, has
    /// `secure_timestamp`, or is older than MariaDB 10.11.
    SystemVersionedTable,
    /// Not InnoDB: not part of a consistent snapshot.
    ForeignEngine,
    /// From or to another schema: it would follow the table that is moved aside.
    ForeignKeyAcrossSchemas,
    /// A type this engine does not know how to write exactly.
    ColumnType,
    /// A stored object's, in which its text has other characters than ASCII.
    CharacterSet,
    /// A default or a list of values that the server can't print: it shows characters beyond the basic plane as `?`.
    ColumnDefinition,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::SystemVersionedTable => "system-versioned table without a history that can be written,",
            Kind::ForeignEngine => "table of another engine than InnoDB",
            Kind::ForeignKeyAcrossSchemas => "foreign key across schemas",
            Kind::ColumnType => "column of unknown type",
            Kind::CharacterSet => "text in another character set than UTF-8 of",
            Kind::ColumnDefinition => "column whose default or value list the server shows with ?",
        };
        write!(f, "{kind} {}", self.name)
    }
}

/// Looks at the live schema: tables, migrations, marker, what can't be carried, what may not be done.
///
/// # Errors
/// Anything about getting in; a user without any privilege on the schema gets [`Error::MissingGrants`].
pub async fn inspect(database: &Database) -> Result<Inventory> {
    let mut session = database.session().await?;
    let inventory = look(database, &mut session).await?;
    session.close().await;
    Ok(inventory)
}

/// The same in a session that is open already.
pub(super) async fn look(database: &Database, session: &mut Session) -> Result<Inventory> {
    let server_version = match session.row("read the server's version", "SELECT VERSION()").await? {
        Some(row) => row.string(0)?,
        None => String::new(),
    };
    let listing = list(session, database.name()).await?;
    let has = |name: &str| listing.tables.iter().any(|table| table.name == name);
    let mut migrations = if has(bookkeeping::MIGRATIONS) { bookkeeping::applied(session, database.name()).await? } else { Vec::new() };
    for migration in &mut migrations {
        if bookkeeping::is_untouched(session, database.name(), migration).await? {
            migration.state = State::Intended;
        }
    }
    let marker = bookkeeping::marker(session, database.name()).await?;
    let mut unsupported = listing.unsupported;
    unsupported.extend(foreign_keys_across(session, database.name()).await?);
    unsupported.sort();
    let stored = stored::list(session, database.name()).await?;
    let made: Vec<_> = stored.iter().map(|object| (object.kind, object.definer.as_str())).collect();
    Ok(Inventory {
        server_version,
        max_allowed_packet: packet_limit(session).await?,
        tables: listing.tables,
        sequences: listing.sequences,
        migrations,
        marker,
        owner: owner::recorded(session, database.name()).await?,
        beside: beside::all(session, database.name()).await?,
        unsupported,
        missing_grants: grants::missing(session, database.name(), &made).await?,
        prepared_transactions: prepared(session).await?,
    })
}

/// [`look`], refusing what neither a backup nor a cut-over can deal with.
pub(super) async fn look_strictly(database: &Database, session: &mut Session) -> Result<Inventory> {
    let inventory = look(database, session).await?;
    // First, since without them objects may be invisible.
    if !inventory.missing_grants.is_empty() {
        return Err(database.missing(inventory.missing_grants));
    }
    if !inventory.unsupported.is_empty() {
        return Err(Error::Unsupported { database: database.name().to_owned(), objects: inventory.unsupported });
    }
    Ok(inventory)
}

/// Whether a schema has a table or view of this name.
pub(super) async fn has_table(session: &mut Session, schema: &str, name: &str) -> Result<bool> {
    let sql =
        format!("SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}", literal(schema), literal(name));
    Ok(session.row("look for a table", &sql).await?.is_some())
}

/// The longest statement and value that the server takes.
pub(super) async fn packet_limit(session: &mut Session) -> Result<u64> {
    Ok(session.variable("max_allowed_packet").await?.and_then(|value| value.parse().ok()).unwrap_or(u64::MAX))
}

/// The tables of a schema, and those it can't back up.
pub(super) struct Listing {
    pub tables: Vec<Table>,
    /// By name only, as are views.
    pub sequences: Vec<String>,
    pub views: Vec<String>,
    pub unsupported: Vec<Unsupported>,
}

pub(super) async fn list(session: &mut Session, name: &str) -> Result<Listing> {
    let schema = literal(name);
    let mut listing = Listing { tables: Vec::new(), sequences: Vec::new(), views: Vec::new(), unsupported: Vec::new() };
    let rows = session
        .rows(
            "list the tables",
            &format!(
                "SELECT TABLE_NAME, TABLE_TYPE, ENGINE, AUTO_INCREMENT, TABLE_ROWS, DATA_LENGTH + INDEX_LENGTH, AVG_ROW_LENGTH \
                 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema}"
            ),
        )
        .await?;
    for row in rows {
        let name = row.string(0)?;
        let engine = row.text(2)?.unwrap_or_default();
        let kind = match row.string(1)?.as_str() {
            "BASE TABLE" if engine == "InnoDB" => None,
            "BASE TABLE" => Some(Kind::ForeignEngine),
            "SYSTEM VERSIONED" if engine == "InnoDB" => None,
            "SYSTEM VERSIONED" => Some(Kind::ForeignEngine),
            "SEQUENCE" => {
                listing.sequences.push(name);
                continue;
            }
            _ => {
                listing.views.push(name);
                continue;
            }
        };
        if name.starts_with(PASSING) {
            continue;
        }
        match kind {
            Some(kind) => listing.unsupported.push(Unsupported { kind, name }),
            None => listing.tables.push(Table {
                name,
                engine,
                columns: Vec::new(),
                key: Vec::new(),
                key_is_whole: true,
                is_versioned: row.string(1)? == "SYSTEM VERSIONED",
                counter: None,
                auto_increment: row.number(3)?,
                estimated_rows: row.number(4)?.unwrap_or(0),
                estimated_bytes: row.number(5)?.unwrap_or(0),
                row_bytes: row.number(6)?.unwrap_or(0),
            }),
        }
    }
    // Not by the server's collation: every listing of the same tables must be in the same order.
    listing.tables.sort_by(|a, b| a.name.cmp(&b.name));
    listing.sequences.sort();
    columns(session, &schema, &mut listing).await?;
    keys(session, &schema, &mut listing).await?;
    versions(session, name, &mut listing).await?;
    Ok(listing)
}

async fn columns(session: &mut Session, schema: &str, listing: &mut Listing) -> Result<()> {
    let rows = session
        .rows(
            "list the columns",
            &format!(
                "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, IS_GENERATED, COLUMN_DEFAULT, EXTRA, \
                 COLLATION_NAME, GENERATION_EXPRESSION \
                 FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} ORDER BY TABLE_NAME, ORDINAL_POSITION"
            ),
        )
        .await?;
    for row in rows {
        let table = row.string(0)?;
        let Some(table) = listing.tables.iter_mut().find(|known| known.name == table) else { continue };
        let default = row.text(6)?;
        let content = match (row.string(5)?.as_str(), row.text(9)?.as_deref()) {
            ("ALWAYS", Some("ROW START")) => Content::Since,
            ("ALWAYS", Some("ROW END")) => Content::Until,
            ("ALWAYS", _) => Content::Generated,
            _ => Content::Given,
        };
        let column = Column {
            name: row.string(1)?,
            data_type: row.string(2)?,
            column_type: row.string(3)?,
            charset: row.text(4)?,
            collation: row.text(8)?,
            content,
            default: if default.is_some() { Fallback::Given } else { Fallback::None },
        };
        let kind = if column.content == Content::Given && Encoding::of(&column).is_none() {
            Some(Kind::ColumnType)
        } else if is_shown_lossily(&column, default.as_deref().unwrap_or_default()) {
            Some(Kind::ColumnDefinition)
        } else {
            None
        };
        if let Some(kind) = kind {
            listing.unsupported.push(Unsupported { kind, name: format!("{}.{} ({})", table.name, column.name, column.column_type) });
        }
        if row.text(7)?.is_some_and(|extra| extra.to_lowercase().contains("auto_increment")) {
            table.counter = Some(column.name.clone());
        }
        table.columns.push(column);
    }
    Ok(())
}

/// `SHOW CREATE TABLE` prints defaults, ENUM and SET values by way of utf8mb3. A `?` may be a true one; nothing tells.
fn is_shown_lossily(column: &Column, default: &str) -> bool {
    let beyond_the_basic_plane = matches!(column.charset.as_deref(), Some("utf8mb4" | "utf16" | "utf16le" | "utf32"));
    let listed = matches!(column.data_type.as_str(), "enum" | "set") && column.column_type.contains('?');
    beyond_the_basic_plane && (listed || (default.starts_with('\'') && default.contains('?')))
}

async fn keys(session: &mut Session, schema: &str, listing: &mut Listing) -> Result<()> {
    let rows = session
        .rows(
            "list the primary keys",
            &format!(
                "SELECT TABLE_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS \
                 WHERE TABLE_SCHEMA = {schema} AND INDEX_NAME = 'PRIMARY' ORDER BY TABLE_NAME, SEQ_IN_INDEX"
            ),
        )
        .await?;
    for row in rows {
        let table = row.string(0)?;
        if let Some(table) = listing.tables.iter_mut().find(|known| known.name == table) {
            table.key.push(row.string(1)?);
            table.key_is_whole &= row.bytes(2)?.is_none();
        }
    }
    Ok(())
}

/// Takes out system-versioned tables whose history can't be written, and completes the others.
async fn versions(session: &mut Session, schema: &str, listing: &mut Listing) -> Result<()> {
    if !listing.tables.iter().any(|table| table.is_versioned) {
        return Ok(());
    }
    let writes_history = session.variable("system_versioning_insert_history").await?.is_some()
        && session.variable("secure_timestamp").await?.is_none_or(|secure| secure == "NO");
    for mut table in std::mem::take(&mut listing.tables) {
        if table.is_versioned {
            let definition = match definition::of(session, schema, &table.name).await {
                Err(error) if error.code() == Some(NO_SUCH_TABLE) => continue,
                definition => definition?,
            };
            let by_time = table.columns.iter().filter(|column| column.is_period()).all(|column| column.data_type == "timestamp");
            if !writes_history || !by_time || grows_partitions(&definition) {
                listing.unsupported.push(Unsupported { kind: Kind::SystemVersionedTable, name: table.name });
                continue;
            }
            name_the_period(&mut table);
        }
        listing.tables.push(table);
    }
    Ok(())
}

/// Since when and until when rows are as they are: the server lists those columns only where the definition names them, and makes the latter
/// part of the primary key.
fn name_the_period(Table { columns, key, .. }: &mut Table) {
    if !columns.iter().any(Column::is_period) {
        columns.extend([("row_start", Content::Since), ("row_end", Content::Until)].map(|(name, content)| Column {
            name: name.to_owned(),
            data_type: "timestamp".to_owned(),
            column_type: "timestamp(6)".to_owned(),
            charset: None,
            collation: None,
            content,
            default: Fallback::Given,
        }));
    }
    let content = |name: &String| columns.iter().find(|column| column.name == *name).map(|column| column.content);
    if key.iter().any(|name| content(name) == Some(Content::Since)) {
        // Several rows of the present may have the rest of it.
        key.clear();
    }
    key.retain(|name| content(name) != Some(Content::Until));
}

/// It went since the tables were listed.
const NO_SUCH_TABLE: u16 = 1146;

/// Whether the server adds partitions by itself: its definition would change with the rows.
fn grows_partitions(definition: &str) -> bool {
    let partitions = definition.rsplit("\n PARTITION BY ").next().filter(|_| definition.contains("\n PARTITION BY SYSTEM_TIME "));
    partitions.is_some_and(|partitions| partitions.lines().next().is_some_and(|line| line.ends_with(" AUTO")))
}

/// What of a schema a backup can't carry yet.
pub(super) async fn unsupported(session: &mut Session, schema: &str) -> Result<Vec<Unsupported>> {
    let mut unsupported = list(session, schema).await?.unsupported;
    unsupported.extend(foreign_keys_across(session, schema).await?);
    Ok(unsupported)
}

async fn foreign_keys_across(session: &mut Session, schema: &str) -> Result<Vec<Unsupported>> {
    let schema = literal(schema);
    let mut found = Vec::new();
    let sql = format!(
        "SELECT DISTINCT CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME \
         FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_SCHEMA IS NOT NULL \
         AND TABLE_SCHEMA <> REFERENCED_TABLE_SCHEMA AND (TABLE_SCHEMA = {schema} OR REFERENCED_TABLE_SCHEMA = {schema})"
    );
    for row in session.rows("list the foreign keys", &sql).await? {
        let name = format!("{} from {}.{} to {}.{}", row.string(0)?, row.string(1)?, row.string(2)?, row.string(3)?, row.string(4)?);
        found.push(Unsupported { kind: Kind::ForeignKeyAcrossSchemas, name });
    }
    Ok(found)
}

/// Best effort: some servers want a privilege for it.
async fn prepared(session: &mut Session) -> Result<Vec<String>> {
    match session.rows("list the prepared transactions", "XA RECOVER FORMAT='SQL'").await {
        Ok(rows) => rows.iter().map(|row| row.string(3)).collect(),
        Err(Error::Refused { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
