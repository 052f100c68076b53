//! What DROP, ALTER, CREATE, RENAME and TRUNCATE take away, read from their tokens. Pure.
//!
//! Each clause of an ALTER is recognised to its last token or it is refused; nothing is skipped. A refusal is a reason, not an error:
//! [`super::destruction`] makes "unclear" of it.

use sqlparser::tokenizer::Token;

use super::destruction::{Names, TableName, Takes, Verb, word_at};

/// What a statement of the definition language takes, or why that can't be told.
pub(super) fn definition(tokens: &[Token], names: &mut Names) -> Result<Vec<Takes>, String> {
    let mut read = Reader { tokens, at: 1 };
    match word_at(tokens, 0).as_str() {
        "DROP" => drop_object(&mut read, names),
        "TRUNCATE" => {
            read.skip("TABLE");
            let table = names.table(&read.table()?)?;
            read.wait();
            read.end()?;
            Ok(vec![Takes::Rows { table, verb: Verb::Truncate, condition: None }])
        }
        "RENAME" => rename(&mut read, names),
        "CREATE" => create(&mut read, names),
        "ALTER" => alter(&mut read, names),
        _ => Err("it is not known".to_owned()),
    }
}

fn drop_object(read: &mut Reader<'_>, names: &Names) -> Result<Vec<Takes>, String> {
    if read.skip("DATABASE") || read.skip("SCHEMA") {
        read.if_exists();
        let schema = read.name()?;
        read.end()?;
        return Ok(vec![Takes::Schema(schema)]);
    }
    if read.skip("INDEX") {
        return Ok(Vec::new());
    }
    if read.skip("TEMPORARY") {
        // Of this session only.
        return if read.skip("TABLE") || read.skip("TABLES") { Ok(Vec::new()) } else { read.unknown() };
    }
    if !read.skip("TABLE") && !read.skip("TABLES") {
        return read.unknown();
    }
    read.if_exists();
    let mut taken = Vec::new();
    loop {
        taken.push(Takes::Table(names.table(&read.table()?)?));
        read.wait();
        if !read.comma() {
            break;
        }
    }
    let _ = read.skip("RESTRICT") || read.skip("CASCADE");
    read.end()?;
    Ok(taken)
}

fn rename(read: &mut Reader<'_>, names: &mut Names) -> Result<Vec<Takes>, String> {
    if !read.skip("TABLE") && !read.skip("TABLES") {
        return read.unknown();
    }
    read.if_exists();
    loop {
        let from = read.table()?;
        read.wait();
        read.expect("TO")?;
        let to = read.table()?;
        names.rename_table(&from, &to)?;
        if !read.comma() {
            break;
        }
    }
    read.end()?;
    Ok(Vec::new())
}

/// Making something takes nothing, unless it replaces a table.
fn create(read: &mut Reader<'_>, names: &Names) -> Result<Vec<Takes>, String> {
    let replaces = read.skip("OR") && read.skip("REPLACE");
    if read.skip("TEMPORARY") {
        return if read.skip("TABLE") { Ok(Vec::new()) } else { read.unknown() };
    }
    if read.skip("TABLE") {
        read.if_not_exists();
        let table = read.table()?;
        return if replaces { Ok(vec![Takes::Table(names.table(&table)?)]) } else { Ok(Vec::new()) };
    }
    let _ = read.skip("ONLINE") || read.skip("OFFLINE");
    let _ = read.skip("UNIQUE") || read.skip("FULLTEXT") || read.skip("SPATIAL");
    if read.skip("INDEX") { Ok(Vec::new()) } else { read.unknown() }
}

fn alter(read: &mut Reader<'_>, names: &mut Names) -> Result<Vec<Takes>, String> {
    let _ = read.skip("ONLINE");
    if read.peek("IGNORE") {
        return Err("ALTER IGNORE deletes the rows that break a new key".to_owned());
    }
    if !read.skip("TABLE") {
        return read.unknown();
    }
    read.if_exists();
    let present = read.table()?;
    let table = names.table(&present)?;
    read.wait();
    let mut change = Change { table: &table, names, taken: Vec::new(), columns: Vec::new(), moved: None };
    let mut rest = read.rest();
    while !rest.is_empty() {
        let (clause, after) = to_comma(rest);
        change.clause(&mut Reader { tokens: clause, at: 0 });
        rest = after;
    }
    let Change { table: _, names: _, mut taken, columns, moved } = change;
    names.alter(&table);
    names.rename_columns(&table, &columns);
    if let Some(to) = moved {
        let to = TableName { schema: to.schema.or(present.schema.clone()), table: to.table };
        if let Err(reason) = names.rename_table(&present, &to) {
            taken.push(Takes::Unclear(reason));
        }
    }
    Ok(taken)
}

