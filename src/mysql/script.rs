//! Cuts a migration script into statements and says of each how it may be run.
//!
//! A small lexer: it knows quotes, identifiers in backticks and every kind of comment, and nothing else of SQL. What a statement is, is
//! decided by its first words. Pure.

/// One statement of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Without the closing `;`, comments kept (`/*! */` are code).
    pub text: String,
    pub effect: Effect,
}

/// What running it does, as far as it matters for running it exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Changes rows: goes into one transaction with the record of progress.
    Data,
    /// Changes definitions, atomically: whether it ran shows in the fingerprint.
    Definition,
    /// `DROP TABLE a, b`: each table by itself is atomic, not the statement; running it again drops the rest.
    DropSeveral,
    /// Can leave every definition as it was although it ran (exchanged partitions, several renames).
    Invisible,
    /// The same, but running it again does not take more away (`TRUNCATE`, `CREATE OR REPLACE`).
    Emptying,
    /// Changes the session only: run again whenever the script continues in a new session.
    Session,
}

/// Why a script can't be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub String);

/// The statements of a script in order; empty ones are left out.
pub(super) fn split(script: &str) -> Result<Vec<Statement>, Refusal> {
    cut(script)?.into_iter().map(|Piece { text, words: _, effect }| Ok(Statement { text, effect: effect? })).collect()
}

/// A statement that may be one that can't be run.
pub(super) struct Piece {
    pub text: String,
    /// In capitals; quoted ones as `?`, comments left out.
    pub words: Vec<String>,
    pub effect: Result<Effect, Refusal>,
}

/// The same without judging the statements: refused only where it can't be told where one ends.
pub(super) fn cut(script: &str) -> Result<Vec<Piece>, Refusal> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut words = Words::default();
    let bytes = script.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        match byte {
            b'\'' | b'"' | b'`' => {
                at = quoted(bytes, at).ok_or_else(|| refusal(script, at, "a quote is never closed"))?;
                words.push("?");
            }
            b'#' => at = line_end(bytes, at),
            b'-' if rest.starts_with(b"--") && rest.get(2).is_none_or(|next| next.is_ascii_whitespace() || next.is_ascii_control()) => {
                at = line_end(bytes, at);
            }
            b'/' if rest.starts_with(b"/*!") || rest.starts_with(b"/*M!") => {
                // Code for the server: its words count, its version number and its end do not.
                at += if rest.starts_with(b"/*!") { 3 } else { 4 };
                while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                    at += 1;
                }
                words.conditional += 1;
            }
            b'*' if words.conditional > 0 && rest.starts_with(b"*/") => {
                words.conditional -= 1;
                at += 2;
            }
            b'/' if rest.starts_with(b"/*") => {
                let end = rest.windows(2).skip(2).position(|pair| pair == b"*/");
                at += end.ok_or_else(|| refusal(script, at, "a comment is never closed"))? + 4;
            }
            b';' => {
                finish(script, start, at, &mut words, &mut pieces);
                at += 1;
                start = at;
            }
            _ if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'@' || byte >= 0x80 => {
                let end = rest.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'@' | b'$') || *b >= 0x80));
                let end = end.map_or(bytes.len(), |length| at + length);
                let word = script.get(at..end).unwrap_or_default();
                if words.list.is_empty() && word.eq_ignore_ascii_case("delimiter") {
                    return Err(refusal(
                        script,
                        at,
                        "DELIMITER is a command of the mysql client, not of the server; write plain statements",
                    ));
                }
                words.push(word);
                at = end;
            }
            b',' => {
                words.push(",");
                at += 1;
            }
            _ => at += 1,
        }
    }
    finish(script, start, bytes.len(), &mut words, &mut pieces);
    Ok(pieces)
}

/// The words of the statement at hand, quoted ones as `?`, and commas.
#[derive(Default)]
struct Words {
    list: Vec<String>,
    /// How many `/*!` are open.
    conditional: usize,
}

impl Words {
    fn push(&mut self, word: &str) {
        self.list.push(word.to_ascii_uppercase());
    }
}

fn finish(script: &str, start: usize, end: usize, words: &mut Words, pieces: &mut Vec<Piece>) {
    let words = std::mem::take(words);
    // Comments only.
    if words.list.is_empty() {
        return;
    }
    let effect = effect(&words.list).map_err(|reason| refusal(script, start, &reason));
    pieces.push(Piece { text: script.get(start..end).unwrap_or_default().trim().to_owned(), words: words.list, effect });
}

