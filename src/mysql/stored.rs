//! Stored objects: what runs by name inside a schema. Views, procedures, functions, packages, triggers and events.
//!
//! They are carried as the server shows them, with the settings under which they were made: a body means something else under another
//! `sql_mode`. They never move with the tables; [`super::recreate`] makes them anew in the schema that they belong to.

use std::fmt;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::endpoint::{SESSION, Session};
use super::error::{Error, Result};
use super::ident::{literal, qualified, quote};
use super::inspect::{Kind, Unsupported};

/// What the names of the engine's own passing objects begin with: they are nobody's to carry.
pub(super) const PASSING: &str = "_backout_passing_";
/// No body holds it.
const DELIMITER: &str = "$$backout$$";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    pub kind: StoredKind,
    pub name: String,
    /// Where a trigger belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<On>,
    /// `user@host`, whose privileges it has unless it says INVOKER.
    pub definer: String,
    /// Its `CREATE` statement, which names no schema of its own; of a trigger what follows `FOR EACH ROW`.
    pub text: String,
    /// What the session has to be like when it is made; a view's does not matter and is empty.
    pub sql_mode: String,
    pub charset: String,
    pub collation: String,
    /// An event's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// In the order in which they are made: the later may need the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StoredKind {
    Function,
    Procedure,
    Package,
    PackageBody,
    View,
    Trigger,
    Event,
}

/// When a trigger fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct On {
    pub table: String,
    /// `AFTER INSERT`, …
    pub moment: String,
}

impl StoredKind {
    /// As `DROP` and `SHOW CREATE` take it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Function => "FUNCTION",
            Self::Procedure => "PROCEDURE",
            Self::Package => "PACKAGE",
            Self::PackageBody => "PACKAGE BODY",
            Self::View => "VIEW",
            Self::Trigger => "TRIGGER",
            Self::Event => "EVENT",
        }
    }

    /// Where `SHOW CREATE` shows sql_mode, text, character set and collation; the one of a time zone is fixed.
    fn places(self) -> (Option<usize>, usize, usize, usize) {
        match self {
            Self::View => (None, 1, 2, 3),
            Self::Event => (Some(1), 3, 4, 5),
            Self::Function | Self::Procedure | Self::Package | Self::PackageBody | Self::Trigger => (Some(1), 2, 3, 4),
        }
    }
}

impl fmt::Display for StoredObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        name(f, self.kind, &self.name, self.on.as_ref())
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        name(f, self.kind, &self.name, self.on.as_ref())
    }
}

fn name(f: &mut fmt::Formatter<'_>, kind: StoredKind, name: &str, on: Option<&On>) -> fmt::Result {
    write!(f, "{} {name}", kind.word().to_lowercase())?;
    on.map_or(Ok(()), |on| write!(f, " on {}", on.table))
}

impl StoredObject {
    /// What makes it, replacing one of the same name.
    pub(super) fn create(&self) -> String {
        match &self.on {
            Some(on) => self.create_trigger(&self.name, &on.table),
            None => format!("CREATE OR REPLACE {}", self.text.strip_prefix("CREATE ").unwrap_or(&self.text)),
        }
    }

    /// What makes a trigger under another name on another table.
    pub(super) fn create_trigger(&self, name: &str, table: &str) -> String {
        let (user, host) = self.definer.rsplit_once('@').unwrap_or((&self.definer, "%"));
        let moment = self.on.as_ref().map_or("", |on| on.moment.as_str());
        let (name, table) = (quote(name), quote(table));
        format!("CREATE OR REPLACE DEFINER={}@{} TRIGGER {name} {moment} ON {table} FOR EACH ROW {}", quote(user), quote(host), self.text)
    }

    /// The same, but an event that does not fire: the server composes what comes before its body.
    pub(super) fn create_idle(&self) -> String {
        let create = self.create();
        if self.kind == StoredKind::Event { create.replacen("PRESERVE ENABLE", "PRESERVE DISABLE", 1) } else { create }
    }

    /// What the session has to be told before.
    pub(super) fn settings(&self) -> String {
        let zone = self.time_zone.as_ref().map(|zone| format!(", time_zone={}", literal(zone))).unwrap_or_default();
        format!(
            "SET sql_mode={}, character_set_client={}, collation_connection={}{zone}",
            literal(&self.sql_mode),
            literal(&self.charset),
            literal(&self.collation)
        )
    }

    /// The engine sends UTF-8; told another character set, the server would read something else.
    fn is_sendable(&self) -> bool {
        self.charset.starts_with("utf8") || self.text.is_ascii()
    }
}