/// One `ALTER TABLE`. Its clauses speak of the names from before it.
struct Change<'a> {
    table: &'a TableName,
    names: &'a Names,
    taken: Vec<Takes>,
    columns: Vec<(String, String)>,
    moved: Option<TableName>,
}

impl Change<'_> {
    fn clause(&mut self, read: &mut Reader<'_>) {
        let known = match read.next_word().as_str() {
            // Whatever is added, what is there stays.
            "ADD" => Ok(()),
            "DROP" => self.drop(read),
            "MODIFY" => self.redefine(read, Renamed::No),
            "CHANGE" => self.redefine(read, Renamed::Yes),
            "ALTER" => default(read),
            "RENAME" => self.rename(read),
            "ENABLE" | "DISABLE" => read.expect("KEYS").and_then(|()| read.end()),
            "FORCE" => read.end(),
            "REMOVE" => read.expect("PARTITIONING").and_then(|()| read.end()),
            _ => {
                read.at = 0;
                options(read)
            }
        };
        if let Err(reason) = known {
            self.taken.push(Takes::Unclear(reason));
        }
    }

    fn drop(&mut self, read: &mut Reader<'_>) -> Result<(), String> {
        if read.skip("PRIMARY") {
            read.expect("KEY")?;
            return read.end();
        }
        if read.peek("PARTITION") || read.peek2("SYSTEM", "VERSIONING") || read.peek2("PERIOD", "FOR") {
            return read.unknown();
        }
        let constraint = ["INDEX", "KEY", "CONSTRAINT", "CHECK"].iter().any(|word| read.skip(word));
        if constraint || (read.skip("FOREIGN") && read.skip("KEY")) {
            read.if_exists();
            read.name()?;
            return read.end();
        }
        let _ = read.skip("COLUMN");
        read.if_exists();
        let column = read.name()?;
        let _ = read.skip("RESTRICT") || read.skip("CASCADE");
        read.end()?;
        self.taken.push(Takes::Column { table: self.table.clone(), column: self.names.column(self.table, &column) });
        Ok(())
    }

    fn redefine(&mut self, read: &mut Reader<'_>, renamed: Renamed) -> Result<(), String> {
        let _ = read.skip("COLUMN");
        read.if_exists();
        let column = read.name()?;
        if renamed == Renamed::Yes {
            self.columns.push((column.clone(), read.name()?));
        }
        let definition = read.rest().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        if definition.is_empty() {
            return read.unknown();
        }
        self.taken.push(Takes::Values { table: self.table.clone(), column: self.names.column(self.table, &column), definition });
        Ok(())
    }

    fn rename(&mut self, read: &mut Reader<'_>) -> Result<(), String> {
        if read.skip("COLUMN") {
            read.if_exists();
            let from = read.name()?;
            read.expect("TO")?;
            self.columns.push((from, read.name()?));
        } else if read.skip("INDEX") || read.skip("KEY") {
            read.if_exists();
            read.name()?;
            read.expect("TO")?;
            read.name()?;
        } else {
            let _ = read.skip("TO") || read.skip("AS") || read.symbol(&Token::Eq);
            self.moved = Some(read.table()?);
        }
        read.end()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Renamed {
    Yes,
    No,
}

/// `ALTER [COLUMN] c SET DEFAULT …`, `ALTER INDEX …`: only what is written from now on changes.
fn default(read: &mut Reader<'_>) -> Result<(), String> {
    if ["INDEX", "KEY", "CHECK", "CONSTRAINT"].iter().any(|word| read.skip(word)) {
        return Ok(());
    }
    let _ = read.skip("COLUMN");
    read.if_exists();
    read.name()?;
    if (read.skip("SET") || read.skip("DROP")) && read.skip("DEFAULT") { Ok(()) } else { read.unknown() }
}

/// Options of the table and of the ALTER itself that leave every value as it is.
fn options(read: &mut Reader<'_>) -> Result<(), String> {
    const VALUED: [&str; 16] = [
        "ALGORITHM",
        "LOCK",
        "COMMENT",
        "AUTO_INCREMENT",
        "ROW_FORMAT",
        "KEY_BLOCK_SIZE",
        "STATS_PERSISTENT",
        "STATS_AUTO_RECALC",
        "STATS_SAMPLE_PAGES",
        "AVG_ROW_LENGTH",
        "MAX_ROWS",
        "MIN_ROWS",
        "PAGE_COMPRESSED",
        "PAGE_COMPRESSION_LEVEL",
        "CHARSET",
        "COLLATE",
    ];
    if read.rest().is_empty() {
        return read.unknown();
    }
    while !read.rest().is_empty() {
        if read.skip("ENGINE") {
            read.symbol(&Token::Eq);
            // Another engine may keep nothing at all.
            read.expect("INNODB")?;
            continue;
        }
        // Without CONVERT TO it is only the default of columns to come.
        let _ = read.skip("DEFAULT");
        let known = (read.skip("CHARACTER") && read.skip("SET")) || VALUED.iter().any(|option| read.skip(option));
        if !known {
            return read.unknown();
        }
        read.symbol(&Token::Eq);
        if read.next().is_none() {
            return read.unknown();
        }
    }
    Ok(())
}

/// The tokens before the first comma outside of parentheses, and those after it.
fn to_comma(tokens: &[Token]) -> (&[Token], &[Token]) {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Comma if depth == 0 => {
                return (tokens.get(..at).unwrap_or_default(), tokens.get(at + 1..).unwrap_or_default());
            }
            _ => {}
        }
    }
    (tokens, &[])
}

