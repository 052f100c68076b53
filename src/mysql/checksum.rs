//! Whether two tables hold the same rows, decided by the server.
//!
//! A table's sum is the number of rows and the sum of the squares of a CRC32 over one text for each row (see [`super::rows`]). It does not
//! depend on the rows' order, on `AUTO_INCREMENT`, on indexes or on generated columns, and it counts duplicates. Squares, because CRC32 is
//! linear: two rows that swap values of the same length leave the XOR of all CRCs unchanged, and their plain sum once in 65,536 times.
//! `CHECKSUM TABLE` is no alternative: it changes on an unmodified table with a virtual column (MDEV-32079).

use std::iter::Sum;

use serde::{Deserialize, Serialize};

use super::chunk::Range;
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::qualified;
use super::inspect::{self, Table, Versions};
use super::rows::Shape;

/// The content of a table in two numbers: equal for equal content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSum {
    pub rows: u64,
    /// In JSON as text: it is larger than what most readers take for a whole number.
    #[serde(with = "decimal")]
    pub crc_squares: u128,
}

impl TableSum {
    /// Takes in a row by its CRC32.
    pub(super) fn add(&mut self, crc: u64) {
        self.rows += 1;
        self.crc_squares = self.crc_squares.wrapping_add(u128::from(crc) * u128::from(crc));
    }
}

impl Sum for TableSum {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |all, part| Self {
            rows: all.rows + part.rows,
            crc_squares: all.crc_squares.wrapping_add(part.crc_squares),
        })
    }
}

mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
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
    let sum = sum_of(&mut session, schema, found, &Range::default()).await?;
    session.close().await;
    Ok(sum)
}

/// The same of some of its rows, in a session that is open already, and in its snapshot if it has one. Rows of the past are part of a table.
pub(super) async fn sum_of(session: &mut Session, schema: &str, table: &Table, range: &Range) -> Result<TableSum> {
    sum_by(session, schema, (table, Versions::All), range, &Shape::of(table).digest("t")).await
}

/// The same by another text for each row, of the table called `t`.
pub(super) async fn sum_by(
    session: &mut Session,
    schema: &str,
    (table, versions): (&Table, Versions),
    range: &Range,
    digest: &str,
) -> Result<TableSum> {
    let crc = format!("CRC32({digest})");
    let clause = range.clause(&table.key, "t");
    // Of a part, the key says where it is; of the whole, the server knows the shortest way.
    let index = if clause.is_empty() { "" } else { " FORCE INDEX (PRIMARY)" };
    let (name, versions) = (qualified(schema, &table.name), table.versions(versions));
    let sql = format!("SELECT COUNT(*), COALESCE(SUM({crc} * {crc}), 0) FROM {name}{versions} AS `t`{index}{clause}");
    let doing = format!("checksum table {}", table.name);
    let unreadable = |reason: &str| Error::Unreadable { doing: doing.clone(), reason: reason.to_owned() };
    let rows = session.rows_long(&doing, sql).await?;
    let row = rows.first().ok_or_else(|| unreadable("no row"))?;
    let crc_squares = row.string(1)?.parse().map_err(|_| unreadable("its sum is not a number"))?;
    Ok(TableSum { rows: row.count(0)?, crc_squares })
}
