//! What a script takes away for good: tables, columns, rows, values. Pure; how much that is, [`super::script_loss`] counts.
//!
//! Only what is known to be harmless is passed over. Everything else is named, at least as [`Takes::Unclear`]: what can't be read is
//! never safe. Data statements are read by sqlparser. Definitions are read from its tokens by the parts below, because MariaDB's own
//! forms (`DROP COLUMN IF EXISTS`, `ALTER TABLE IF EXISTS`, `NOWAIT`) are unknown to its grammar, and because a clause that was not
//! recognised must not be skipped.
//!
//! Names are those from before the script: after `RENAME TABLE a TO b; DROP TABLE b` it is `a` that is lost.

use std::collections::{BTreeMap, BTreeSet};

use sqlparser::dialect::MySqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::script::{self, Effect, Refusal};
use super::{clauses, rows_taken};

/// Something that a statement takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destruction {
    /// The statement that does it, on one line and shortened.
    pub statement: String,
    pub takes: Takes,
}

/// What is taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A whole table.
    Table(TableName),
    /// A column with its values.
    Column { table: TableName, column: String },
    /// A column is given another definition; values that don't fit it are changed.
    Values { table: TableName, column: String, definition: String },
    /// Rows, or what they held. Without a condition: all of them, or those that can't be told.
    Rows { table: TableName, verb: Verb, condition: Option<String> },
    /// A whole schema.
    Schema(String),
    /// It can't be told, for this reason.
    Unclear(String),
}

/// How rows are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Truncate,
    Delete,
    Update,
    Replace,
}

/// A table as a statement names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// `None`: the live schema.
    pub schema: Option<String>,
    pub table: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.table),
            None => f.write_str(&self.table),
        }
    }
}

/// Characters of a statement that are shown.
const SHOWN: usize = 120;

/// Everything that `script` takes away, in its order. Empty: nothing.
pub fn destruction(script: &str) -> Vec<Destruction> {
    read(script, &mut Names::new(None))
}

/// The same for a script that runs after others, whose renamed tables and columns `names` knows.
pub(super) fn read(script: &str, names: &mut Names) -> Vec<Destruction> {
    let pieces = match script::cut(script) {
        Ok(pieces) => pieces,
        Err(Refusal(reason)) => return vec![Destruction { statement: shortened(script), takes: Takes::Unclear(reason) }],
    };
    let mut found = Vec::new();
    for piece in pieces {
        let statement = shortened(&piece.text);
        found.extend(one(&piece, names).into_iter().map(|takes| Destruction { statement: statement.clone(), takes }));
    }
    found
}

fn one(piece: &script::Piece, names: &mut Names) -> Vec<Takes> {
    let Ok(text) = plain(&piece.text) else {
        return unclear("it holds code in a comment (/*! … */), which only some servers run");
    };
    // Without unescaping: a text with an escape is never put into another statement.
    let tokens = match Tokenizer::new(&MySqlDialect {}, text).with_unescape(false).tokenize() {
        Ok(tokens) => tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect::<Vec<_>>(),
        Err(error) => return unclear(&error.to_string()),
    };
    let first = word_at(&tokens, 0);
    match (first.as_str(), &piece.effect) {
        // Not for a migration, but clear enough.
        ("DROP" | "ALTER" | "CREATE" | "RENAME" | "TRUNCATE", effect) => {
            clauses::definition(&tokens, names).unwrap_or_else(|reason| match effect {
                Err(Refusal(refusal)) => unclear(refusal),
                Ok(_) => unclear(&reason),
            })
        }
        (_, Err(Refusal(reason))) => unclear(reason),
        ("SET", Ok(Effect::Session)) => {
            let words = (0..tokens.len()).map(|at| word_at(&tokens, at)).collect::<Vec<_>>();
            if words.iter().any(|word| word.trim_start_matches('@') == "SQL_MODE") {
                return unclear("with another sql_mode the statements after it may mean something else");
            }
            if !only_known_settings(&tokens) {
                names.distrust_conditions();
            }
            Vec::new()
        }
        ("ANALYZE" | "OPTIMIZE" | "CHECK", Ok(Effect::Definition)) => Vec::new(),
        (_, Ok(Effect::Data)) => rows_taken::of(tokens, names).unwrap_or_else(|reason| unclear(&reason)),
        _ => unclear("it is not known to be harmless"),
    }
}

