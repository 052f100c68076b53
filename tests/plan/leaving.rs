//! A Release that is deleted, at every step of every kind of operation; and a stored journal that Backout did not write.

use backout::{
    api::{
        operation::{Kind, OperationState, StepName, StepState},
        status::ReleaseState,
    },
    plan::{
        input::{Life, Seen},
        summary::farewell,
    },
};
use insta::assert_snapshot;

use super::{
    table,
    world::{Given, Progress, at, content, operation, unseen},
};

const DEPLOY: [StepName; 6] =
    [StepName::Keep, StepName::Preflight, StepName::BackUp, StepName::Migrate, StepName::Deploy, StepName::Verify];
const ROLLBACK: [StepName; 9] = [
    StepName::Preflight,
    StepName::Stage,
    StepName::Approve,
    StepName::Fence,
    StepName::Restore,
    StepName::Deploy,
    StepName::FlushCache,
    StepName::Unfence,
    StepName::Verify,
];

fn deleted(given: Given) -> Given {
    given.with(|world| world.life = Life::Leaving)
}

fn at_step(kind: Kind, steps: &[StepName], step: StepName, state: StepState) -> Given {
    let given = Given::two_releases().release(3, content(3, &[1, 2, 3]), ReleaseState::Deploying).asks(content(3, &[1, 2, 3]));
    let to = if kind == Kind::Deploy { 3 } else { 1 };
    let running = operation(&given.0, kind, to, steps).at(step, state);
    deleted(given.running(running))
}

