//! Tables that can't go from one schema to another in the one step of a cut-over: the server moves no table with triggers.
//!
//! Such a table of the shadow comes into the live schema beforehand, under a passing name, and gets its triggers there: with the rename it
//! has both at once, and no row is written that its triggers miss. Such a live table is renamed within its schema and goes aside once its
//! triggers are dropped. Names of foreign keys and triggers are unique in a schema, so those that meet their like have passing names too.
//!
//! What passes is noted in the shadow before anything does, so whoever comes after a crash can end it or take it back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::beside::{self, Note, Set};
use super::endpoint::Session;
use super::error::Result;
use super::ident::{literal, qualified, quote};
use super::inspect::{self, Table};
use super::stored::{PASSING, StoredKind, StoredObject};
use super::unblocked::unblocked;
use super::{definition, recreate};

/// How long a table of the shadow may be in use: nobody has business there but the server's own purge and statistics threads, which let go soon.
const BRIEFLY: Duration = Duration::from_secs(10);

/// What a cut-over has under passing names, and whose cut-over it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Passing {
    /// The operation of the marker that becomes live.
    pub operation: String,
    pub aside: String,
    /// Tables of the shadow that have triggers.
    arriving: Vec<Passage>,
    /// Live tables that have some.
    leaving: Vec<Passage>,
    /// Live views in whose place a table comes.
    views: Vec<Passage>,
    keys: Vec<ForeignKey>,
}

/// A name, and the passing one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Passage {
    name: String,
    passing: String,
}

/// A foreign key of a table of the shadow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ForeignKey {
    table: String,
    name: String,
    passing: String,
    /// `FOREIGN KEY (…) REFERENCES … ON DELETE …`.
    clause: String,
}

/// The name of the passing trigger that stands for the trigger of this number, from 0, among those of the shadow.
pub(super) fn trigger(number: usize) -> String {
    format!("{PASSING}trigger_{number}")
}

/// What has to pass where `live` gives way to `replacement`, whose stored objects are `wanted`; `current` are the live ones.
pub(super) async fn plan(
    session: &mut Session,
    (database, live, current): (&str, &[Table], &[StoredObject]),
    (shadow, replacement, wanted): (&str, &[Table], &[StoredObject]),
    (operation, aside): (&str, &str),
) -> Result<Passing> {
    let passages = |tables: &mut dyn Iterator<Item = &String>, what: &str| -> Vec<Passage> {
        tables.enumerate().map(|(number, name)| Passage { name: name.clone(), passing: format!("{PASSING}{what}_{number}") }).collect()
    };
    let has_triggers =
        |objects: &[StoredObject], table: &Table| objects.iter().any(|object| object.on.as_ref().is_some_and(|on| on.table == table.name));
    let arriving = passages(&mut replacement.iter().filter(|table| has_triggers(wanted, table)).map(|table| &table.name), "new");
    let leaving = passages(&mut live.iter().filter(|table| has_triggers(current, table)).map(|table| &table.name), "old");
    let comes = |object: &&StoredObject| object.kind == StoredKind::View && replacement.iter().any(|table| table.name == object.name);
    let views = passages(&mut current.iter().filter(comes).map(|object| &object.name), "view");

    let staying = foreign_keys(session, database).await?;
    let is_in_the_way = |name: &str| staying.iter().any(|(table, other)| other == name && leaving.iter().any(|old| old.name == *table));
    let mut keys = Vec::new();
    for (table, name) in foreign_keys(session, shadow).await? {
        let arrives = arriving.iter().any(|new| new.name == table);
        // The server renames those that it named itself together with their table.
        if name.starts_with(&format!("{table}_ibfk_")) || !(arrives || is_in_the_way(&name)) {
            continue;
        }
        let definition = definition::of(session, shadow, &table).await?;
        let Some(clause) = clause(&definition, &name) else { continue };
        keys.push(ForeignKey { passing: format!("{PASSING}key_{}", keys.len()), clause, table, name });
    }
    Ok(Passing { operation: operation.to_owned(), aside: aside.to_owned(), arriving, leaving, views, keys })
}

