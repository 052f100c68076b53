//! A Release that is deleted, at every step of every kind of operation; and a stored journal that Backout did not write.

use backout::{
    api::{
        operation::{Kind, OperationState, StepName, StepState},
        status::ReleaseState,
    },
    plan::input::Life,
};
use insta::assert_snapshot;

use super::{
    table,
    world::{Given, Progress, at, content, operation},
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
        ("stopped after the swap, behind the fence", stopped(StepName::Deploy, StepState::Started)),
        ("stopped at the cache", stopped(StepName::FlushCache, StepState::Started)),
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
      Leave 2 → 2: Deploy 1, Unfence shop=3, Discard 
    stopped at the cache
      Leave 2 → 2: Deploy 1, Unfence shop=3, Discard 
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
    let reset = backout::plan::journal::reset(broken(begun_early).0.status, "now".to_owned());
    assert_eq!(reset.operation.map(|operation| operation.state), Some(OperationState::Superseded));
}
