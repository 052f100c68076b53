//! Tables cut into ranges of their primary key: several sessions work on one table, what was done once is not done again, and what
//! differs between two copies is found without comparing row by row.
//!
//! A range's ends are keys, each value written as a literal of SQL that the server compares as it compares the column. A table without
//! a primary key, or with one whose order such a literal can't tell, is one range.

use serde::{Deserialize, Serialize};

use super::endpoint::Session;
use super::error::Result;
use super::ident::{qualified, quote};
use super::inspect::{Column, Table, Versions};
use super::rows::Encoding;

/// Rows whose key comes after `after` and not after `upto`. Without the one it begins with the first row, without the other it ends
/// with the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upto: Option<Vec<String>>,
}

impl Range {
    /// What its rows have in common, for the table called `alias`; `None` for all rows. `key` has as many columns as the ends.
    pub(super) fn condition(&self, key: &[String], alias: &str) -> Option<String> {
        let after = self.after.as_ref().map(|after| beyond(key, after, alias, ">", ">"));
        let upto = self.upto.as_ref().map(|upto| beyond(key, upto, alias, "<", "<="));
        let both: Vec<String> = after.into_iter().chain(upto).collect();
        if both.is_empty() { None } else { Some(both.join(" AND ")) }
    }

    /// The same as a clause, which is empty for all rows.
    pub(super) fn clause(&self, key: &[String], alias: &str) -> String {
        self.condition(key, alias).map(|condition| format!(" WHERE {condition}")).unwrap_or_default()
    }
}

/// Keys on one side of `end`. Column by column, since servers do not use an index for a comparison of tuples.
fn beyond(key: &[String], end: &[String], alias: &str, side: &str, last: &str) -> String {
    let named: Vec<(String, &String)> = key.iter().map(|column| format!("{}.{}", quote(alias), quote(column))).zip(end).collect();
    let Some(((first, value), rest)) = named.split_first() else { return "TRUE".to_owned() };
    if rest.is_empty() {
        return format!("{first} {last} {value}");
    }
    let deeper = named.iter().enumerate().map(|(depth, (column, value))| {
        let equal: String = named.iter().take(depth).map(|(column, value)| format!("{column} = {value} AND ")).collect();
        let sign = if depth + 1 == named.len() { last } else { side };
        format!("({equal}{column} {sign} {value})")
    });
    // The first column alone bounds what is read of the index; whether a row belongs to it the rest says.
    format!("{first} {side}= {value} AND ({})", deeper.collect::<Vec<_>>().join(" OR "))
}

/// The primary key by which a table can be cut.
pub(super) struct Key {
    pub columns: Vec<String>,
    encodings: Vec<(Encoding, Option<String>)>,
}

impl Key {
    /// `None` where the table stays whole.
    pub fn of(table: &Table) -> Option<Self> {
        if table.key.is_empty() || !table.key_is_whole {
            return None;
        }
        let encoded = |name: &String| {
            let column = table.columns.iter().find(|column| column.name == *name)?;
            let encoding = Encoding::of(column)?;
            is_ordered_like_its_literal(column, encoding).then(|| (encoding, column.charset.clone()))
        };
        let encodings: Option<Vec<_>> = table.key.iter().map(encoded).collect();
        Some(Self { columns: table.key.clone(), encodings: encodings? })
    }