/// Table and name of every foreign key of a schema.
async fn foreign_keys(session: &mut Session, schema: &str) -> Result<Vec<(String, String)>> {
    let sql = format!(
        "SELECT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.TABLE_CONSTRAINTS \
         WHERE TABLE_SCHEMA = {} AND CONSTRAINT_TYPE = 'FOREIGN KEY' ORDER BY TABLE_NAME, CONSTRAINT_NAME",
        literal(schema)
    );
    session.rows("list the foreign keys", &sql).await?.iter().map(|row| Ok((row.string(0)?, row.string(1)?))).collect()
}

/// What follows a foreign key's name in a table's definition, where it has a line of its own.
fn clause(definition: &str, name: &str) -> Option<String> {
    let begin = format!("  CONSTRAINT {} FOREIGN KEY ", quote(name));
    let rest = definition.lines().find_map(|line| line.strip_prefix(&begin))?;
    Some(format!("FOREIGN KEY {}", rest.strip_suffix(',').unwrap_or(rest)))
}

impl Passing {
    /// Brings tables with triggers into the live schema. Nothing that anybody uses is touched.
    pub async fn arrive(&self, session: &mut Session, database: &str, shadow: &str, wanted: &[StoredObject]) -> Result<()> {
        beside::keep(session, shadow, Note::Passing, self).await?;
        for key in &self.keys {
            key.rename(session, (shadow, &key.table), &key.name, &key.passing, BRIEFLY).await?;
        }
        for Passage { name, passing } in &self.arriving {
            let sql = format!("RENAME TABLE {} TO {}", qualified(shadow, name), qualified(database, passing));
            session.run(&format!("bring table {name} into the live schema"), &sql).await?;
        }
        session.run("enter the live schema", &format!("USE {}", quote(database))).await?;
        for (number, object) in wanted.iter().filter(|object| object.kind == StoredKind::Trigger).enumerate() {
            let Some(on) = &object.on else { continue };
            if let Some(table) = self.arriving.iter().find(|table| table.name == on.table) {
                recreate::passing_trigger(session, object, &trigger(number), &table.passing).await?;
            }
        }
        Ok(())
    }

    /// Takes back what [`arrive`](Self::arrive) did, or began to do.
    pub async fn withdraw(&self, session: &mut Session, database: &str, shadow: &str) -> Result<()> {
        for Passage { name, passing } in &self.arriving {
            if inspect::has_table(session, database, passing).await? {
                drop_triggers(session, database, passing).await?;
                let sql = format!("RENAME TABLE {} TO {}", qualified(database, passing), qualified(shadow, name));
                session.run(&format!("take table {name} back into the shadow"), &sql).await?;
            }
        }
        for key in &self.keys {
            key.restore(session, shadow, BRIEFLY).await?;
        }
        beside::forget(session, shadow, Note::Passing).await
    }

    /// The moves of the one rename.
    pub fn moves(&self, database: &str, live: &Set, shadow: &str, replacement: &Set) -> Vec<String> {
        let passing =
            |passages: &[Passage], name: &str| passages.iter().find(|known| known.name == name).map(|known| known.passing.clone());
        let pair = |from: String, to: String| format!("{from} TO {to}");
        let mut moves = Vec::new();
        for Passage { name, passing } in &self.views {
            moves.push(pair(qualified(database, name), qualified(database, passing)));
        }
        for name in &live.sequences {
            moves.push(pair(qualified(database, name), qualified(&self.aside, name)));
        }
        for Table { name, .. } in &live.tables {
            let to = passing(&self.leaving, name).map_or_else(|| qualified(&self.aside, name), |passing| qualified(database, &passing));
            moves.push(pair(qualified(database, name), to));
        }
        for name in &replacement.sequences {
            moves.push(pair(qualified(shadow, name), qualified(database, name)));
        }
        for Table { name, .. } in &replacement.tables {
            moves.push(pair(self.place(database, shadow, name), qualified(database, name)));
        }
        moves
    }