impl Listed {
    /// Whether rows that are inserted into the table run it.
    pub fn fires_on_insert(&self, table: &str) -> bool {
        self.on.as_ref().is_some_and(|on| on.table == table && on.moment.ends_with("INSERT"))
    }
}

/// An object by name, as the catalogue lists it.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub kind: StoredKind,
    pub name: String,
    pub definer: String,
    on: Option<On>,
    /// A trigger's, with `?` for characters beyond the basic plane.
    body: String,
}

/// All stored objects of a schema, in the order in which they can be made; triggers in the one in which they fire.
pub(super) async fn list(session: &mut Session, schema: &str) -> Result<Vec<Listed>> {
    let schema = literal(schema);
    let mut found = Vec::new();
    let sql = format!("SELECT ROUTINE_NAME, DEFINER, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {schema}");
    for row in session.rows("list the routines", &sql).await? {
        let kind = match row.string(2)?.as_str() {
            "FUNCTION" => StoredKind::Function,
            "PROCEDURE" => StoredKind::Procedure,
            "PACKAGE" => StoredKind::Package,
            _ => StoredKind::PackageBody,
        };
        found.push(Listed { kind, name: row.string(0)?, definer: row.string(1)?, on: None, body: String::new() });
    }
    for (kind, sql) in [
        (StoredKind::View, format!("SELECT TABLE_NAME, DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {schema}")),
        (StoredKind::Event, format!("SELECT EVENT_NAME, DEFINER FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {schema}")),
    ] {
        for row in session.rows("list views and events", &sql).await? {
            found.push(Listed { kind, name: row.string(0)?, definer: row.string(1)?, on: None, body: String::new() });
        }
    }
    found.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    // By TRIGGER_SCHEMA, which says the same, the server would open every table of every schema.
    let sql = format!(
        "SELECT TRIGGER_NAME, DEFINER, EVENT_OBJECT_TABLE, CONCAT(ACTION_TIMING, ' ', EVENT_MANIPULATION), ACTION_STATEMENT \
         FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {schema} \
         ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER"
    );
    let before = found.partition_point(|object| object.kind < StoredKind::Trigger);
    let mut triggers = Vec::new();
    for row in session.rows("list the triggers", &sql).await? {
        let on = Some(On { table: row.string(2)?, moment: row.string(3)? });
        triggers.push(Listed { kind: StoredKind::Trigger, name: row.string(0)?, definer: row.string(1)?, on, body: row.string(4)? });
    }
    found.splice(before..before, triggers);
    found.retain(|object| !object.name.starts_with(PASSING) && object.on.as_ref().is_none_or(|on| !on.table.starts_with(PASSING)));
    Ok(found)
}

/// All stored objects of the schema that the session is in, as [`list`] lists them, views after those that they name.
///
/// # Errors
/// [`Error::Unsupported`] for a text that can't be sent as it is; [`Error::Unreadable`] for one that the account may not see.
pub(super) async fn read(session: &mut Session, schema: &str) -> Result<Vec<StoredObject>> {
    let mut objects = Vec::new();
    for listed in list(session, schema).await? {
        objects.push(text(session, schema, listed).await?);
    }
    let unsendable = objects.iter().filter(|object| !object.is_sendable());
    let unsupported: Vec<Unsupported> =
        unsendable.map(|object| Unsupported { kind: Kind::CharacterSet, name: format!("{object} ({})", object.charset) }).collect();
    if !unsupported.is_empty() {
        return Err(Error::Unsupported { database: schema.to_owned(), objects: unsupported });
    }
    Ok(needed_first(objects))
}

/// The object with its text and settings.
pub(super) async fn text(session: &mut Session, schema: &str, listed: Listed) -> Result<StoredObject> {
    let Listed { kind, name, definer, on, body } = listed;
    let doing = format!("read {} {name}", kind.word().to_lowercase());
    let unreadable = |reason: &str| Error::Unreadable { doing: doing.clone(), reason: reason.to_owned() };
    let row = session.row(&doing, &format!("SHOW CREATE {} {}", kind.word(), qualified(schema, &name))).await?;
    let row = row.ok_or_else(|| unreadable("it vanished"))?;
    let (sql_mode, text, charset, collation) = kind.places();
    let text = row.text(text)?.ok_or_else(|| unreadable("the account may not see its text"))?;
    Ok(StoredObject {
        text: if kind == StoredKind::Trigger {
            end_like(&text, &body).ok_or_else(|| unreadable("its body is not at its end"))?
        } else {
            text
        },
        sql_mode: sql_mode.map(|place| row.string(place)).transpose()?.unwrap_or_default(),
        charset: row.string(charset)?,
        collation: row.string(collation)?,
        time_zone: (kind == StoredKind::Event).then(|| row.string(2)).transpose()?,
        kind,
        name,
        on,
        definer,
    })
}