fn effect(words: &[String]) -> Result<Effect, String> {
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let has = |wanted: &str| words.iter().any(|word| word == wanted);
    Ok(match word(0) {
        "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "SELECT" | "WITH" | "VALUES" | "DO" => Effect::Data,
        "ALTER" if has("EXCHANGE") => Effect::Invisible,
        "RENAME" if has(",") => Effect::Invisible,
        "DROP" if has(",") => Effect::DropSeveral,
        "CREATE" | "ALTER" | "DROP" => {
            let object = ["TRIGGER", "VIEW", "PROCEDURE", "FUNCTION", "EVENT", "SEQUENCE", "PACKAGE"];
            let subject = ["TABLE", "INDEX", "DATABASE", "SCHEMA", "USER", "ROLE", "SERVER"];
            // The first of these words names what the statement is about; what stands before are options.
            match words.iter().find(|word| object.contains(&word.as_str()) || subject.contains(&word.as_str())).map(String::as_str) {
                Some("TABLE" | "INDEX") if has("TRUNCATE") || has("REPLACE") || has("TABLESPACE") => Effect::Emptying,
                Some("TABLE" | "INDEX") => Effect::Definition,
                Some(kind) if word(0) == "DROP" && object.contains(&kind) => {
                    return Err(format!("it drops a {}, which backups can't carry yet", kind.to_lowercase()));
                }
                Some(kind) if object.contains(&kind) => {
                    return Err(format!("it makes or changes a {}, which backups can't carry yet", kind.to_lowercase()));
                }
                Some(kind) => return Err(format!("{} {kind} does not belong into a migration of one schema", word(0))),
                None => return Err(format!("what it does is not known ({} {} …)", word(0), word(1))),
            }
        }
        "TRUNCATE" => Effect::Emptying,
        "RENAME" | "OPTIMIZE" | "ANALYZE" | "CHECK" | "REPAIR" => Effect::Definition,
        "SET" if has("AUTOCOMMIT") || has("@@AUTOCOMMIT") => return Err(transactions("SET autocommit")),
        "SET" if has("GLOBAL") || has("@@GLOBAL") => return Err("SET GLOBAL changes the whole server".to_owned()),
        "SET" if matches!(word(1), "STATEMENT" | "PASSWORD" | "ROLE" | "DEFAULT") => {
            return Err(format!("SET {} does more than to set a variable of the session; leave it out", word(1)));
        }
        "SET" => Effect::Session,
        "START" | "BEGIN" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" | "XA" | "LOCK" | "UNLOCK" => {
            return Err(transactions(word(0)));
        }
        "USE" => return Err("USE leaves the schema that is backed up".to_owned()),
        "CALL" | "PREPARE" | "EXECUTE" | "DEALLOCATE" => {
            return Err(format!("{} can do anything, so it can't be known whether it ran; write the statements out", word(0)));
        }
        other => return Err(format!("{other} is not a statement that a migration can be made of")),
    })
}

fn transactions(what: &str) -> String {
    format!("{what} can't be used: every statement is committed together with its progress; leave it out")
}

fn refusal(script: &str, at: usize, reason: &str) -> Refusal {
    let before = script.get(..at).unwrap_or_default();
    // The statement begins after the blank lines that follow the previous one.
    let blank = script.get(at..).unwrap_or_default();
    let blank = blank.get(..blank.len() - blank.trim_start().len()).unwrap_or_default();
    let line = before.matches('\n').count() + blank.matches('\n').count() + 1;
    Refusal(format!("line {line}: {reason}"))
}

