//! Whether a script stays within the tables of its own schema, so that a copy of them shows what it does. Pure.
//!
//! What can't be read is not within: on a copy, a statement that names the live schema would change live tables.

use std::collections::BTreeSet;

use sqlparser::dialect::MySqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::destruction::plain;
use super::script::{self, Effect, Piece, Refusal};
use super::stored::{StoredKind, StoredObject};

/// Engines whose tables hold their rows themselves.
const ENGINES: [&str; 4] = ["innodb", "aria", "myisam", "memory"];
/// Words with which a statement has effects elsewhere, or on what those after it mean.
const ELSEWHERE: &[&str] = &[
    "outfile",
    "dumpfile",
    "tablespace",
    "sql_mode",
    "storage_engine",
    "default_storage_engine",
    "get_lock",
    "release_lock",
    "release_all_locks",
    "sys_exec",
    "sys_eval",
];

/// What `SET` says before a character set in which the server is to read what follows.
const CHARACTER_SETS: &[&str] = &["names", "character", "charset", "character_set_client"];

/// What there is besides the tables of a copy.
pub(super) struct Around {
    /// All schemas that the account sees, in lower case.
    schemas: BTreeSet<String>,
    objects: Vec<StoredObject>,
}

impl Around {
    pub fn new(schemas: impl IntoIterator<Item = String>, objects: &[StoredObject]) -> Self {
        Self { schemas: schemas.into_iter().map(|schema| schema.to_lowercase()).collect(), objects: objects.to_vec() }
    }

    /// Which statement leaves the copy, and how; `None`: none does.
    pub fn left_by(&self, script: &str) -> Option<String> {
        let pieces = match script::cut(script) {
            Ok(pieces) => pieces,
            Err(Refusal(reason)) => return Some(reason),
        };
        let left = |(index, piece): (usize, &Piece)| self.left_in(piece).map(|how| format!("statement {} {how}", index + 1));
        pieces.iter().enumerate().find_map(left).or_else(|| self.fires(&pieces))
    }

    /// Which trigger rows that it changes would run. A renamed table takes its triggers along: it is enough that it is named anywhere.
    fn fires(&self, pieces: &[Piece]) -> Option<String> {
        if pieces.iter().all(|piece| piece.effect != Ok(Effect::Data)) {
            return None;
        }
        let text: Vec<String> = pieces.iter().map(|piece| piece.text.to_lowercase()).collect();
        let fires =
            |object: &&StoredObject| object.on.as_ref().is_some_and(|on| text.iter().any(|text| text.contains(&on.table.to_lowercase())));
        self.objects.iter().find(fires).map(|object| format!("it needs {object}"))
    }

    fn left_in(&self, piece: &Piece) -> Option<String> {
        let Ok(text) = plain(&piece.text) else { return Some("holds code in a comment (/*! … */)".to_owned()) };
        // Names that begin with a digit are not told from numbers by every reader.
        let lower = text.to_lowercase();
        if let Some(schema) = self.schemas.iter().find(|schema| schema.starts_with(|c: char| c.is_ascii_digit()) && lower.contains(*schema))
        {
            return Some(format!("may name schema {schema}"));
        }
        let tokens = match Tokenizer::new(&MySqlDialect {}, text).with_unescape(false).tokenize() {
            Ok(tokens) => tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect::<Vec<_>>(),
            Err(error) => return Some(format!("can't be read: {error}")),
        };
        if let Some(how) = tokens.windows(2).find_map(|pair| self.qualified(pair)) {
            return Some(how);
        }
        let words: Vec<String> = tokens.iter().filter_map(word).collect();
        let has = |wanted: &str| words.iter().any(|word| word == wanted);
        if let Some(word) = ELSEWHERE.iter().find(|word| has(word)) {
            return Some(format!("has {}", word.to_uppercase()));
        }
        if makes_another_engines(&tokens) {
            return Some(format!("makes a table of an engine that is none of {}", ENGINES.join(", ")));
        }
        if words.first().is_some_and(|word| word == "set") && CHARACTER_SETS.iter().any(|word| has(word)) && !names_utf8(&tokens) {
            return Some("sets a character set in which text may mean something else".to_owned());
        }
        let is_named =
            |object: &&StoredObject| !matches!(object.kind, StoredKind::Trigger | StoredKind::Event) && has(&object.name.to_lowercase());
        self.objects.iter().find(is_named).map(|object| format!("needs {object}"))
    }

    /// A name with its schema before it.
    fn qualified(&self, pair: &[Token]) -> Option<String> {
        let (before, is_read) = match pair {
            [before, Token::Period] => (before, true),
            // The name after it begins with a digit.
            [before, Token::Number(number, _)] if number.starts_with('.') => (before, false),
            _ => return None,
        };
        match word(before) {
            Some(word) if self.schemas.contains(&word) => Some(format!("names schema {word}")),
            None if is_read => Some("has a name that can't be read".to_owned()),
            Some(_) | None => None,
        }
    }
}