fn each_step(kind: Kind, steps: &[StepName]) -> String {
    let decides = |step, state| at_step(kind, steps, step, state).decides();
    let row =
        |step: &StepName| format!("{}: {} / {}", step.as_str(), decides(*step, StepState::Pending), decides(*step, StepState::Started));
    steps.iter().map(row).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_deleted_release_ends_its_deploy_at_once_but_never_inside_a_migration() {
    assert_snapshot!(each_step(Kind::Deploy, &DEPLOY), @r"
    Keep: Close Superseded / Close Superseded
    Preflight: Close Superseded / Close Superseded
    BackUp: Close Superseded / Close Superseded
    Migrate: Close Superseded / Run 3
    Deploy: Close Superseded / Close Superseded
    Verify: Close Superseded / Close Superseded
    ");
}

#[test]
fn a_deleted_release_brings_its_rollback_to_where_the_application_can_run() {
    assert_snapshot!(each_step(Kind::Rollback, &ROLLBACK), @r"
    Preflight: Close Superseded / Close Superseded
    Stage: Close Superseded / Close Superseded
    Approve: Close Superseded / Close Superseded
    Fence: Close Superseded / Run 3
    Restore: Run 4 / Run 4
    Deploy: Run 5 / Run 5
    FlushCache: Close Superseded / Close Superseded
    Unfence: Run 7 / Run 7
    Verify: Close Superseded / Close Superseded
    ");
}

#[test]
fn what_a_deleted_release_holds_is_freed_and_then_it_goes() {
    let stopped = |step, state| {
        let given = at_step(Kind::Rollback, &ROLLBACK, step, state);
        given.closed(OperationState::Superseded)
    };
    let stuck = |attempt| {
        let given = at_step(Kind::Rollback, &ROLLBACK, StepName::Restore, StepState::Started);
        given.with(|world| {
            let steps = world.status.operation.iter_mut().flat_map(|operation| &mut operation.steps);
            steps.filter(|step| step.name == StepName::Restore).for_each(|step| {
                step.attempt = attempt;
                step.retry_at = Some(at(1));
            });
        })
    };
    let left = |end| {
        let given = deleted(Given::two_releases());
        let mut leave = operation(&given.0, Kind::Leave, 2, &[StepName::Discard]);
        leave.state = end;
        given.running(leave)
    };
    let rows = vec![
        ("nothing was ever done", deleted(Given::new())),
        ("nothing runs", deleted(Given::two_releases())),
        ("nothing runs, and there is no database", deleted(Given::two_releases().spec(|spec| spec.database = None))),
        ("suspended all the same", deleted(Given::two_releases().spec(|spec| spec.suspend = true))),
        ("stopped before the swap, behind the fence", stopped(StepName::Restore, StepState::Pending)),
        ("stopped after the swap, behind the fence", stopped(StepName::Deploy, StepState::Started).applied(&[1])),
        ("stopped at the cache", stopped(StepName::FlushCache, StepState::Started).applied(&[1])),
        ("the swap happened, which nobody came to write down", stopped(StepName::Restore, StepState::Started).applied(&[1])),
        ("a swap that can't go on is tried again", stuck(2)),
        ("but not for ever", stuck(5)),
        ("all is freed", left(OperationState::Succeeded)),
        ("what could not be freed does not keep it", left(OperationState::Failed)),
    ];
    assert_snapshot!(table(rows), @r"
    nothing was ever done
      Farewell
    nothing runs
      Leave 2 → 2: Discard 
    nothing runs, and there is no database
      Farewell
    suspended all the same
      Leave 2 → 2: Discard 
    stopped before the swap, behind the fence
      Leave 2 → 2: Unfence shop=3, Discard 
    stopped after the swap, behind the fence
      Leave 2 → 1: Deploy 1, Unfence shop=3, Discard 
    stopped at the cache
      Leave 2 → 1: Deploy 1, Unfence shop=3, Discard 
    the swap happened, which nobody came to write down
      Leave 2 → 1: Deploy 1, Unfence shop=3, Discard 
    a swap that can't go on is tried again
      Run 4
    but not for ever
      Close Superseded
    all is freed
      Farewell
    what could not be freed does not keep it
      Farewell
    ");
}

/// A Release that is deleted behind the fence of a schema revert, which was given up.
fn given_up() -> Given {
    let steps = [StepName::Preflight, StepName::Fence, StepName::RevertSchema, StepName::Deploy, StepName::Unfence];
    let given = deleted(Given::two_releases().asks(content(1, &[1])));
    let running = operation(&given.0, Kind::Rollback, 1, &steps).at(StepName::RevertSchema, StepState::Started);
    given.running(running).closed(OperationState::Superseded)
}

fn away(given: Given) -> Given {
    given.with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable"))))
}

#[test]
fn a_fence_is_taken_down_only_where_the_database_is_that_of_the_release_that_then_runs() {
    let leaving = |state: StepState, begun: i64| {
        let given = given_up();
        let mut leave = operation(&given.0, Kind::Leave, 2, &[StepName::Discard, StepName::Unfence]).at(StepName::Unfence, state);
        leave.started_at = at(begun);
        given.running(leave)
    };
    let rows = vec![
        ("nothing was reverted", given_up()),
        ("all was reverted", given_up().applied(&[1])),
        ("a down script stands half way", given_up().half_way(2)),
        ("the database was not looked at", given_up().with(|world| world.database = None)),
        ("the database is away", away(given_up())),
        ("there is no database any more", away(given_up()).spec(|spec| spec.database = None)),
        ("looked at again before the fence goes", leaving(StepState::Pending, 990).with(|world| world.database = None)),
        ("it has come back and fits", leaving(StepState::Pending, 990)),
        ("it has come back and does not fit", leaving(StepState::Pending, 990).half_way(2)),
        ("it is away again", away(leaving(StepState::Pending, 990))),
        ("it is away for good", away(leaving(StepState::Pending, 960))),
        ("what was begun goes on", away(leaving(StepState::Started, 960))),
    ];
    assert_snapshot!(table(rows), @r"
    nothing was reverted
      Leave 2 → 2: Unfence shop=3, Discard 
    all was reverted
      Leave 2 → 1: Deploy 1, Unfence shop=3, Discard 
    a down script stands half way
      Leave 2 → 2: Discard , Unfence shop=3
    the database was not looked at
      LookAtDatabase
    the database is away
      Leave 2 → 2: Discard , Unfence shop=3
    there is no database any more
      Leave 2 → 2: Unfence shop=3
    looked at again before the fence goes
      LookAtDatabase
    it has come back and fits
      Run 1
    it has come back and does not fit
      Close Failed
    it is away again
      Waiting DatabaseUnavailable
    it is away for good
      Close Failed
    what was begun goes on
      Run 1
    ");
}

#[test]
fn who_deletes_is_told_that_a_fence_was_left_up() {
    let given = given_up().half_way(2);
    let leave = operation(&given.0, Kind::Leave, 2, &[StepName::Discard, StepName::Unfence]).at(StepName::Unfence, StepState::Pending);
    let left = given.running(leave).closed(OperationState::Failed);
    assert_eq!(left.decides(), "Farewell");
    assert_snapshot!(farewell(&left.0.status), @"the workloads are left scaled to zero, because the database is not known to be what the deployed release runs on: look at it, then scale shop to 3; live tables and the files of backup points stay");
    assert_snapshot!(farewell(&deleted(Given::two_releases()).0.status), @"nothing is held any more; live tables and the files of backup points stay");
}

#[test]
fn a_journal_that_backout_did_not_write_is_a_named_stop_with_a_way_out() {
    let broken = |change: fn(&mut backout::api::operation::Operation)| {
        let mut given = at_step(Kind::Deploy, &DEPLOY, StepName::Migrate, StepState::Started);
        given.0.life = Life::Wanted;
        given.0.status.operation.iter_mut().for_each(change);
        given
    };
    let begun_early = |operation: &mut backout::api::operation::Operation| {
        operation.steps.iter_mut().filter(|step| step.name == StepName::Verify).for_each(|step| step.state = StepState::Done);
    };
    let rows = vec![
        ("a step was begun before the one in front of it was done", broken(begun_early)),
        ("no steps", broken(|operation| operation.steps.clear())),
        ("a name that is not its action's", broken(|operation| operation.steps.iter_mut().for_each(|step| step.name = StepName::Fence))),
        (
            "started but never begun",
            broken(|operation| {
                operation.steps.iter_mut().for_each(|step| {
                    step.started_at = None;
                })
            }),
        ),
        ("reset", broken(begun_early).with(|world| world.reset_at = Some("now".to_owned()))),
    ];
    assert_snapshot!(table(rows), @r"
    a step was begun before the one in front of it was done
      Stalled InvalidJournal
    no steps
      Stalled InvalidJournal
    a name that is not its action's
      Stalled InvalidJournal
    started but never begun
      Stalled InvalidJournal
    reset
      Reset now
    ");
    let gone = deleted(broken(begun_early));
    assert_eq!(gone.decides(), "Leave 2 → 2: Discard ", "a deletion does not wait for a reset");
    let reset = backout::plan::journal::reset(broken(begun_early).0.status, "now".to_owned());
    assert_eq!(reset.operation.map(|operation| operation.state), Some(OperationState::Superseded));
}