/// The place after the quoted text that begins at `start`. Backslashes escape in strings, not in identifiers; a doubled quote is one.
fn quoted(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = *bytes.get(start)?;
    let mut at = start + 1;
    loop {
        let byte = *bytes.get(at)?;
        if byte == b'\\' && quote != b'`' {
            at += 2;
        } else if byte == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return Some(at + 1);
            }
            at += 2;
        } else {
            at += 1;
        }
    }
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..).unwrap_or_default().iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_cut_into_statements() {
        for (name, script, expected) in [
            ("two", "CREATE TABLE a (x INT);\nINSERT INTO a VALUES (1);\n", &["CREATE TABLE a (x INT)", "INSERT INTO a VALUES (1)"][..]),
            ("no last semicolon", "DROP TABLE a", &["DROP TABLE a"]),
            ("empty", " ;; \n-- nothing\n;/* */", &[]),
            ("in strings", r#"INSERT INTO a VALUES ('a;''b\';', "c;""d")"#, &[r#"INSERT INTO a VALUES ('a;''b\';', "c;""d")"#]),
            ("in names", "DROP TABLE `a;``b\\`; DROP TABLE c", &["DROP TABLE `a;``b\\`", "DROP TABLE c"]),
            ("in comments", "DROP /* ; */ TABLE a -- ; \n # ; ' \n; DROP TABLE b", &["DROP /* ; */ TABLE a -- ; \n # ; '", "DROP TABLE b"]),
            ("minus minus is no comment", "UPDATE a SET x=1--1; DELETE FROM a", &["UPDATE a SET x=1--1", "DELETE FROM a"]),
            ("code in a comment", "/*!40101 SET NAMES utf8mb4 */; DROP TABLE a", &["/*!40101 SET NAMES utf8mb4 */", "DROP TABLE a"]),
            ("unicode", "INSERT INTO `ü` VALUES ('🎉;')", &["INSERT INTO `ü` VALUES ('🎉;')"]),
        ] {
            let found: Vec<String> = split(script).expect(name).into_iter().map(|statement| statement.text).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn statements_are_told_apart() {
        for (script, effect) in [
            ("insert into a values (1)", Effect::Data),
            ("-- why\nUPDATE a SET x = 1", Effect::Data),
            ("WITH c AS (SELECT 1) SELECT * FROM c", Effect::Data),
            ("CREATE TABLE a (trigger_id INT)", Effect::Definition),
            ("CREATE OR REPLACE TABLE a (trigger_id INT)", Effect::Emptying),
            ("ALTER TABLE a TRUNCATE PARTITION p", Effect::Emptying),
            ("CREATE UNIQUE INDEX i ON a (x)", Effect::Definition),
            ("ALTER ONLINE TABLE a ADD COLUMN view INT", Effect::Definition),
            ("TRUNCATE a", Effect::Emptying),
            ("DROP TABLE a, b", Effect::DropSeveral),
            ("RENAME TABLE a TO b", Effect::Definition),
            ("RENAME TABLE a TO c, b TO a", Effect::Invisible),
            ("ALTER TABLE a EXCHANGE PARTITION p WITH TABLE b", Effect::Invisible),
            ("SET @x = 1", Effect::Session),
            ("/*!40101 SET NAMES utf8mb4 */", Effect::Session),
        ] {
            let found = split(script).expect(script);
            assert_eq!(found.iter().map(|statement| statement.effect).collect::<Vec<_>>(), [effect], "{script}");
        }
    }

    #[test]
    fn what_cannot_be_run_exactly_once_is_refused() {
        for (script, part) in [
            ("DELIMITER //\nCREATE TRIGGER", "line 1: DELIMITER"),
            ("SELECT 1;\n\nBEGIN;", "line 3: BEGIN can't be used"),
            ("SET autocommit = 0", "SET autocommit can't be used"),
            ("SET @@session.autocommit = 0", "SET autocommit can't be used"),
            ("SET @@autocommit = 0", "SET autocommit can't be used"),
            ("SET @@global.max_connections = 1", "SET GLOBAL changes the whole server"),
            ("SET STATEMENT max_statement_time = 1 FOR DELETE FROM a", "SET STATEMENT does more"),
            ("CREATE DEFINER=x@y TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET @a = 1", "makes or changes a trigger"),
            ("CREATE OR REPLACE VIEW v AS SELECT 1", "makes or changes a view"),
            ("DROP VIEW v", "drops a view"),
            ("CREATE USER u", "CREATE USER does not belong"),
            ("USE other", "USE leaves the schema"),
            ("CALL p()", "CALL can do anything"),
            ("SELECT 'a", "line 1: a quote is never closed"),
            ("SELECT 1 /* a", "line 1: a comment is never closed"),
            ("LOAD DATA INFILE 'x' INTO TABLE a", "LOAD is not a statement"),
        ] {
            let Err(Refusal(reason)) = split(script) else { panic!("{script} was accepted") };
            assert!(reason.contains(part), "{script}: {reason}");
        }
    }
}
