//! What of a simulated world decides about its future, as one number: worlds with the same number go on in the same way.
//!
//! Left out is what people read (messages, conditions, causes) and when things happened, but for the step that runs: windows of
//! hours lie beyond what small worlds live through. Two different worlds share one of 2⁶⁴ numbers by chance in one of a
//! thousand million explorations.

use std::hash::{DefaultHasher, Hash, Hasher};

use backout::{
    api::{
        operation::{Approval, Loss, Operation, OperationState, Step, StepName, StepState},
        release::Rollback,
        status::{Aside, AutomaticRollback, HistoryEntry, Hold, Quarantined, ReleaseStatus, Switch, Upkeep},
    },
    plan::input::Life,
};
use jiff::Timestamp;

use super::{
    driver::Simulation,
    model::{Model, Pods, Snapshot, Workload},
};

/// A repair or a clean-up that ended so many seconds ago pauses nothing any more.
const LONG_AGO: i64 = 3700;

/// After so many milliseconds at the latest a loss is measured again.
const MEASURED: i64 = 61_000;

pub fn of(simulation: &Simulation) -> u64 {
    let mut hash = DefaultHasher::new();
    let Simulation {
        model,
        trace: _,
        tally: _,
        points: _,
        answers: _,
        due: _,
        older,
        stale,
        term: _,
        begun: _,
        effect: _,
        changed: _,
        cuts: _,
    } = simulation;
    world(model, &mut hash);
    stale.hash(&mut hash);
    // What a stale cache would show, where it would be believed: while an operation runs the object is read afresh.
    match older {
        Some(older) if older.running().is_none() => {
            let Snapshot { version, generation, spec: _, status: then, reset_at, undo, approve, life } = older;
            (*version == model.version, generation, reset_at, undo).hash(&mut hash);
            (approve.as_ref().map(|approve| &approve.digest), *life == Life::Leaving).hash(&mut hash);
            status(then, model.now, &mut hash);
        }
        Some(_) | None => {}
    }
    hash.finish()
}

fn world(model: &Model, hash: &mut DefaultHasher) {
    let Model {
        now,
        version: _,
        generation,
        spec,
        status: current,
        reset_at,
        undo,
        approve,
        life,
        gone,
        commits,
        head,
        source_seen,
        database_seen,
        workloads_seen,
        away,
        kept,
        server,
        workload: Workload { asked, there, served },
        cached: _,
    } = model;
    (generation, reset_at, undo, gone, head, source_seen, database_seen, workloads_seen, away).hash(hash);
    (approve.as_ref().map(|approve| &approve.digest), *life == Life::Leaving).hash(hash);
    let Rollback { automatic, database, approval, keep_aside: _, carry_forward: _, emergency_point, limit: _ } = &spec.rollback;
    (automatic, *approval as u8, *emergency_point as u8, spec.rollback_to.as_ref().map(|pin| pin.release), spec.suspend).hash(hash);
    database.iter().for_each(|method| (*method as u8).hash(hash));
    // A commit's number makes its content unique, and what it changes follows.
    commits.iter().for_each(|commit| commit.content.images.hash(hash));
    commits.iter().for_each(|commit| commit.content.migrations.iter().for_each(|migration| (&migration.up, &migration.down).hash(hash)));
    kept.iter().for_each(|(release, kept)| (release, &kept.content.version).hash(hash));
    (&server.live, &server.shadows, &server.asides, &server.points, server.locked).hash(hash);
    let running = current.operation.as_ref().map(|operation| operation.id);
    server.done.iter().filter(|((operation, _), _)| Some(*operation) == running).for_each(|done| done.hash(hash));
    served.hash(hash);
    for Pods { replicas, image, env } in [asked, there] {
        (replicas, image, env.len()).hash(hash);
    }
    status(current, *now, hash);
}

fn status(status: &ReleaseStatus, now: Timestamp, hash: &mut DefaultHasher) {
    let ReleaseStatus {
        observed_generation,
        conditions: _,
        phase: _,
        release,
        version: _,
        last_applied_revision: _,
        last_attempted_revision: _,
        last_backup_point: _,
        last_rollback_at: _,
        operation: last,
        history,
        quarantine,
        automatic_rollbacks,
        switches,
        asides,
        shadows,
        upkeep,
        hold,
        restored_point,
        operations,
        releases,
        last_handled_requested_at: _,
        last_handled_reset_at,
        last_handled_undo,
        last_handled_backup_at: _,
    } = status;
    (observed_generation, release, shadows, restored_point, operations, releases, last_handled_reset_at, last_handled_undo).hash(hash);
    for HistoryEntry {
        release,
        version: _,
        digest,
        revision: _,
        state,
        started_at: _,
        verified_at,
        undone_at,
        backup_point,
        approval: _,
    } in history
    {
        (release, digest, *state as u8, verified_at.is_some(), undone_at.is_some(), backup_point).hash(hash);
    }
    for Quarantined { digest, version: _, revision: _, release, reason: _, at: _ } in quarantine {
        (digest, release).hash(hash);
    }
    automatic_rollbacks.iter().for_each(|AutomaticRollback { release, at: _ }| release.hash(hash));
    switches.iter().for_each(|Switch { digest, at: _ }| digest.hash(hash));
    for Aside { schema, operation, from, to, at: _, until: _, state } in asides {
        (schema, operation, from, to, *state as u8).hash(hash);
    }
    for Upkeep { kind, step, state, started_at: _, finished_at } in upkeep {
        (*kind as u8, step.as_str(), *state as u8, (age(now, *finished_at) / 1000).min(LONG_AGO)).hash(hash);
    }
    hold.iter().for_each(|Hold { wanted, operation }| (wanted, operation).hash(hash));
    last.iter().for_each(|last| operation(last, now, hash));
}

fn operation(operation: &Operation, now: Timestamp, hash: &mut DefaultHasher) {
    let Operation {
        id,
        kind,
        state,
        cause: _,
        plan,
        loss,
        approval,
        remediates,
        undoes,
        from,
        to,
        version: _,
        digest,
        revision: _,
        wanted,
        database,
        target,
        generation,
        started_at: _,
        finished_at: _,
        steps,
    } = operation;
    // The plan's digest stands for every action of its steps.
    (id, *kind as u8, *state as u8, &plan.digest, remediates, undoes, from, to).hash(hash);
    (digest, wanted, database, target, generation).hash(hash);
    if let Some(Loss { inserted, changed, deleted, by_scripts, since: _, measured_at, took: _, details: _, uncertain }) = loss {
        let stale_after = Some(age(now, *measured_at).min(MEASURED)).filter(|_| *state == OperationState::Running);
        (inserted, changed, deleted, by_scripts, uncertain, stale_after).hash(hash);
    }
    approval.iter().for_each(|Approval { state, by: _, at: _ }| (*state as u8).hash(hash));
    let mut ahead = *state == OperationState::Running;
    for Step { name, state, attempt, started_at, finished_at: _, retry_at, failures, message: _, progress: _, action: _ } in steps {
        (*state as u8).hash(hash);
        if ahead && *state != StepState::Done {
            ahead = false;
            // The other steps have more time than a small world lasts.
            let timed = matches!(name, StepName::Verify | StepName::Bake);
            let age_of_step = started_at.filter(|_| timed).map(|at| age(now, at));
            (attempt, failures, age_of_step, retry_at.map(|at| age(now, at).min(0))).hash(hash);
        }
    }
}

/// In milliseconds.
fn age(now: Timestamp, then: Timestamp) -> i64 {
    i64::try_from(now.duration_since(then).as_millis()).unwrap_or(i64::MAX)
}
