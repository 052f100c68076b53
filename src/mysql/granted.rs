//! Who may do what on a schema, its tables and columns: listed with a backup for whoever builds the server anew. Nothing of it is given again by
//! a restore, which changes tables and no accounts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::endpoint::Session;
use super::error::Result;
use super::grants;
use super::ident::{literal, qualified, quote};

/// What one account has on one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// As GRANT takes it: `'user'@'host'`.
    pub account: String,
    /// As GRANT takes it: a schema, perhaps as a pattern, `` `shop`.* ``, or a table, `` `shop`.`orders` ``.
    pub on: String,
    /// In order; those on single columns with their names, ``SELECT (`id`)``.
    pub privileges: Vec<String>,
    /// WITH GRANT OPTION.
    pub grantable: bool,
}

/// All that the session's account may see: of others only with SELECT on the schema `mysql`. What is given on all schemas, on routines, or by
/// a role is not listed.
pub(super) async fn on(session: &mut Session, schema: &str) -> Result<Vec<Granted>> {
    let mut found: BTreeMap<(String, String, bool), Vec<String>> = BTreeMap::new();
    let mut add = |account: String, on: String, grantable: String, privilege: String| {
        found.entry((account, on, grantable == "YES")).or_default().push(privilege);
    };
    let doing = "list the accounts' privileges";
    let sql = "SELECT GRANTEE, TABLE_SCHEMA, IS_GRANTABLE, PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES";
    for row in session.rows(doing, sql).await? {
        let pattern = row.string(1)?;
        if grants::matches(&pattern, schema) {
            add(row.string(0)?, format!("{}.*", quote(&pattern)), row.string(2)?, row.string(3)?);
        }
    }
    let of_schema = literal(schema);
    let sql = format!(
        "SELECT GRANTEE, TABLE_NAME, IS_GRANTABLE, PRIVILEGE_TYPE FROM information_schema.TABLE_PRIVILEGES WHERE TABLE_SCHEMA = {of_schema}"
    );
    for row in session.rows(doing, &sql).await? {
        add(row.string(0)?, qualified(schema, &row.string(1)?), row.string(2)?, row.string(3)?);
    }
    let sql = format!(
        "SELECT GRANTEE, TABLE_NAME, IS_GRANTABLE, PRIVILEGE_TYPE, COLUMN_NAME FROM information_schema.COLUMN_PRIVILEGES \
         WHERE TABLE_SCHEMA = {of_schema}"
    );
    for row in session.rows(doing, &sql).await? {
        let privilege = format!("{} ({})", row.string(3)?, quote(&row.string(4)?));
        add(row.string(0)?, qualified(schema, &row.string(1)?), row.string(2)?, privilege);
    }
    let granted = |((account, on, grantable), mut privileges): (_, Vec<String>)| {
        privileges.sort_unstable();
        Granted { account, on, privileges, grantable }
    };
    Ok(found.into_iter().map(granted).collect())
}
