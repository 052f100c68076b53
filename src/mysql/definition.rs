//! What a table is, in the server's own words, and a fingerprint of the whole schema.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::bookkeeping::is_own;
use super::endpoint::Session;
use super::error::Result;
use super::ident::{literal, qualified};

/// `SHOW CREATE TABLE`: columns, indexes, foreign keys, checks, partitions, options, `AUTO_INCREMENT`.
pub(super) async fn of(session: &mut Session, schema: &str, table: &str) -> Result<String> {
    let doing = format!("read the definition of table {table}");
    match session.row(&doing, &format!("SHOW CREATE TABLE {}", qualified(schema, table))).await? {
        Some(row) => row.string(1),
        None => Err(super::error::Error::Unreadable { doing, reason: "no row".to_owned() }),
    }
}

/// `definition` without the value of `AUTO_INCREMENT`, which changes with every row.
pub(super) fn without_counter(definition: &str) -> String {
    const COUNTER: &str = " AUTO_INCREMENT=";
    // The options stand on the line of the closing parenthesis; names, defaults and comments before it are quoted on one line each.
    let Some(options) = definition.rfind("\n) ENGINE=") else { return definition.to_owned() };
    let (columns, options) = definition.split_at(options);
    // The option comes before COMMENT, so the first one found is the option or there is none.
    let end = options.find(" COMMENT=").unwrap_or(options.len());
    match options.find(COUNTER) {
        Some(start) if start < end => {
            let (before, counter) = options.split_at(start);
            let rest = counter.trim_start_matches(COUNTER).trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{columns}{before}{rest}")
        }
        _ => definition.to_owned(),
    }
}

/// The definitions of all tables, the engine's own excluded, without their counters.
pub(super) async fn all(session: &mut Session, schema: &str) -> Result<BTreeMap<String, String>> {
    let sql = format!("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_TYPE <> 'VIEW'", literal(schema));
    let mut names = Vec::new();
    for row in session.rows("list the tables", &sql).await? {
        names.push(row.string(0)?);
    }
    let mut definitions = BTreeMap::new();
    for name in names.into_iter().filter(|name| !is_own(name)) {
        let definition = without_counter(&of(session, schema, &name).await?);
        definitions.insert(name, definition);
    }
    Ok(definitions)
}

/// sha256 over the definitions: equal as long as no DDL took effect.
pub(super) async fn fingerprint(session: &mut Session, schema: &str) -> Result<String> {
    let mut hash = Sha256::new();
    for definition in all(session, schema).await?.into_values() {
        // With lengths, so that no two lists of definitions give the same bytes.
        hash.update((definition.len() as u64).to_be_bytes());
        hash.update(definition);
    }
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::without_counter;

    #[test]
    fn only_the_counter_is_left_out() {
        for (definition, expected) in [
            (
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB AUTO_INCREMENT=12 DEFAULT CHARSET=latin1",
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DEFAULT CHARSET=latin1",
            ),
            (
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DEFAULT CHARSET=latin1",
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DEFAULT CHARSET=latin1",
            ),
            (
                "CREATE TABLE `t` (\n  `a` int COMMENT ' AUTO_INCREMENT=5'\n) ENGINE=InnoDB COMMENT=' AUTO_INCREMENT=5'",
                "CREATE TABLE `t` (\n  `a` int COMMENT ' AUTO_INCREMENT=5'\n) ENGINE=InnoDB COMMENT=' AUTO_INCREMENT=5'",
            ),
            ("CREATE TABLE `t` (\n) ENGINE=InnoDB AUTO_INCREMENT=7", "CREATE TABLE `t` (\n) ENGINE=InnoDB"),
        ] {
            assert_eq!(without_counter(definition), expected);
        }
    }
}
