//! Sequences: how each is made, and where it has come to.
//!
//! A sequence is no part of a snapshot: its values are given out whatever becomes of the transaction that asked. So what is kept is where
//! it stood some time after the snapshot, and what takes a sequence's place always goes on behind everything that either has given out.

use serde::{Deserialize, Serialize};

use super::endpoint::Session;
use super::error::{Error, Result};
use super::ident::{qualified, quote};
use super::inspect;

/// Values left free, in steps, where more may be given out before the rename, as far as the sequence has room for them.
const HEADROOM: i64 = 1000;

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

    /// So much further that what is given out meanwhile does not collide. Where there is not plenty of room, there is no such margin.
    fn with_headroom(&self) -> Self {
        let step = if self.increment == 0 { 1 } else { self.increment };
        let ahead = |steps: i64| steps.checked_mul(step).and_then(|way| self.next.checked_add(way));
        let has_plenty = ahead(HEADROOM * HEADROOM).is_some_and(|far| (self.minimum..=self.maximum).contains(&far));
        let further = ahead(HEADROOM).unwrap_or(self.next);
        Self { next: if has_plenty { further } else { self.next }, ..self.clone() }
    }

    /// Whether it has given out all that `other` has.
    fn is_as_far_as(&self, other: &Self) -> bool {
        let further = if self.increment < 0 { self.next <= other.next } else { self.next >= other.next };
        self.cycles > other.cycles || (self.cycles == other.cycles && further)
    }
}

/// The sequences of a schema with where they have come to, by name.
pub(super) async fn read(session: &mut Session, schema: &str) -> Result<Vec<Sequence>> {
    let mut found = Vec::new();
    for name in inspect::list(session, schema).await?.sequences {
        found.push(Sequence {
            definition: definition(session, schema, &name).await?,
            reached: reached(session, schema, &name).await?,
            name,
        });
    }
    Ok(found)
}

async fn definition(session: &mut Session, schema: &str, name: &str) -> Result<String> {
    let doing = format!("read the definition of sequence {name}");
    match session.row(&doing, &format!("SHOW CREATE SEQUENCE {}", qualified(schema, name))).await? {
        Some(row) => row.string(1),
        None => Err(Error::Unreadable { doing, reason: "no row".to_owned() }),
    }
}

async fn reached(session: &mut Session, schema: &str, name: &str) -> Result<Reached> {
    let doing = format!("read where sequence {name} has come to");
    let sql =
        format!("SELECT next_not_cached_value, cycle_count, minimum_value, maximum_value, increment FROM {}", qualified(schema, name));
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

/// Whether a schema has these sequences and no others, each as far as it is to be.
pub(super) async fn compare(session: &mut Session, schema: &str, expected: &[Sequence]) -> Result<()> {
    let mismatch = |name: &str, reason: &str| {
        let (schema, table) = (schema.to_owned(), format!("sequence {name}"));
        Err(Error::Mismatch { schema, table, reason: reason.to_owned() })
    };
    let found = read(session, schema).await?;
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

/// How far ahead of what stands in `from` the sequences of the other schema are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    /// Values are still given out in `from`.
    WithHeadroom,
    /// None are any more.
    Exactly,
}

/// Takes the sequences of `to` as far as those of the same names in `from`, so that no value is given out twice.
pub(super) async fn advance(session: &mut Session, from: &str, to: &str, ahead: Ahead) -> Result<()> {
    let (sources, twins) = (inspect::list(session, from).await?.sequences, inspect::list(session, to).await?.sequences);
    for name in sources.iter().filter(|name| twins.contains(name)) {
        let (given, mut twin) = (reached(session, from, name).await?, reached(session, to, name).await?);
        let given = if ahead == Ahead::WithHeadroom { given.with_headroom() } else { given };
        // One that counts the other way has nothing in common with it.
        if (given.increment < 0) != (twin.increment < 0) || twin.is_as_far_as(&given) {
            continue;
        }
        // Within its own bounds.
        (twin.next, twin.cycles) = (given.next, given.cycles);
        session.run(&format!("set sequence {name}"), &twin.statement(&qualified(to, name))).await?;
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

    #[test]
    fn headroom_is_left_only_where_there_is_plenty() {
        assert_eq!(at(5, 1, 0).with_headroom().next, 1005);
        assert_eq!(at(5, -1, 0).with_headroom().next, 5);
        assert_eq!(at(9_500_000, 1, 0).with_headroom().next, 9_500_000);
    }
}
