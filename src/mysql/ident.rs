//! The one place that puts names and values into SQL text, and the one place that vouches for such text.
//!
//! Identifiers can't be bound as parameters, so every statement of the engine is text. Names go through [`quote`], values through
//! [`literal`]; both are exact under the `sql_mode` that [`super::endpoint`] gives every session (no `ANSI_QUOTES`, no
//! `NO_BACKSLASH_ESCAPES`).

use sqlx::AssertSqlSafe;

/// `name` as an identifier: in backticks, with the backticks inside doubled.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `schema`.`name`.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

/// A list of identifiers, comma-separated.
pub fn quote_all<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(",")
}

/// `value` as a string literal in the connection's character set.
pub fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// A schema name as `GRANT … ON` wants it: there, `_` and `%` are wildcards unless escaped.
pub fn grant_pattern(schema: &str) -> String {
    schema.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%")
}

/// Vouches that `sql` was built from this module's functions, from what the server itself printed, from a file whose digest was
/// checked, or from a migration that the user wants to be run.
pub(super) fn vouched(sql: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_cannot_leave_their_quotes() {
        assert_eq!(quote("a`b"), "`a``b`");
        assert_eq!(qualified("s", "t`; DROP"), "`s`.`t``; DROP`");
        assert_eq!(literal(r"it's \ 'x'"), r"'it''s \\ ''x'''");
        assert_eq!(grant_pattern("a_b%"), r"a\_b\%");
        assert_eq!(quote_all(["a", "b"]), "`a`,`b`");
    }
}