/// Whether a condition means the same after this SET: it sets user variables, which no condition with a meaning of its own holds, or
/// settings of which it is known. `SET NAMES` is none.
fn only_known_settings(tokens: &[Token]) -> bool {
    const KNOWN: [&str; 5] =
        ["FOREIGN_KEY_CHECKS", "UNIQUE_CHECKS", "CHECK_CONSTRAINT_CHECKS", "LOCK_WAIT_TIMEOUT", "INNODB_LOCK_WAIT_TIMEOUT"];
    let is_assignment = |token: &Token| matches!(token, Token::Eq | Token::Assignment);
    let mut set =
        tokens.iter().enumerate().filter(|(_, token)| is_assignment(token)).map(|(at, _)| word_at(tokens, at.saturating_sub(1))).peekable();
    let is_known = |word: String| (word.starts_with('@') && !word.starts_with("@@")) || KNOWN.contains(&word.trim_start_matches('@'));
    word_at(tokens, 1) == "TRANSACTION" || (set.peek().is_some() && set.all(is_known))
}

/// A statement that is one `/*! … */` as a whole either runs or does not: what is in it is what it can do at most.
pub(super) fn plain(text: &str) -> Result<&str, ()> {
    let inner = ["/*!", "/*M!"].iter().find_map(|open| text.strip_prefix(open)?.strip_suffix("*/"));
    let text = inner.map_or(text, |inner| inner.trim_start_matches(|c: char| c.is_ascii_digit()));
    let has_code = text.contains("/*!") || text.contains("/*M!") || (inner.is_some() && text.contains("*/"));
    if has_code { Err(()) } else { Ok(text) }
}

fn unclear(reason: &str) -> Vec<Takes> {
    vec![Takes::Unclear(reason.to_owned())]
}

/// The unquoted word at a place, in capitals; empty if there is none.
pub(super) fn word_at(tokens: &[Token], at: usize) -> String {
    match tokens.get(at) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        _ => String::new(),
    }
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN { line } else { line.chars().take(SHOWN - 1).chain(['…']).collect() }
}

/// What the names in a statement stood for before the scripts began.
pub(super) struct Names {
    /// The live schema: `live.t` is `t`.
    live: Option<String>,
    /// By present name; `None`: what stands there was brought by the scripts in place of another.
    tables: BTreeMap<TableName, Option<TableName>>,
    /// By table and present name.
    columns: BTreeMap<(TableName, String), String>,
    altered: BTreeSet<TableName>,
    conditions: Conditions,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Conditions {
    Trusted,
    Distrusted,
}

impl Names {
    pub fn new(live: Option<&str>) -> Self {
        Self {
            live: live.map(str::to_owned),
            tables: BTreeMap::new(),
            columns: BTreeMap::new(),
            altered: BTreeSet::new(),
            conditions: Conditions::Trusted,
        }
    }

    /// The table that stood for `name`, or why that can't be told.
    pub fn table(&self, name: &TableName) -> Result<TableName, String> {
        let name = self.local(name);
        match self.tables.get(&key(&name)) {
            None => Ok(name),
            Some(Some(before)) => Ok(before.clone()),
            Some(None) => Err(format!("table {name} was put in the place of another earlier on")),
        }
    }

    /// The column of `table`, a name from before, that is called `column` now.
    pub fn column(&self, table: &TableName, column: &str) -> String {
        self.columns.get(&(key(table), column.to_lowercase())).cloned().unwrap_or_else(|| column.to_owned())
    }

    pub fn rename_table(&mut self, from: &TableName, to: &TableName) -> Result<(), String> {
        let (from, to) = (self.local(from), self.local(to));
        if from.schema != to.schema {
            return Err(format!("table {from} leaves its schema"));
        }
        let before = self.table(&from).ok();
        self.tables.insert(key(&from), None);
        self.tables.insert(key(&to), before);
        Ok(())
    }

    /// Renames of one statement, all at once, as the server does them.
    pub fn rename_columns(&mut self, table: &TableName, renames: &[(String, String)]) {
        let before: Vec<String> = renames.iter().map(|(from, _)| self.column(table, from)).collect();
        for ((_, to), before) in renames.iter().zip(before) {
            self.columns.insert((key(table), to.to_lowercase()), before);
        }
    }

    /// From now on a condition on this table may mean something else than before the scripts.
    pub fn alter(&mut self, table: &TableName) {
        self.altered.insert(key(table));
    }

    pub fn distrust_conditions(&mut self) {
        self.conditions = Conditions::Distrusted;
    }

    /// Whether a condition on this table selects the same rows now as when the scripts run.
    pub fn trusts_conditions_on(&self, table: &TableName) -> bool {
        self.conditions == Conditions::Trusted && !self.altered.contains(&key(table))
    }