/// The end of `text` that is `body`, of which some characters may have become `?`. What comes before it is as somebody typed it once, with
/// names, comments and blanks anywhere.
fn end_like(text: &str, body: &str) -> Option<String> {
    let before = text.chars().count().checked_sub(body.chars().count())?;
    let end: String = text.chars().skip(before).collect();
    end.chars().zip(body.chars()).all(|(exact, shown)| exact == shown || shown == '?').then_some(end)
}

/// Views behind the views that they name. Where names go in circles (a column may be called like a view) the order stays.
fn needed_first(objects: Vec<StoredObject>) -> Vec<StoredObject> {
    let (mut waiting, mut rest): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object.kind == StoredKind::View);
    let mut views = Vec::new();
    while !waiting.is_empty() {
        let needs = |view: &StoredObject, other: &StoredObject| view.name != other.name && view.text.contains(&quote(&other.name));
        let next = waiting.iter().position(|view| waiting.iter().all(|other| !needs(view, other))).unwrap_or(0);
        views.push(waiting.remove(next));
    }
    let before = rest.partition_point(|object| object.kind < StoredKind::View);
    rest.splice(before..before, views);
    rest
}

/// A script for the database's own client that makes all of them; empty if there are none.
pub(super) fn script(objects: &[StoredObject]) -> String {
    let mut script = String::new();
    for object in objects {
        let _ = write!(script, "{SESSION};\n{};\nDELIMITER {DELIMITER}\n{}{DELIMITER}\nDELIMITER ;\n", object.settings(), object.create());
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: StoredKind, name: &str, text: &str) -> StoredObject {
        StoredObject {
            kind,
            name: name.to_owned(),
            on: None,
            definer: "o'k`y@%".to_owned(),
            text: text.to_owned(),
            sql_mode: String::new(),
            charset: "utf8mb4".to_owned(),
            collation: "utf8mb4_general_ci".to_owned(),
            time_zone: None,
        }
    }

    #[test]
    fn a_triggers_body_is_found_behind_whatever_was_typed_before_it() {
        for (text, body, expected) in [
            ("CREATE TRIGGER a.b /* ON */ AFTER INSERT ON `t`\nFOR EACH ROW SET @a = '🎉'", "SET @a = '?'", Some("SET @a = '🎉'")),
            ("CREATE TRIGGER t BEFORE DELETE ON t FOR EACH ROW SET @a = 1", "SET @a = 1", Some("SET @a = 1")),
            ("CREATE TRIGGER t BEFORE DELETE ON t FOR EACH ROW SET @a = 1 ", "SET @a = 1", None),
            ("short", "longer than it", None),
        ] {
            assert_eq!(end_like(text, body).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn views_come_after_those_they_name() {
        let view = |name, text| object(StoredKind::View, name, text);
        let routine = object(StoredKind::Function, "f", "");
        let event = object(StoredKind::Event, "e", "");
        let ordered = needed_first(vec![
            routine,
            view("a", "CREATE VIEW `a` AS select from `b`"),
            view("b", "CREATE VIEW `b` AS select from `c`"),
            view("c", "CREATE VIEW `c` AS select 1 AS `c`"),
            event,
        ]);
        assert_eq!(ordered.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["f", "c", "b", "a", "e"]);
        let circle = needed_first(vec![view("x", "`y`"), view("y", "`x`")]);
        assert_eq!(circle.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn an_event_that_is_only_tried_does_not_fire() {
        let text =
            "CREATE DEFINER=`a`@`b` EVENT `e` ON SCHEDULE EVERY 1 HOUR ON COMPLETION NOT PRESERVE ENABLE DO SELECT 'PRESERVE ENABLE'";
        let idle = object(StoredKind::Event, "e", text).create_idle();
        assert!(
            idle.starts_with("CREATE OR REPLACE DEFINER=") && idle.contains("NOT PRESERVE DISABLE DO SELECT 'PRESERVE ENABLE'"),
            "{idle}"
        );
    }

    #[test]
    fn a_triggers_names_are_quoted() {
        let mut trigger = object(StoredKind::Trigger, "t", "SET @a = 1");
        trigger.on = Some(On { table: "o".to_owned(), moment: "AFTER INSERT".to_owned() });
        let expected = "CREATE OR REPLACE DEFINER=`o'k``y`@`%` TRIGGER `n``1` AFTER INSERT ON `t` FOR EACH ROW SET @a = 1";
        assert_eq!(trigger.create_trigger("n`1", "t"), expected);
    }
}
