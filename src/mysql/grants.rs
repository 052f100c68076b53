//! Which privileges the engine needs, and the exact statements that give those that are missing.
//!
//! MariaDB uses only the most specific entry that matches a schema, it does not add them up: a new `GRANT SELECT ON db.*` takes away what an
//! older ``GRANT ALL ON `db%`.*`` gave. So what counts here is that one entry plus the global privileges, and a statement always names the
//! whole list.

use std::collections::BTreeSet;

use super::endpoint::{Database, Session};
use super::error::Result;
use super::ident::grant_pattern;
use super::stored::{StoredKind, StoredObject};

/// On the live schema. TRIGGER, EVENT and EXECUTE are there to see triggers, events and routines at all: what can't be seen can't be refused.
const LIVE: [&str; 12] =
    ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "REFERENCES", "INDEX", "ALTER", "EXECUTE", "EVENT", "TRIGGER"];
/// On shadow and aside schemas.
const BESIDE: [&str; 9] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "REFERENCES", "INDEX", "ALTER"];
/// The server's "no such privilege on this table".
const TABLE_DENIED: u16 = 1142;

/// What stored objects of a kind take besides, on the live schema; it is also wanted beside it, where they are tried.
fn wanted_for(kind: StoredKind) -> &'static [&'static str] {
    match kind {
        StoredKind::Function | StoredKind::Procedure | StoredKind::Package | StoredKind::PackageBody => {
            &["CREATE ROUTINE", "ALTER ROUTINE"]
        }
        StoredKind::View => &["CREATE VIEW", "SHOW VIEW"],
        StoredKind::Trigger => &["TRIGGER", "LOCK TABLES"],
        StoredKind::Event => &["EVENT"],
    }
}

/// Says [`Error::MissingGrants`](super::error::Error::MissingGrants) if a privilege is missing to make these.
pub(super) async fn suffice(session: &mut Session, database: &Database, objects: &[StoredObject]) -> Result<()> {
    let made: Vec<_> = objects.iter().map(|object| (object.kind, object.definer.as_str())).collect();
    let missing = missing(session, database.name(), &made).await?;
    if missing.is_empty() { Ok(()) } else { Err(database.missing(missing)) }
}

/// The statements to run, empty if nothing is missing, where stored objects of these kinds and definers are to be read and made.
pub(super) async fn missing(session: &mut Session, database: &str, objects: &[(StoredKind, &str)]) -> Result<Vec<String>> {
    let mut held = Vec::new();
    for row in session.rows("read the user's privileges", "SHOW GRANTS FOR CURRENT_USER()").await? {
        held.extend(Grant::parse(&row.string(0)?));
    }
    let current = match session.row("read the user's account", "SELECT CURRENT_USER()").await? {
        Some(row) => row.string(0)?,
        None => String::new(),
    };
    let account = account(&current);
    let of_objects: BTreeSet<&str> = objects.iter().flat_map(|(kind, _)| wanted_for(*kind)).copied().collect();
    let and = |fixed: &[&'static str]| -> Vec<&'static str> {
        fixed.iter().copied().chain(of_objects.iter().copied().filter(|privilege| !fixed.contains(privilege))).collect()
    };
    let live = grant_pattern(database);
    let beside = format!("{}\\_backout\\_%", grant_pattern(database));
    // An example stands for the pattern: an entry that matches it matches every name the operator makes.
    let wanted = [(live, database.to_owned(), and(&LIVE)), (beside, format!("{database}_backout_x"), and(&BESIDE))];
    let mut missing: Vec<String> = wanted
        .iter()
        .filter(|(_, schema, privileges)| !suffices(&held, schema, privileges))
        .map(|(pattern, _, privileges)| format!("GRANT {} ON `{}`.* TO {account};", privileges.join(", "), pattern.replace('`', "``")))
        .collect();
    let of_others: Vec<StoredKind> = objects.iter().filter(|(_, definer)| *definer != current).map(|(kind, _)| *kind).collect();
    if !of_others.is_empty() && !suffices(&held, "", &["SET USER"]) {
        missing.push(format!("GRANT SET USER ON *.* TO {account};"));
    }
    let has_routines = of_others.iter().any(|kind| wanted_for(*kind).contains(&"CREATE ROUTINE"));
    if has_routines && !may_read_routines(session).await? {
        missing.push(format!("GRANT SELECT ON mysql.proc TO {account};"));
    }
    let logged = objects.iter().any(|(kind, _)| matches!(kind, StoredKind::Trigger | StoredKind::Function));
    if logged && !suffices(&held, "", &["SUPER"]) && !trusts_creators(session).await? {
        missing.push("SET GLOBAL log_bin_trust_function_creators=ON;".to_owned());
    }
    Ok(missing)
}

/// Whether accounts without SUPER may make triggers and functions: with a binary log, not unless the server is told to trust them.
async fn trusts_creators(session: &mut Session) -> Result<bool> {
    let is_on = |value: Option<String>| value.is_some_and(|value| value == "ON");
    Ok(!is_on(session.variable("log_bin").await?) || is_on(session.variable("log_bin_trust_function_creators").await?))
}

/// Whether the text of routines of other accounts is to be seen.
async fn may_read_routines(session: &mut Session) -> Result<bool> {
    match session.row("look whether routines can be read", "SELECT 1 FROM mysql.proc LIMIT 0").await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(TABLE_DENIED) => Ok(false),
        Err(error) => Err(error),
    }
}