    /// One key as literals. `values` are the stored bytes in the order of the columns; a key has no NULL.
    pub fn literals<'a>(&self, values: impl IntoIterator<Item = Option<&'a [u8]>>) -> Vec<String> {
        self.encodings.iter().zip(values).map(|((encoding, charset), value)| literal(*encoding, charset.as_deref(), value)).collect()
    }

    fn list(&self, alias: &str) -> String {
        self.columns.iter().map(|column| format!("{}.{}", quote(alias), quote(column))).collect::<Vec<_>>().join(",")
    }

    /// For [`Key::list`] behind ORDER BY.
    pub fn order(&self, alias: &str) -> String {
        format!(" ORDER BY {}", self.list(alias))
    }

    /// The range after `after` that holds about `bytes` of stored rows, by the server's average for the table. Without an end it is the
    /// last one. Asked in the session's snapshot.
    pub async fn range(
        &self,
        session: &mut Session,
        (schema, table): (&str, &Table),
        after: Option<Vec<String>>,
        bytes: u64,
    ) -> Result<Range> {
        let rest = Range { after, upto: None };
        if table.estimated_rows.saturating_mul(table.row_bytes) <= bytes {
            return Ok(rest);
        }
        let rows = (bytes / table.row_bytes.max(1)).max(1);
        let sql = format!(
            "SELECT 0,{} FROM {}{} AS `t` FORCE INDEX (PRIMARY){}{} LIMIT {},1",
            self.list("t"),
            qualified(schema, &table.name),
            table.versions(Versions::All),
            rest.clause(&self.columns, "t"),
            self.order("t"),
            rows - 1
        );
        let doing = format!("cut table {}", table.name);
        session.run(&doing, "SET character_set_results=NULL").await?;
        let found = session.rows_long(&doing, sql).await?;
        session.run(&doing, "SET character_set_results=utf8mb4").await?;
        let Some(row) = found.first() else { return Ok(rest) };
        let values: Result<Vec<Option<&[u8]>>> = (1..=self.columns.len()).map(|index| row.bytes(index)).collect();
        Ok(Range { upto: Some(self.literals(values?)), ..rest })
    }
}

/// An ENUM is sorted by number and compared as text, and a FLOAT is not the number that its text says.
fn is_ordered_like_its_literal(column: &Column, encoding: Encoding) -> bool {
    match encoding {
        Encoding::Number | Encoding::Quoted => true,
        // Its literal can name every character set but those that a client can't speak.
        Encoding::Short(_) => !matches!(column.charset.as_deref(), Some("ucs2" | "utf16" | "utf16le" | "utf32")),
        Encoding::Float | Encoding::Double | Encoding::Ordinal | Encoding::Until | Encoding::Long(_) => false,
    }
}

fn literal(encoding: Encoding, charset: Option<&str>, value: Option<&[u8]>) -> String {
    let Some(value) = value else { return "NULL".to_owned() };
    let text = String::from_utf8_lossy(value);
    match (encoding, charset) {
        (Encoding::Number, _) => text.into_owned(),
        (Encoding::Quoted, _) => format!("'{text}'"),
        // In the column's own character set, so that the column is not converted to another and its index can be used.
        (_, Some(charset)) => format!("_{charset} x'{}'", hex::encode(value)),
        (_, None) => format!("x'{}'", hex::encode(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(after: Option<&[&str]>, upto: Option<&[&str]>) -> Range {
        let owned = |end: Option<&[&str]>| end.map(|end| end.iter().map(|value| (*value).to_owned()).collect());
        Range { after: owned(after), upto: owned(upto) }
    }

    #[test]
    fn a_range_is_told_column_by_column() {
        let key = |columns: &[&str]| -> Vec<String> { columns.iter().map(|column| (*column).to_owned()).collect() };
        for (columns, range, expected) in [
            (&["id"][..], range(None, None), ""),
            (&["id"], range(Some(&["7"]), None), " WHERE `t`.`id` > 7"),
            (&["id"], range(Some(&["-1"]), Some(&["7"])), " WHERE `t`.`id` > -1 AND `t`.`id` <= 7"),
            (
                &["a", "b"],
                range(None, Some(&["1", "x'00'"])),
                " WHERE `t`.`a` <= 1 AND ((`t`.`a` < 1) OR (`t`.`a` = 1 AND `t`.`b` <= x'00'))",
            ),
            (
                &["a", "b", "c"],
                range(Some(&["1", "2", "3"]), None),
                " WHERE `t`.`a` >= 1 AND ((`t`.`a` > 1) OR (`t`.`a` = 1 AND `t`.`b` > 2) OR (`t`.`a` = 1 AND `t`.`b` = 2 AND `t`.`c` > 3))",
            ),
        ] {
            assert_eq!(range.clause(&key(columns), "t"), expected);
        }
    }

    #[test]
    fn a_key_is_a_literal_of_its_own_type() {
        let short = Encoding::Short(super::super::rows::Plain::Ascii);
        for (encoding, charset, value, expected) in [
            (Encoding::Number, None, &b"-12"[..], "-12"),
            (Encoding::Quoted, None, b"2024-01-01", "'2024-01-01'"),
            (short, Some("latin1"), b"\xe9'", "_latin1 x'e927'"),
            (short, None, b"\x00", "x'00'"),
        ] {
            assert_eq!(literal(encoding, charset, Some(value)), expected);
        }
    }
}