    fn local(&self, name: &TableName) -> TableName {
        let schema = name.schema.clone().filter(|schema| Some(schema) != self.live.as_ref());
        TableName { schema, table: name.table.clone() }
    }
}

/// Column names never depend on the case, table names on some servers.
fn key(name: &TableName) -> TableName {
    TableName { schema: name.schema.clone(), table: name.table.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken, in short: `t` a table, `t.c` a column, `t.c: type` another definition, `t delete where …` rows.
    fn told(script: &str) -> Vec<String> {
        let short = |takes: Takes| match takes {
            Takes::Table(table) => table.to_string(),
            Takes::Column { table, column } => format!("{table}.{column}"),
            Takes::Values { table, column, definition } => format!("{table}.{column}: {definition}"),
            Takes::Rows { table, verb, condition: None } => format!("{table} {verb:?}"),
            Takes::Rows { table, verb, condition: Some(condition) } => format!("{table} {verb:?} {condition}"),
            Takes::Schema(schema) => format!("schema {schema}"),
            Takes::Unclear(_) => "unclear".to_owned(),
        };
        destruction(script).into_iter().map(|found| short(found.takes)).collect()
    }

    fn holds(rows: &[(&str, &str, &[&str])]) {
        let wrong: Vec<String> = rows
            .iter()
            .filter(|(_, script, expected)| told(script) != *expected)
            .map(|(name, script, expected)| format!("{name}: {script}\n  gives    {:?}\n  expected {expected:?}", told(script)))
            .collect();
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    #[test]
    fn what_is_harmless_takes_nothing() {
        holds(&[
            ("nothing", " ;; -- nothing\n", &[]),
            ("create", "CREATE TABLE t (id INT)", &[]),
            ("create if", "CREATE TABLE IF NOT EXISTS t (id INT) AS SELECT 1 AS id", &[]),
            ("temporary", "CREATE OR REPLACE TEMPORARY TABLE t (id INT); DROP TEMPORARY TABLE t", &[]),
            ("index", "CREATE UNIQUE INDEX i ON t (a); DROP INDEX i ON t; CREATE OR REPLACE INDEX j ON t (b)", &[]),
            ("add", "ALTER TABLE t ADD COLUMN a INT, ADD b ENUM('x,y', 'z') AFTER a, ADD (c INT, d INT), ADD INDEX i (a, b)", &[]),
            ("keys", "ALTER TABLE t DROP INDEX i, DROP KEY j, DROP PRIMARY KEY, DROP FOREIGN KEY f, DROP CONSTRAINT c, DROP CHECK d", &[]),
            (
                "mariadb keys",
                "ALTER TABLE IF EXISTS t DROP INDEX IF EXISTS i, DROP FOREIGN KEY IF EXISTS f, DROP CONSTRAINT IF EXISTS c",
                &[],
            ),
            ("options", "ALTER TABLE t ADD INDEX i (a), ALGORITHM=INPLACE, LOCK = NONE", &[]),
            ("more options", "ALTER TABLE t ENGINE=InnoDB ROW_FORMAT=DYNAMIC COMMENT='DROP COLUMN a', AUTO_INCREMENT 5", &[]),
            ("default charset", "ALTER TABLE t DEFAULT CHARACTER SET = utf8mb4 COLLATE utf8mb4_bin", &[]),
            ("default", "ALTER TABLE t ALTER COLUMN a SET DEFAULT 5, ALTER b DROP DEFAULT, ALTER INDEX i IGNORED", &[]),
            (
                "rename",
                "RENAME TABLE a TO b, c TO d; ALTER TABLE b RENAME TO e; ALTER TABLE e RENAME COLUMN x TO y, RENAME INDEX i TO j",
                &[],
            ),
            ("insert", "INSERT INTO t VALUES (1, 'DROP TABLE t'); INSERT IGNORE INTO t (a) SELECT b FROM u; INSERT INTO t SET a = 1", &[]),
            ("select", "SELECT 1; WITH c AS (SELECT 1) SELECT * FROM c; (SELECT 1) UNION (SELECT 2)", &[]),
            ("set", "SET @a = 1; SET foreign_key_checks = 0; SET NAMES utf8mb4; SET SESSION lock_wait_timeout = 1", &[]),
            ("code that is a setting", "/*!40101 SET NAMES utf8mb4 */", &[]),
            ("upkeep", "ANALYZE TABLE t; OPTIMIZE TABLE t", &[]),
            ("comments", "-- DROP TABLE t\n# DROP TABLE t\n/* DROP TABLE t; */ CREATE TABLE u (id INT)", &[]),
        ]);
    }

    #[test]
    fn definitions_name_what_they_take() {
        holds(&[
            ("table", "DROP TABLE t", &["t"]),
            ("tables", "drop table if exists `a b`, s.`c``d` nowait, e cascade", &["a b", "s.c`d", "e"]),
            ("replaced", "CREATE OR REPLACE TABLE t (id INT)", &["t"]),
            ("schema", "DROP DATABASE IF EXISTS shop", &["schema shop"]),
            ("truncate", "TRUNCATE t; TRUNCATE TABLE s.u WAIT 5", &["t Truncate", "s.u Truncate"]),
            ("column", "ALTER TABLE t DROP COLUMN a", &["t.a"]),
            ("column without the word", "ALTER TABLE t DROP a, DROP `index`, DROP system", &["t.a", "t.index", "t.system"]),
            (
                "mariadb column",
                "ALTER ONLINE TABLE IF EXISTS s.t WAIT 3 DROP COLUMN IF EXISTS a RESTRICT, DROP IF EXISTS b",
                &["s.t.a", "s.t.b"],
            ),
            ("among others", "ALTER TABLE t ADD x INT, DROP INDEX i, DROP COLUMN a, ALGORITHM=COPY, DROP b", &["t.a", "t.b"]),
            (
                "type",
                "ALTER TABLE t MODIFY a INT NOT NULL, MODIFY COLUMN IF EXISTS b DECIMAL(10,2)",
                &["t.a: INT NOT NULL", "t.b: DECIMAL ( 10 , 2 )"],
            ),
            ("change", "ALTER TABLE t CHANGE COLUMN a b VARCHAR(5) FIRST", &["t.a: VARCHAR ( 5 ) FIRST"]),
            ("comments inside", "ALTER /* a */ TABLE t -- b\n DROP # c\n COLUMN a", &["t.a"]),
        ]);
    }

    #[test]
    fn names_are_those_from_before_the_script() {
        holds(&[
            ("table", "RENAME TABLE a TO b; DROP TABLE b", &["a"]),
            ("swapped", "RENAME TABLE t TO old, new TO t; DROP TABLE old; TRUNCATE t", &["t", "new Truncate"]),
            ("by alter", "ALTER TABLE a RENAME b; ALTER TABLE b DROP COLUMN c", &["a.c"]),
            ("put in its place", "RENAME TABLE t TO old; CREATE TABLE t (id INT); DELETE FROM t", &["unclear"]),
            ("column", "ALTER TABLE t RENAME COLUMN a TO b; ALTER TABLE t DROP B", &["t.a"]),
            ("column by change", "ALTER TABLE t CHANGE a b INT; ALTER TABLE t DROP b", &["t.a: INT", "t.a"]),
            ("columns swapped", "ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a; ALTER TABLE t DROP a", &["t.b"]),
            ("in one statement", "ALTER TABLE t RENAME COLUMN a TO b, DROP COLUMN b", &["t.b"]),
            ("out of the schema", "RENAME TABLE t TO s.t", &["unclear"]),
            ("out of the schema by alter", "ALTER TABLE t RENAME TO s.t", &["unclear"]),
            ("within another schema", "RENAME TABLE s.t TO s.u; DROP TABLE s.u", &["s.t"]),
        ]);
    }

    #[test]
    fn rows_are_told_with_their_condition_where_it_means_the_same_elsewhere() {
        holds(&[
            ("all", "DELETE FROM t", &["t Delete"]),
            (
                "condition",
                "DELETE FROM t WHERE a = 1 AND NOT (b LIKE 'x%' OR c IS NULL)",
                &["t Delete `a` = 1 AND NOT (`b` LIKE 'x%' OR `c` IS NULL)"],
            ),
            ("modifiers", "DELETE LOW_PRIORITY QUICK IGNORE FROM t WHERE a IN (1, -2) LIMIT 5", &["t Delete `a` IN (1, - 2)"]),
            ("alias", "DELETE FROM s.t AS x WHERE x.`a``b` BETWEEN 1 AND 2", &["s.t Delete `a``b` BETWEEN 1 AND 2"]),
            ("minus minus", "DELETE FROM t WHERE a = 1--1", &["t Delete `a` = 1 - - 1"]),
            ("functions", "DELETE FROM t WHERE lower(a) = \"x\" AND year(b) < 2020", &["t Delete LOWER(`a`) = 'x' AND YEAR(`b`) < 2020"]),
            ("update", "UPDATE t SET a = 1, b = b + 1 WHERE a <> 1", &["t Update `a` <> 1"]),
            ("update some", "UPDATE IGNORE t SET a = 1 WHERE a > 1 ORDER BY id LIMIT 3", &["t Update `a` > 1"]),
            ("replace", "REPLACE INTO t (a) VALUES (1)", &["t Replace"]),
            ("insert over", "INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = 2", &["t Update"]),
            ("variable", "DELETE FROM t WHERE a = @a", &["t Delete"]),
            ("subquery", "DELETE FROM t WHERE a IN (SELECT a FROM u)", &["t Delete"]),
            ("clock", "DELETE FROM t WHERE a < NOW()", &["t Delete"]),
            ("dice", "DELETE FROM t WHERE RAND() < 0.5", &["t Delete"]),
            ("own function", "DELETE FROM t WHERE f(a)", &["t Delete"]),
            ("escape", r"DELETE FROM t WHERE a = 'it\'s'", &["t Delete"]),
            ("hexadecimal", "DELETE FROM t WHERE a = 0x1f OR a = x'1f'", &["t Delete"]),
            ("introducer", "DELETE FROM t WHERE a = _latin1'x'", &["t Delete"]),
            ("collation", "DELETE FROM t WHERE a = 'x' COLLATE utf8mb4_bin", &["t Delete"]),
            ("or", "DELETE FROM t WHERE a = 1 || b = 1", &["t Delete"]),
            ("other table", "DELETE FROM t WHERE u.a = 1", &["t Delete"]),
            ("after names", "SET NAMES latin1; DELETE FROM t WHERE a = 'x'", &["t Delete"]),
            ("after checks", "SET foreign_key_checks = 0; DELETE FROM t WHERE a = 'x'", &["t Delete `a` = 'x'"]),
            ("after an alter", "ALTER TABLE t ADD b INT DEFAULT 1; DELETE FROM t WHERE b = 1", &["t Delete"]),
            ("joined", "DELETE a FROM t AS a JOIN u ON u.id = a.id WHERE u.x = 1", &["t Delete"]),
            ("joined, using", "DELETE FROM t USING t JOIN u ON u.id = t.id", &["t Delete"]),
            ("updated, joined", "UPDATE t JOIN u ON u.id = t.id SET t.a = u.a", &["t Update"]),
            ("updated, not told which", "UPDATE t JOIN u ON u.id = t.id SET a = 1", &["t Update", "u Update"]),
        ]);
    }

    #[test]
    fn what_is_not_known_is_unclear() {
        for script in [
            "SELEC",
            "DROP VIEW v",
            "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW DELETE FROM b",
            "CALL p()",
            "DO f()",
            "REPAIR TABLE t",
            "LOAD DATA INFILE 'x' INTO TABLE t",
            "ALTER IGNORE TABLE t ADD UNIQUE (a)",
            "ALTER TABLE t DROP PARTITION p",
            "ALTER TABLE t TRUNCATE PARTITION p",
            "ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u",
            "ALTER TABLE t DROP SYSTEM VERSIONING",
            "ALTER TABLE t DROP PERIOD FOR SYSTEM_TIME",
            "ALTER TABLE t CONVERT TO CHARACTER SET latin1",
            "ALTER TABLE t ENGINE=BLACKHOLE",
            "ALTER TABLE t DISCARD TABLESPACE",
            "ALTER TABLE t DROP COLUMN a b",
            "ALTER TABLE t DROP COLUMN \"a\"",
            "ALTER TABLE t NEVERHEARD a",
            "ALTER DATABASE d CHARACTER SET latin1",
            "DROP TABLE t SOON",
            "DELETE FROM t WHERE",
            "DELETE HISTORY FROM t",
            "SET sql_mode = 'ANSI_QUOTES'",
            "SET @@session.sql_mode = ''",
            "SET GLOBAL read_only = 0",
            "SET STATEMENT max_statement_time = 1 FOR DELETE FROM t",
            "/*!50003 DROP TABLE t */ CREATE TABLE u (id INT)",
            "CREATE TABLE u (id INT) /*M! SELECT 1 AS id */",
            "/*! CREATE TABLE u (id INT) */ /*! */",
            "DROP TABLE t; SELECT 'never closed",
        ] {
            assert_eq!(told(script), ["unclear"], "{script}");
        }
    }

    #[test]
    fn a_statement_is_shown_on_one_line_and_shortened() {
        let found = destruction(&format!("DROP  TABLE\n t /* {} */", "x".repeat(200)));
        assert!(found[0].statement.starts_with("DROP TABLE t /* xxx") && found[0].statement.ends_with('…'), "{}", found[0].statement);
        assert_eq!(found[0].statement.chars().count(), SHOWN);
    }
}