fn suffices(held: &[Grant], schema: &str, privileges: &[&str]) -> bool {
    let global = held.iter().filter(|grant| grant.pattern.is_none());
    let specific = held
        .iter()
        .filter_map(|grant| grant.pattern.as_ref().map(|pattern| (pattern, grant)))
        .filter(|(pattern, _)| matches(pattern, schema))
        .max_by_key(|(pattern, _)| specificity(pattern))
        .map(|(_, grant)| grant);
    let held: BTreeSet<&str> = global.chain(specific).flat_map(|grant| grant.privileges.iter().map(String::as_str)).collect();
    held.contains("ALL PRIVILEGES") || privileges.iter().all(|privilege| held.contains(privilege))
}

/// One line of `SHOW GRANTS` about all schemas or about one pattern of schemas.
#[derive(Debug, PartialEq)]
struct Grant {
    privileges: Vec<String>,
    /// `None`: all schemas.
    pattern: Option<String>,
}

impl Grant {
    /// ``GRANT SELECT, INSERT ON `a\_b`.* TO `u`@`%` …``; lines about tables, columns, routines and roles give `None`.
    fn parse(line: &str) -> Option<Self> {
        let (privileges, rest) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
        let pattern = if rest.starts_with("*.* TO ") {
            None
        } else {
            let (pattern, rest) = unquote(rest)?;
            if !rest.starts_with(".* TO ") {
                return None;
            }
            Some(pattern)
        };
        Some(Self { privileges: privileges.split(", ").map(str::to_owned).collect(), pattern })
    }
}

/// A leading identifier in backticks, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('`')?;
    let mut name = String::new();
    loop {
        let end = rest.find('`')?;
        name.push_str(rest.get(..end)?);
        rest = rest.get(end + 1..)?;
        match rest.strip_prefix('`') {
            Some(more) => {
                name.push('`');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

/// `LIKE` as the server applies it to schema names in grants.
pub(super) fn matches(pattern: &str, schema: &str) -> bool {
    let mut pattern_chars = pattern.chars();
    match pattern_chars.next() {
        None => schema.is_empty(),
        Some('%') => {
            let rest = pattern_chars.as_str();
            schema.char_indices().map(|(at, _)| at).chain([schema.len()]).any(|at| schema.get(at..).is_some_and(|tail| matches(rest, tail)))
        }
        Some('_') => next_matches(pattern_chars.as_str(), schema, |_| true),
        Some('\\') => match pattern_chars.next() {
            Some(escaped) => next_matches(pattern_chars.as_str(), schema, |c| c == escaped),
            None => schema == "\\",
        },
        Some(plain) => next_matches(pattern_chars.as_str(), schema, |c| c == plain),
    }
}

fn next_matches(pattern: &str, schema: &str, accepts: impl Fn(char) -> bool) -> bool {
    let mut schema = schema.chars();
    schema.next().is_some_and(accepts) && matches(pattern, schema.as_str())
}

/// The further the first wildcard, the more specific the entry.
fn specificity(pattern: &str) -> usize {
    let mut escaped = false;
    for (at, c) in pattern.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '%' | '_' if !escaped => return at,
            _ => escaped = false,
        }
    }
    usize::MAX
}

/// `user@host` as `CURRENT_USER()` prints it, quoted for a GRANT.
fn account(current: &str) -> String {
    let (user, host) = current.rsplit_once('@').unwrap_or((current, "%"));
    format!("'{}'@'{}'", user.replace('\'', "''"), host.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_show_grants_are_read() {
        let grant = |line| Grant::parse(line);
        assert_eq!(
            grant("GRANT SELECT, CREATE VIEW ON `a``\\_b`.* TO `u`@`%`"),
            Some(Grant { privileges: vec!["SELECT".into(), "CREATE VIEW".into()], pattern: Some("a`\\_b".into()) })
        );
        assert_eq!(
            grant("GRANT ALL PRIVILEGES ON *.* TO `u`@`%` WITH GRANT OPTION"),
            Some(Grant { privileges: vec!["ALL PRIVILEGES".into()], pattern: None })
        );
        for other in ["GRANT SELECT ON `a`.`t` TO `u`@`%`", "GRANT `role` TO `u`@`%`", "GRANT EXECUTE ON FUNCTION `a`.`f` TO `u`@`%`"] {
            assert_eq!(grant(other), None, "{other}");
        }
    }

    #[test]
    fn patterns_match_as_the_server_matches_them() {
        for (pattern, schema, expected) in [
            ("shop", "shop", true),
            ("shop", "shop2", false),
            ("shop\\_backout\\_%", "shop_backout_x", true),
            ("shop\\_backout\\_%", "shopXbackout_x", false),
            ("shop%", "shop", true),
            ("sh_p", "shop", true),
            ("%", "anything", true),
        ] {
            assert_eq!(matches(pattern, schema), expected, "{pattern} {schema}");
        }
    }

    #[test]
    fn only_the_most_specific_entry_counts() {
        let held = vec![
            Grant { privileges: vec!["ALL PRIVILEGES".into()], pattern: Some("shop%".into()) },
            Grant { privileges: vec!["SELECT".into()], pattern: Some("shop".into()) },
        ];
        assert!(!suffices(&held, "shop", &["INSERT"]));
        assert!(suffices(&held, "shop_backout_x", &["INSERT"]));
    }
}
