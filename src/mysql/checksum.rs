//! Whether two tables hold the same rows, decided by the server.
//!
//! A table's sum is the number of rows and the sum of the squares of a CRC32 over one text for each row (see [`super::rows`]). It does not
//! depend on the rows' order, on `AUTO_INCREMENT`, on indexes or on generated columns, and it counts duplicates. Squares, because CRC32 is
//! linear: two rows that swap values of the same length leave the XOR of all CRCs unchanged, and their plain sum once in 65,536 times.
//! `CHECKSUM TABLE` is no alternative: it changes on an unmodified table with a virtual column (MDEV-32079).

use serde::{Deserialize, Serialize};

use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::qualified;
use super::inspect::{self, Table};
use super::rows::Shape;

/// The content of a table in two numbers: equal for equal content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSum {
    pub rows: u64,
    /// A decimal number of any length.
    pub crc_squares: String,
}

/// The sum of a table in any schema of the server.
///
/// # Errors
/// [`Error::Schema`] when there is no such table.
pub async fn checksum(database: &Database, schema: &str, table: &str) -> Result<TableSum> {
    let mut session = database.session().await?;
    let listing = inspect::list(&mut session, schema).await?;
    let Some(found) = listing.tables.iter().find(|known| known.name == table) else {
        return Err(Error::Schema { schema: schema.to_owned(), reason: format!("it has no base table {table}") });
    };
    let sum = sum(&mut session, schema, found).await?;
    session.close().await;
    Ok(sum)
}

/// The same in a session that is open already, and in its snapshot if it has one.
pub(super) async fn sum(session: &mut Session, schema: &str, table: &Table) -> Result<TableSum> {
    let crc = format!("CRC32({})", Shape::of(table).digest("t"));
    let sql = format!("SELECT COUNT(*), COALESCE(SUM({crc} * {crc}), 0) FROM {} AS `t`", qualified(schema, &table.name));
    let doing = format!("checksum table {}", table.name);
    match session.rows_long(&doing, sql).await?.first() {
        Some(row) => Ok(TableSum { rows: row.count(0)?, crc_squares: row.string(1)? }),
        None => Err(Error::Unreadable { doing, reason: "no row".to_owned() }),
    }
}
