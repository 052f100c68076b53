//! A caller's own question to the live schema, in a read-only transaction; the answer as JSON.

use serde_json::{Map, Number, Value};
use sqlx::{Column as _, Row as _, TypeInfo as _};

use super::endpoint::Database;
use super::error::{Error, Result};
use super::script;

/// Rows that are read: an answer is meant to be judged, not carried away.
pub const MOST_ROWS: usize = 1_000;

/// The first [`MOST_ROWS`] rows of one SELECT, by column name. Integers and floats become numbers, DECIMAL and dates text, bytes that are
/// not UTF-8 their hex digits.
///
/// # Errors
/// [`Error::Unreadable`] for anything but one SELECT; what the server says of the statement.
pub async fn query(database: &Database, select: &str) -> Result<Vec<Map<String, Value>>> {
    let doing = "run the query";
    let refuse = |reason: String| Error::Unreadable { doing: doing.to_owned(), reason };
    let statements = script::split(select).map_err(|refusal| refuse(refusal.0))?;
    let [statement] = statements.as_slice() else { return Err(refuse("it must be one statement".to_owned())) };
    // A read-only transaction ends silently before DDL, so that only what reads may begin.
    let word = statement.text.trim_start_matches('(').split_whitespace().next().unwrap_or_default();
    if !word.eq_ignore_ascii_case("select") && !word.eq_ignore_ascii_case("with") {
        return Err(refuse("it must be a SELECT".to_owned()));
    }
    let mut session = database.session().await?;
    session.run("begin to read", "START TRANSACTION READ ONLY").await?;
    let mut answer = Vec::new();
    {
        let mut rows = session.stream(doing.to_owned(), statement.text.clone());
        while answer.len() < MOST_ROWS {
            let Some(row) = rows.next().await? else { break };
            answer.push(row.fields()?);
        }
    }
    // Not closed politely: the rest of a longer answer may still be on its way.
    drop(session);
    Ok(answer)
}

impl super::endpoint::Row {
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
