//! Whether a column keeps every value when its definition is changed. Pure.
//!
//! Only what is known to be wide enough counts: the same type, or one that holds every value of it in the same form.

use super::inspect::{Column, Content};

/// `definition` is what follows the column's name in a MODIFY or CHANGE; `charset` the table's default.
pub(super) fn keeps(column: &Column, charset: Option<&str>, definition: &str) -> bool {
    if column.content != Content::Given {
        return true;
    }
    let (Some(from), Some(to)) = (Type::read(&column.column_type), Type::read(definition)) else { return false };
    // Computed from now on, or stored in another character set.
    const TELLING: [&str; 14] = [
        "AS",
        "GENERATED",
        "VIRTUAL",
        "PERSISTENT",
        "STORED",
        "CHARACTER",
        "CHARSET",
        "COLLATE",
        "ASCII",
        "UNICODE",
        "BYTE",
        "BINARY",
        "NATIONAL",
        "ZEROFILL",
    ];
    if to.rest.iter().any(|word| TELLING.contains(&word.as_str())) {
        return false;
    }
    if column.charset.is_some() && column.charset.as_deref() != charset {
        return false;
    }
    let wider = |family: &[&str]| {
        let place = |name: &str| family.iter().position(|member| *member == name);
        matches!((place(&from.name), place(&to.name)), (Some(from), Some(to)) if to >= from)
    };
    if wider(&["TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT"]) {
        // What stands in parentheses is only how wide it is shown.
        return from.unsigned() == to.unsigned();
    }
    if wider(&["TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT"]) || wider(&["TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB"]) {
        return to.arguments.is_empty();
    }
    if from.name != to.name || from.unsigned() != to.unsigned() {
        return false;
    }
    match from.name.as_str() {
        "VARCHAR" | "VARBINARY" => matches!((from.numbers(), to.numbers()), (Some([from, _]), Some([to, _])) if to >= from),
        "DECIMAL" => {
            let digits = |kind: &Type| kind.numbers().map(|[digits, scale]| (digits.saturating_sub(scale), scale));
            matches!((digits(&from), digits(&to)), (Some(from), Some(to)) if to.0 >= from.0 && to.1 >= from.1)
        }
        "DATETIME" | "TIMESTAMP" | "TIME" => {
            let precision = |kind: &Type| kind.numbers().map_or(0, |[precision, _]| precision);
            precision(&to) >= precision(&from)
        }
        // More values at the end leave the numbers of those before them.
        "ENUM" | "SET" => to.arguments == from.arguments || to.arguments.starts_with(&format!("{},", from.arguments)),
        _ => from.arguments == to.arguments,
    }
}

/// A column's type as text: `decimal(30,8) unsigned`, `VARCHAR ( 5 ) NOT NULL`.
struct Type {
    /// In capitals, synonyms resolved.
    name: String,
    /// What stands in the parentheses, without spaces outside of quotes.
    arguments: String,
    /// The words after it in capitals, quoted text left out.
    rest: Vec<String>,
}

impl Type {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let name = match text.get(..end)?.to_ascii_uppercase().as_str() {
            "" => return None,
            "INTEGER" => "INT".to_owned(),
            "DEC" | "NUMERIC" | "FIXED" => "DECIMAL".to_owned(),
            "REAL" => "DOUBLE".to_owned(),
            other => other.to_owned(),
        };
        let text = text.get(end..)?.trim_start();
        let (arguments, rest) = if text.starts_with('(') { parenthesised(text)? } else { (String::new(), text) };
        let mut words = String::new();
        let mut quoted = None;
        for c in rest.chars() {
            match quoted {
                Some(quote) if c == quote => quoted = None,
                Some(_) => {}
                None if matches!(c, '\'' | '"' | '`') => quoted = Some(c),
                None => words.push(if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_uppercase() } else { ' ' }),
            }
        }
        Some(Self { name, arguments, rest: words.split_whitespace().map(str::to_owned).collect() })
    }

    fn unsigned(&self) -> bool {
        self.rest.first().is_some_and(|word| word == "UNSIGNED")
    }

    /// Up to two numbers; what is left out counts as the server counts it for DECIMAL, and as 0 otherwise.
    fn numbers(&self) -> Option<[u64; 2]> {
        if self.arguments.is_empty() {
            return (self.name == "DECIMAL").then_some([10, 0]);
        }
        let mut numbers = self.arguments.split(',').map(|number| number.parse().ok());
        let first = numbers.next()??;
        let second = numbers.next().unwrap_or(Some(0))?;
        Some([first, second])
    }
}

/// What stands in the parentheses that `text` begins with, and what follows them.
fn parenthesised(text: &str) -> Option<(String, &str)> {
    let mut inside = String::new();
    let mut quoted = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\'' => quoted = !quoted,
            ')' if !quoted => return Some((inside, text.get(at + 1..)?)),
            _ if c.is_whitespace() && !quoted => continue,
            _ => {}
        }
        inside.push(c);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::inspect::Fallback;

    #[test]
    fn only_a_type_that_holds_every_value_keeps_them() {
        for (from, to, kept) in [
            ("int(11)", "INT NOT NULL", true),
            ("int(11)", "INTEGER ( 5 ) DEFAULT 0 COMMENT 'CHARACTER SET latin1'", true),
            ("int(11)", "BIGINT", true),
            ("int(11)", "SMALLINT", false),
            ("int(11)", "INT UNSIGNED", false),
            ("int(10) unsigned", "BIGINT UNSIGNED", true),
            ("int(11)", "INT GENERATED ALWAYS AS (1)", false),
            ("int(11)", "VARCHAR ( 20 )", false),
            ("decimal(30,8)", "DECIMAL ( 30 , 8 )", true),
            ("decimal(30,8)", "NUMERIC(32,10)", true),
            ("decimal(30,8)", "DECIMAL(32,9)", true),
            ("decimal(30,8)", "DECIMAL(30,9)", false),
            ("decimal(30,8)", "DECIMAL(30,2)", false),
            ("decimal(10,0)", "DECIMAL", true),
            ("decimal(30,8)", "DOUBLE", false),
            ("varchar(20)", "VARCHAR(20) NOT NULL", true),
            ("varchar(20)", "VARCHAR(19)", false),
            ("varchar(20)", "VARCHAR(40) CHARACTER SET latin1", false),
            ("varchar(20)", "TEXT", false),
            ("text", "MEDIUMTEXT", true),
            ("text", "TINYTEXT", false),
            ("text", "TEXT(10)", false),
            ("datetime(3)", "DATETIME", false),
            ("datetime(3)", "DATETIME(6)", true),
            ("enum('a','b c')", "ENUM ( 'a' , 'b c' , 'd' )", true),
            ("enum('a','b')", "ENUM('b','a')", false),
            ("double", "DOUBLE", true),
            ("float", "DOUBLE", false),
            ("date", "DATETIME", false),
            ("json", "", false),
        ] {
            let charset = ["varchar", "text", "enum"].iter().any(|text| from.starts_with(text)).then(|| "utf8mb4".to_owned());
            let column = Column {
                name: "c".into(),
                data_type: String::new(),
                column_type: from.into(),
                charset,
                collation: None,
                content: Content::Given,
                default: Fallback::None,
            };
            assert_eq!(keeps(&column, Some("utf8mb4"), to), kept, "{from} to {to}");
            assert!(column.charset.is_none() || !keeps(&column, Some("latin1"), to), "{from} to {to} in another character set");
        }
    }
}
