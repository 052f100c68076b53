//! What counts goes on behind everything that either side of a cut-over has given out: `AUTO_INCREMENT` and sequences.

use super::beside::Set;
use super::endpoint::Session;
use super::error::Result;
use super::ident::qualified;
use super::inspect::Table;
use super::sequence::{self, Reached};

/// Numbers left free above the live counter, in steps. Rows are still inserted between reading the counter and the rename, and their
/// numbers must not be given out again. Narrow columns, and sequences with little room, get none: they could run out.
const HEADROOM: u32 = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Headroom {
    /// `from` still counts.
    Leave,
    /// It does not any more.
    None,
}

/// Lets what counts in `to` begin where its like in `from` has come to, so that no number is given out twice; `at` says where a table or
/// sequence of `to` is.
pub(super) async fn raise(
    session: &mut Session,
    (schema, from): (&str, &Set),
    to: &Set,
    at: impl Fn(&str) -> String,
    headroom: Headroom,
) -> Result<()> {
    for table in &from.tables {
        let Some(twin) = to.tables.iter().find(|twin| twin.name == table.name) else { continue };
        let (Some(used), Some(next)) = (table.auto_increment, twin.auto_increment) else { continue };
        let raised = match headroom {
            Headroom::Leave if counts_far(twin) => used.saturating_add(HEADROOM.into()),
            Headroom::Leave | Headroom::None => used,
        };
        if raised > next {
            let sql = format!("ALTER TABLE {} AUTO_INCREMENT = {raised}", at(&twin.name));
            session.run_long(&format!("raise the counter of table {}", twin.name), sql).await?;
        }
    }
    for name in from.sequences.iter().filter(|name| to.sequences.contains(name)) {
        let place = at(name);
        let (used, twin) = (sequence::reached(session, &qualified(schema, name)).await?, sequence::reached(session, &place).await?);
        if let Some(raised) = raised(&used, &twin, headroom) {
            session.run(&format!("set sequence {name}"), &raised.statement(&place)).await?;
        }
    }
    Ok(())
}

/// Whether the counting column has room for [`HEADROOM`] many times over.
fn counts_far(table: &Table) -> bool {
    let counter = table.columns.iter().find(|column| Some(&column.name) == table.counter.as_ref());
    counter.is_some_and(|column| matches!(column.data_type.as_str(), "int" | "bigint"))
}

/// How far `twin` has to be taken to go on behind `used`, within its own bounds; `None` where it is that far, or counts the other way.
fn raised(used: &Reached, twin: &Reached, headroom: Headroom) -> Option<Reached> {
    let step = if used.increment == 0 { 1 } else { used.increment };
    let ahead = |steps: u32| step.checked_mul(steps.into()).and_then(|way| used.next.checked_add(way));
    let has_plenty = ahead(HEADROOM * HEADROOM).is_some_and(|far| (used.minimum..=used.maximum).contains(&far));
    let further = ahead(HEADROOM).filter(|_| headroom == Headroom::Leave && has_plenty).unwrap_or(used.next);
    let wanted = Reached { next: further, cycles: used.cycles, ..twin.clone() };
    let same_way = (used.increment < 0) == (twin.increment < 0);
    (same_way && !twin.is_as_far_as(&wanted)).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::{Headroom, Reached, raised};

    fn at(next: i64, increment: i64) -> Reached {
        Reached { next, cycles: 0, minimum: -100, maximum: 10_000_000, increment }
    }

    #[test]
    fn a_sequence_is_taken_as_far_as_its_like_and_no_way_back() {
        let next = |used, twin, headroom| raised(&used, &twin, headroom).map(|raised| raised.next);
        for (used, twin, headroom, expected) in [
            (at(5, 1), at(1, 1), Headroom::None, Some(5)),
            (at(5, 1), at(1, 1), Headroom::Leave, Some(1005)),
            (at(5, 2), at(1, 2), Headroom::Leave, Some(2005)),
            (at(5, 1), at(9, 1), Headroom::None, None),
            (at(-5, -1), at(-1, -1), Headroom::None, Some(-5)),
            // There is little room: no margin.
            (at(-5, -1), at(-1, -1), Headroom::Leave, Some(-5)),
            (at(9_500_000, 1), at(1, 1), Headroom::Leave, Some(9_500_000)),
            // Nothing in common.
            (at(5, 1), at(-1, -1), Headroom::None, None),
        ] {
            let row = format!("{used:?} {twin:?}");
            assert_eq!(next(used, twin, headroom), expected, "{row}");
        }
    }
}