    /// Where a table of the shadow is before the rename.
    pub fn place(&self, database: &str, shadow: &str, name: &str) -> String {
        match self.arriving.iter().find(|known| known.name == name) {
            Some(known) => qualified(database, &known.passing),
            None => qualified(shadow, name),
        }
    }

    /// After the rename, with the session in the live schema: everything gets its own name, and what was replaced goes aside.
    pub async fn settle(&self, session: &mut Session, database: &str, wanted: &[StoredObject], patience: Duration) -> Result<()> {
        for Passage { name: _, passing } in &self.leaving {
            drop_triggers(session, database, passing).await?;
        }
        recreate::triggers(session, database, wanted, trigger, patience).await?;
        for Passage { name, passing } in &self.leaving {
            if inspect::has_table(session, database, passing).await? {
                let sql = format!("RENAME TABLE {} TO {}", quote(passing), qualified(&self.aside, name));
                unblocked(session, &format!("move table {name} aside"), &sql, patience).await?;
            }
        }
        for Passage { name, passing } in &self.views {
            session.run(&format!("drop view {name}"), &format!("DROP VIEW IF EXISTS {}", quote(passing))).await?;
        }
        for key in &self.keys {
            key.restore(session, database, patience).await?;
        }
        Ok(())
    }
}

impl ForeignKey {
    /// Gives it its own name again where it does not have it.
    async fn restore(&self, session: &mut Session, schema: &str, patience: Duration) -> Result<()> {
        let there = foreign_keys(session, schema).await?;
        if there.contains(&(self.table.clone(), self.passing.clone())) {
            self.rename(session, (schema, &self.table), &self.passing, &self.name, patience).await?;
        }
        Ok(())
    }

    /// Only the catalogue changes: with `foreign_key_checks=0` no row is looked at.
    async fn rename(&self, session: &mut Session, (schema, table): (&str, &str), from: &str, to: &str, patience: Duration) -> Result<()> {
        // Unqualified, the table that it refers to is one of the schema that the session is in.
        session.run("enter the schema", &format!("USE {}", quote(schema))).await?;
        let sql = format!(
            "ALTER TABLE {} DROP FOREIGN KEY {}, ADD CONSTRAINT {} {}, ALGORITHM=INPLACE, LOCK=NONE",
            quote(table),
            quote(from),
            quote(to),
            self.clause
        );
        unblocked(session, &format!("rename foreign key {} of table {table}", self.name), &sql, patience).await
    }
}

async fn drop_triggers(session: &mut Session, schema: &str, table: &str) -> Result<()> {
    let sql = format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {} AND EVENT_OBJECT_TABLE = {}",
        literal(schema),
        literal(table)
    );
    for row in session.rows("list the triggers of a passing table", &sql).await? {
        session.run("drop a trigger of a passing table", &format!("DROP TRIGGER IF EXISTS {}", qualified(schema, &row.string(0)?))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::clause;

    #[test]
    fn a_foreign_key_is_found_in_its_tables_definition() {
        let definition = "CREATE TABLE `o` (\n  `p` int(11) COMMENT 'CONSTRAINT `x` FOREIGN KEY',\n  KEY `x` (`p`),\n  \
            CONSTRAINT `x` FOREIGN KEY (`p`) REFERENCES `p` (`id`) ON DELETE CASCADE,\n  CONSTRAINT `y``z` FOREIGN KEY (`q`) REFERENCES `p` (`id`)\n) ENGINE=InnoDB";
        assert_eq!(clause(definition, "x").as_deref(), Some("FOREIGN KEY (`p`) REFERENCES `p` (`id`) ON DELETE CASCADE"));
        assert_eq!(clause(definition, "y`z").as_deref(), Some("FOREIGN KEY (`q`) REFERENCES `p` (`id`)"));
        assert_eq!(clause(definition, "none"), None);
    }
}
