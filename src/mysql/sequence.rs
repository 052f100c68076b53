//! Sequences: how each is made, and where it has come to.
//!
//! A sequence is no part of a snapshot: its values are given out whatever becomes of the transaction that asked. So what is kept is where
//! it stood some time after the snapshot, and what takes a sequence's place always goes on behind everything that either has given out.

use serde::{Deserialize, Serialize};

use super::endpoint::Session;
use super::error::{Error, Result};
use super::ident::{qualified, quote};

/// A sequence of a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    pub name: String,
    /// `SHOW CREATE SEQUENCE`.
    pub definition: String,
    #[serde(flatten)]
    pub reached: Reached,
}

/// Where a sequence has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The next value that no session holds in its cache; beyond the sequence's bounds where none is left.
    pub next: i64,
    /// How often it began anew.
    pub cycles: u64,
    pub minimum: i64,
    pub maximum: i64,
    /// Below zero for one that counts down.
    pub increment: i64,
}

impl Reached {
    /// The statement that takes the sequence at `place` as far, unless it is further already.
    pub(super) fn statement(&self, place: &str) -> String {
        let Self { next, cycles, minimum, maximum, .. } = self;
        // Where none is left, the last one counts as given out.
        let (value, used) = if next > maximum {
            (maximum, 1)
        } else if next < minimum {
            (minimum, 1)
        } else {
            (next, 0)
        };
        format!("DO SETVAL({place}, {value}, {used}, {cycles})")
    }

    /// Whether it has given out all that `other` has.
    pub(super) fn is_as_far_as(&self, other: &Self) -> bool {
        let further = if self.increment < 0 { self.next <= other.next } else { self.next >= other.next };
        self.cycles > other.cycles || (self.cycles == other.cycles && further)
    }
}

/// Sequences of a schema with where they have come to.
pub(super) async fn read(session: &mut Session, schema: &str, names: &[String]) -> Result<Vec<Sequence>> {
    let mut found = Vec::new();
    for name in names {
        let place = qualified(schema, name);
        let (definition, reached) = (definition(session, name, &place).await?, reached(session, &place).await?);
        found.push(Sequence { name: name.clone(), definition, reached });
    }
    Ok(found)
}

/// The first one that is not defined as it was.
pub(super) fn changed(before: &[Sequence], after: &[Sequence]) -> Option<String> {
    let other = |these: &[Sequence], those: &[Sequence]| {
        let is_there = |this: &&Sequence| those.iter().any(|that| (&that.name, &that.definition) == (&this.name, &this.definition));
        these.iter().find(|this| !is_there(this)).map(|this| this.name.clone())
    };
    other(before, after).or_else(|| other(after, before))
}

async fn definition(session: &mut Session, name: &str, place: &str) -> Result<String> {
    let doing = format!("read the definition of sequence {name}");
    match session.row(&doing, &format!("SHOW CREATE SEQUENCE {place}")).await? {
        Some(row) => row.string(1),
        None => Err(Error::Unreadable { doing, reason: "no row".to_owned() }),
    }
}

/// Where the one at `place`, a qualified name, has come to.
pub(super) async fn reached(session: &mut Session, place: &str) -> Result<Reached> {
    let doing = format!("read where sequence {place} has come to");
    let sql = format!("SELECT next_not_cached_value, cycle_count, minimum_value, maximum_value, increment FROM {place}");
    let Some(row) = session.row(&doing, &sql).await? else {
        return Err(Error::Unreadable { doing, reason: "no row".to_owned() });
    };
    let number = |index| -> Result<i64> {
        let text = row.string(index)?;
        text.parse().map_err(|_| Error::Unreadable { doing: doing.clone(), reason: format!("{text} is no number") })
    };
    Ok(Reached { next: number(0)?, cycles: row.count(1)?, minimum: number(2)?, maximum: number(3)?, increment: number(4)? })
}

/// What makes them again, a statement in each line, for a session in the schema.
pub(super) fn script(sequences: &[Sequence]) -> String {
    let lines = |sequence: &Sequence| format!("{};\n{};\n", sequence.definition, sequence.reached.statement(&quote(&sequence.name)));
    sequences.iter().map(lines).collect()
}

/// Makes them in the schema that the session is in.
pub(super) async fn create(session: &mut Session, sequences: &[Sequence]) -> Result<()> {
    for Sequence { name, definition, reached } in sequences {
        session.run(&format!("create sequence {name}"), definition).await?;
        session.run(&format!("set sequence {name}"), &reached.statement(&quote(name))).await?;
    }
    Ok(())
}

/// Whether a schema, which has those of these names, has the sequences that are expected and no others, each as far as it is to be.
pub(super) async fn compare(session: &mut Session, schema: &str, names: &[String], expected: &[Sequence]) -> Result<()> {
    let mismatch = |name: &str, reason: &str| {
        let (schema, table) = (schema.to_owned(), format!("sequence {name}"));
        Err(Error::Mismatch { schema, table, reason: reason.to_owned() })
    };
    let found = read(session, schema, names).await?;
    for sequence in &found {
        if expected.iter().all(|known| known.name != sequence.name) {
            return mismatch(&sequence.name, "the backup has no such sequence");
        }
    }
    for wanted in expected {
        match found.iter().find(|sequence| sequence.name == wanted.name) {
            None => return mismatch(&wanted.name, "it was not created"),
            Some(there) if there.definition != wanted.definition => {
                return mismatch(&wanted.name, &format!("its definition became {}", there.definition));
            }
            Some(there) if !there.reached.is_as_far_as(&wanted.reached) => {
                return mismatch(&wanted.name, &format!("its next value is {}, not {}", there.reached.next, wanted.reached.next));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Reached;

    fn at(next: i64, increment: i64, cycles: u64) -> Reached {
        Reached { next, cycles, minimum: -100, maximum: 10_000_000, increment }
    }

    #[test]
    fn a_sequence_is_set_within_its_bounds() {
        for (next, expected) in [
            (5, "DO SETVAL(`s`, 5, 0, 2)"),
            (10_000_000, "DO SETVAL(`s`, 10000000, 0, 2)"),
            (10_000_001, "DO SETVAL(`s`, 10000000, 1, 2)"),
            (-101, "DO SETVAL(`s`, -100, 1, 2)"),
        ] {
            assert_eq!(at(next, 1, 2).statement("`s`"), expected);
        }
    }

    #[test]
    fn further_is_the_way_it_counts() {
        assert!(at(6, 1, 0).is_as_far_as(&at(5, 1, 0)));
        assert!(!at(6, -1, 0).is_as_far_as(&at(5, -1, 0)));
        assert!(at(1, 1, 1).is_as_far_as(&at(5, 1, 0)), "it began anew since");
    }
}
