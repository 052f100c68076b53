//! A caller's own question to the live schema; the answer as JSON.
//!
//! Whoever may write a Release writes it. So it is one SELECT that writes no file, runs in a read-only transaction, is ended by the server
//! itself (a client that hangs up ends nothing there), and its answer is bounded.

use serde_json::{Map, Number, Value};
use sqlx::{Column as _, Row as _, TypeInfo as _};

use super::endpoint::Database;
use super::error::{Error, Result};
use super::ident::quote;
use super::script;

/// Rows that are read: an answer is meant to be judged, not carried away.
pub const MOST_ROWS: usize = 1_000;
/// Bytes of names and values that are read. The row that goes beyond it comes whole, up to the server's max_allowed_packet.
const MOST_BYTES: usize = 1024 * 1024;
/// After so many seconds the server ends the statement. Shorter than a check may take, so that the server's own words come first.
const MOST_SECONDS: u32 = 8;

/// Rows by column name.
pub type Answer = Vec<Map<String, Value>>;

/// The first [`MOST_ROWS`] rows of one SELECT, by column name. Integers and floats become numbers, DECIMAL and dates text, bytes that are
/// not UTF-8 their hex digits.
///
/// # Errors
/// [`Error::Unreadable`] for anything but one SELECT, and for more than 1 MiB; what the server says of the statement, 1969 when it took
/// longer than 8 s.
pub async fn query(database: &Database, select: &str) -> Result<Answer> {
    query_in(database, database.name(), select).await
}

/// The same of another schema. Tables that the statement itself looks for elsewhere are still found there.
pub(super) async fn query_in(database: &Database, schema: &str, select: &str) -> Result<Answer> {
    let doing = "run the query";
    let statement = readable(select).map_err(|reason| Error::Unreadable { doing: doing.to_owned(), reason: reason.to_owned() })?;
    let mut session = database.session().await?;
    session.run("enter the schema", &format!("USE {}", quote(schema))).await?;
    let limits = format!("SET max_statement_time={MOST_SECONDS}, sql_select_limit={MOST_ROWS}");
    session.run("limit the query", &limits).await?;
    session.run("begin to read", "START TRANSACTION READ ONLY").await?;
    let mut answer = Vec::new();
    let mut bytes = 0;
    {
        let mut rows = session.stream(doing.to_owned(), statement);
        while answer.len() < MOST_ROWS {
            let Some(row) = rows.next().await? else { break };
            bytes += row.size()?;
            if bytes > MOST_BYTES {
                let reason = format!("it is larger than {MOST_BYTES} bytes; select less");
                return Err(Error::Unreadable { doing: doing.to_owned(), reason });
            }
            answer.push(row.fields()?);
        }
    }
    // Not closed politely: the rest of a longer answer may still be on its way.
    drop(session);
    Ok(answer)
}

/// The statement, if it may be run.
fn readable(select: &str) -> std::result::Result<String, &'static str> {
    let pieces = script::cut(select).map_err(|_| "it must be one statement, with every quote and comment closed")?;
    let [piece] = pieces.as_slice() else { return Err("it must be one statement") };
    // A read-only transaction ends silently before DDL, so that only what reads may begin.
    if !matches!(piece.words.first().map(String::as_str), Some("SELECT" | "WITH")) {
        return Err("it must be a SELECT");
    }
    // The server's files are no part of a transaction.
    if piece.words.iter().any(|word| word == "INTO") {
        return Err("it must not select INTO anything");
    }
    Ok(piece.text.clone())
}

impl super::endpoint::Row {
    /// Of names and values, in bytes.
    fn size(&self) -> Result<usize> {
        let mut size = 0;
        for (index, column) in self.inner().columns().iter().enumerate() {
            size += column.name().len() + self.bytes(index)?.map_or(0, <[u8]>::len);
        }
        Ok(size)
    }

    fn fields(&self) -> Result<Map<String, Value>> {
        let mut fields = Map::new();
        for (index, column) in self.inner().columns().iter().enumerate() {
            let value = match self.bytes(index)? {
                None => Value::Null,
                Some(bytes) => value(column.type_info().name(), bytes),
            };
            fields.insert(column.name().to_owned(), value);
        }
        Ok(fields)
    }
}

fn value(type_name: &str, bytes: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(bytes) else { return Value::String(hex::encode(bytes)) };
    let number = if type_name.contains("INT") {
        text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from)).ok()
    } else if type_name == "FLOAT" || type_name == "DOUBLE" {
        text.parse().ok().and_then(Number::from_f64)
    } else {
        None
    };
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn only_what_reads_may_be_asked() {
        for (statement, expected) in [
            ("SELECT COUNT(*) AS n FROM t", Ok(())),
            ("(SELECT 1) UNION (SELECT 2);", Ok(())),
            ("/* why */ WITH c AS (SELECT 1) SELECT * FROM c", Ok(())),
            ("SELECT 'INTO', `into` FROM t -- INTO", Ok(())),
            ("SELECT 1; SELECT 2", Err("one statement")),
            ("", Err("one statement")),
            ("SELECT 'a", Err("every quote")),
            ("INSERT INTO t SELECT 1", Err("a SELECT")),
            ("/*!40101 DROP */ TABLE t", Err("a SELECT")),
            ("SET STATEMENT max_statement_time = 0 FOR SELECT 1", Err("a SELECT")),
            ("CALL p()", Err("a SELECT")),
            ("SELECT * FROM t INTO OUTFILE '/tmp/x'", Err("INTO")),
            ("SELECT 1 /*!50000 into dumpfile */ '/tmp/x'", Err("INTO")),
            ("SELECT id INTO @a FROM t", Err("INTO")),
        ] {
            let found = readable(statement).map(drop);
            match expected {
                Ok(()) => assert_eq!(found, Ok(()), "{statement}"),
                Err(part) => assert!(found.is_err_and(|reason| reason.contains(part)), "{statement}: {found:?}"),
            }
        }
    }
}