/// A place in a list of tokens. Words are compared in capitals and only where they are not quoted.
struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    fn next_word(&mut self) -> String {
        let word = word_at(self.tokens, self.at);
        self.at += 1;
        word
    }

    fn peek(&self, word: &str) -> bool {
        word_at(self.tokens, self.at) == word
    }

    fn peek2(&self, first: &str, second: &str) -> bool {
        self.peek(first) && word_at(self.tokens, self.at + 1) == second
    }

    fn skip(&mut self, word: &str) -> bool {
        let found = self.peek(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.skip(word) { Ok(()) } else { self.unknown() }
    }

    fn symbol(&mut self, token: &Token) -> bool {
        let found = self.tokens.get(self.at) == Some(token);
        self.at += usize::from(found);
        found
    }

    fn comma(&mut self) -> bool {
        self.symbol(&Token::Comma)
    }

    fn if_exists(&mut self) {
        if self.peek2("IF", "EXISTS") {
            self.at += 2;
        }
    }

    fn if_not_exists(&mut self) {
        if self.peek2("IF", "NOT") {
            self.at += 3;
        }
    }

    /// `WAIT 5` or `NOWAIT`.
    fn wait(&mut self) {
        if self.skip("WAIT") {
            self.at += 1;
        } else {
            self.skip("NOWAIT");
        }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Word(word)) if word.quote_style.is_none_or(|quote| quote == '`') && !word.value.starts_with('@') => {
                Ok(word.value.replace("``", "`"))
            }
            _ => self.unknown(),
        }
    }

    fn table(&mut self) -> Result<TableName, String> {
        let first = self.name()?;
        if self.symbol(&Token::Period) {
            Ok(TableName { schema: Some(first), table: self.name()? })
        } else {
            Ok(TableName { schema: None, table: first })
        }
    }

    fn rest(&self) -> &'a [Token] {
        self.tokens.get(self.at..).unwrap_or_default()
    }

    fn end(&self) -> Result<(), String> {
        if self.rest().is_empty() { Ok(()) } else { self.unknown() }
    }

    fn unknown<T>(&self) -> Result<T, String> {
        let from = self.at.saturating_sub(1);
        let near = self.tokens.get(from..).unwrap_or_default().iter().take(4).map(ToString::to_string).collect::<Vec<_>>().join(" ");
        Err(format!("it is not known what this does: {near}"))
    }
}