/// After each ENGINE, of which the last one counts.
fn makes_another_engines(tokens: &[Token]) -> bool {
    let is_engine = |token: &Token| word(token).is_some_and(|word| word == "engine");
    let named = |at: usize| tokens.get(at + 1..)?.iter().find(|token| **token != Token::Eq).cloned();
    let is_known = |token: Option<Token>| match token {
        Some(Token::Word(word)) => ENGINES.contains(&word.value.to_lowercase().as_str()),
        _ => false,
    };
    tokens.iter().enumerate().any(|(at, token)| is_engine(token) && !is_known(named(at)))
}

fn names_utf8(tokens: &[Token]) -> bool {
    tokens.iter().any(|token| token.to_string().trim_matches(['\'', '"']).to_lowercase().starts_with("utf8"))
}

/// In lower case; of a variable without what marks it as one.
fn word(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.value.to_lowercase().trim_start_matches('@').replace("``", "`")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::stored::On;
    use super::*;

    fn object(kind: StoredKind, name: &str, on: Option<&str>) -> StoredObject {
        StoredObject {
            kind,
            name: name.to_owned(),
            on: on.map(|table| On { table: table.to_owned(), moment: "BEFORE INSERT".to_owned() }),
            definer: "shop@%".to_owned(),
            text: String::new(),
            sql_mode: String::new(),
            charset: "utf8mb4".to_owned(),
            collation: "utf8mb4_bin".to_owned(),
            time_zone: None,
        }
    }

    #[test]
    fn a_script_that_leaves_the_tables_of_its_schema_is_named() {
        let objects = [
            object(StoredKind::View, "Recent", None),
            object(StoredKind::Trigger, "stamp", Some("orders")),
            object(StoredKind::Event, "old", None),
        ];
        let around = Around::new(["shop", "Stock", "mysql", "2020"].map(str::to_owned), &objects);
        for (script, how) in [
            ("ALTER TABLE parts ADD w INT; UPDATE lines l JOIN parts p ON p.id = l.part SET l.w = p.w", None),
            ("ALTER TABLE shop_orders ADD old INT COMMENT 'in shop.orders'", None),
            ("CREATE TABLE a (x INT) ENGINE = InnoDB COMMENT='ENGINE=x'", None),
            ("SET @x = 1.5; INSERT INTO lines VALUES (@x, .5, 'a.b')", None),
            ("DROP TABLE a; DELETE FROM shop.lines", Some("statement 2 names schema shop")),
            ("DELETE FROM `SHOP` . lines", Some("names schema shop")),
            ("DELETE FROM shop/* */./* */lines", Some("names schema shop")),
            ("DELETE FROM shop.1lines", Some("names schema shop")),
            ("DELETE FROM lines WHERE x = 1--1 OR EXISTS (SELECT 1 FROM shop.lines)", Some("names schema shop")),
            ("DELETE FROM lines WHERE x = 1 -- of shop.lines", None),
            ("/* /* */ DELETE FROM shop.lines /* */", Some("names schema shop")),
            ("DELETE FROM \"shop\".lines", Some("a name that can't be read")),
            ("ALTER TABLE a ADD FOREIGN KEY (x) REFERENCES stock.parts (id)", Some("names schema stock")),
            ("INSERT INTO lines SELECT 1 FROM 2020.lines", Some("may name schema 2020")),
            ("/*!40101 DELETE FROM a */; DELETE FROM b /*! WHERE x */", Some("statement 2 holds code in a comment")),
            ("SELECT 1 INTO OUTFILE '/tmp/x'", Some("has OUTFILE")),
            ("SET sql_mode = 'ANSI_QUOTES'", Some("has SQL_MODE")),
            ("CREATE TABLE a (x INT) ENGINE=FEDERATED", Some("makes a table of an engine")),
            ("ALTER TABLE a ENGINE = InnoDB, ENGINE 'FEDERATED'", Some("makes a table of an engine")),
            ("SET default_storage_engine = FEDERATED", Some("has DEFAULT_STORAGE_ENGINE")),
            ("SET @@default_storage_engine = FEDERATED", Some("has DEFAULT_STORAGE_ENGINE")),
            ("SET @@sql_mode = 'NO_BACKSLASH_ESCAPES'", Some("has SQL_MODE")),
            ("SET NAMES gbk", Some("sets a character set")),
            ("SET NAMES utf8mb4; ALTER TABLE a CONVERT TO CHARACTER SET latin1", None),
            ("RENAME TABLE orders TO o; INSERT INTO o VALUES (1)", Some("needs trigger stamp on orders")),
            ("DO RELEASE_ALL_LOCKS()", Some("has RELEASE_ALL_LOCKS")),
            ("INSERT INTO lines SELECT * FROM recent", Some("needs view Recent")),
            ("INSERT INTO orders VALUES (1)", Some("needs trigger stamp on orders")),
            ("ALTER TABLE orders ADD w INT", None),
            ("SELECT 'a", Some("a quote is never closed")),
        ] {
            let found = around.left_by(script);
            match how {
                Some(part) => assert!(found.as_deref().is_some_and(|found| found.contains(part)), "{script}: {found:?}"),
                None => assert_eq!(found, None, "{script}"),
            }
        }
    }
}
