//! Undo: a person asks for what a rollback replaced. The reverse swap, and the release that ran on those tables.

use super::{
    Decision, Verdict,
    input::{Seen, World},
    journal::Request,
    report::{self, Aim, Draft},
    rollback::{self, Change, Deploy},
    target::rest,
};
use crate::api::{
    names,
    operation::{Action, Kind, Operation, Risk},
    status::{Aside, AsideState},
};

/// What the `undo` annotation asks for, where it has not been acted on yet.
pub fn requested(world: &World) -> Option<Decision> {
    let token = world.undo.as_ref().map(|token| token.trim().to_owned())?;
    if world.status.last_handled_undo.as_ref() == Some(&token) {
        return None;
    }
    let newest = match newest(world) {
        Ok(newest) => newest,
        Err(decision) => return Some(decision),
    };
    match newest {
        Some(Aside { operation, from: None, .. }) if operation.to_string() == token => {
            let message = format!("{} asks to undo operation {token}, but no release ran on the tables that it replaced", names::UNDO);
            Some(Decision::Refuse { request: Request::Undo(token), message })
        }
        Some(aside) if aside.operation.to_string() == token => Some(plan(world, aside)),
        other => {
            let kept = other.map_or_else(
                || "no replaced tables are kept".to_owned(),
                |aside| format!("only operation {}, the last that replaced tables, can be undone, until {}", aside.operation, aside.until),
            );
            let message = format!("{} asks to undo operation {token}, but {kept}", names::UNDO);
            Some(Decision::Refuse { request: Request::Undo(token), message })
        }
    }
}

/// What an outdated undo was to bring back.
pub fn again(world: &World, operation: &Operation) -> Option<Decision> {
    world.status.asides.iter().find(|aside| Some(aside.operation) == operation.undoes).map(|aside| plan(world, aside))
}

/// The tables that the last swap replaced. Whether one that was begun and did not come to its end has happened, the live
/// database says.
fn newest(world: &World) -> Result<Option<&Aside>, Decision> {
    for aside in &world.status.asides {
        match (aside.state, &world.spec.database, &world.database) {
            (AsideState::Kept, _, _) => return Ok(Some(aside)),
            (AsideState::Expected, None, _) => {}
            (AsideState::Expected, Some(_), None) => return Err(Decision::LookAtDatabase),
            (AsideState::Expected, Some(_), Some(Seen::Unknown(unseen))) => return Err(rest(world, Verdict::unseen(unseen))),
            (AsideState::Expected, Some(_), Some(Seen::Known(database))) => {
                if database.swapped_by.as_deref() == Some(names::operation(&world.uid, aside.operation).as_str()) {
                    return Ok(Some(aside));
                }
            }
        }
    }
    Ok(None)
}

/// Plans the reverse swap.
fn plan(world: &World, aside: &Aside) -> Decision {
    let Some(database) = &world.spec.database else {
        return rest(world, Verdict::no_data_to_restore(&aside.schema, "spec.database names no database"));
    };
    let Some(entry) = aside.from.and_then(|from| world.entry(from)) else {
        return rest(world, Verdict::no_data_to_restore(&aside.schema, "status.history no longer has the release that ran on it"));
    };
    if !world.kept.contains_key(&entry.release) {
        return rest(world, Verdict::not_kept(&world.name, entry));
    }
    let scales = match rollback::scales(world) {
        Ok(scales) => scales,
        Err(decision) => return decision,
    };
    let change = Change {
        before: None,
        risk: Risk::Replacement { schema: aside.schema.clone(), since: Some(aside.at) },
        action: Action::Restore {
            // What stands aside says of itself that it is this.
            point: aside.schema.clone(),
            shadow: aside.schema.clone(),
            aside: names::aside(&database.mysql.name, &world.uid, world.status.operations + 1),
            release: entry.release,
            tolerated: rollback::tolerated(world),
            keep: world.spec.rollback.keep_aside,
            carry: world.spec.rollback.carry_forward,
        },
    };
    let deploy = if aside.from == world.status.release { Deploy::Stays } else { Deploy::Release(entry.release) };
    let mut actions = rollback::actions(world, entry.release, Some(change), deploy, scales);
    if entry.verified_at.is_none() {
        // It failed its checks before: whoever brings it back knows that.
        actions.retain(|action| !matches!(action, Action::Verify { .. }));
    }
    report::begin(
        world,
        Draft {
            kind: Kind::Undo,
            aim: Aim::from(entry),
            cause: format!("{} asks to undo operation {}", names::UNDO, aside.operation),
            remediates: None,
            undoes: Some(aside.operation),
            why: format!("schema {} holds the tables as they were at {}", aside.schema, aside.at),
            not_chosen: Vec::new(),
            actions,
        },
    )
}
