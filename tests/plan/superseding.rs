//! The operation that runs: its next step, and what makes it give way.

use backout::{
    api::{
        operation::{Kind, StepName, StepState},
        status::ReleaseState,
    },
    plan::input::Seen,
};
use insta::assert_snapshot;

use super::{
    table,
    world::{Given, Progress, at, content, operation, unseen},
};

const DEPLOY: [StepName; 7] =
    [StepName::Keep, StepName::Preflight, StepName::BackUp, StepName::Migrate, StepName::Deploy, StepName::Verify, StepName::Bake];
const ROLLBACK: [StepName; 5] = [StepName::Preflight, StepName::Fence, StepName::RevertSchema, StepName::Deploy, StepName::Unfence];

fn deploying(step: StepName, state: StepState) -> Given {
    let given = Given::two_releases().release(3, content(3, &[1, 2, 3]), ReleaseState::Deploying).asks(content(3, &[1, 2, 3]));
    let running = operation(&given.0, Kind::Deploy, 3, &DEPLOY).at(step, state);
    given.running(running)
}

fn going_back(step: StepName, state: StepState) -> Given {
    let given = Given::two_releases().asks(content(1, &[1]));
    let running = operation(&given.0, Kind::Rollback, 1, &ROLLBACK).at(step, state);
    given.running(running)
}

/// What the operation decides at each step, before it is begun and while it runs, when something newer is asked for.
fn at_each_step(steps: &[StepName], given: impl Fn(StepName, StepState) -> Given) -> String {
    let decides = |step, state| given(step, state).asks(content(4, &[1, 2])).decides();
    let row =
        |step: &StepName| format!("{}: {} / {}", step.as_str(), decides(*step, StepState::Pending), decides(*step, StepState::Started));
    steps.iter().map(row).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_deploy_gives_way_to_something_newer_but_never_inside_a_database_step() {
    assert_snapshot!(at_each_step(&DEPLOY, deploying), @r"
    Keep: Close Superseded / Close Superseded
    Preflight: Close Superseded / Close Superseded
    BackUp: Close Superseded / Close Superseded
    Migrate: Close Superseded / Run 3
    Deploy: Close Superseded / Close Superseded
    Verify: Close Superseded / Close Superseded
    Bake: Close Superseded / Close Superseded
    ");
}

#[test]
fn a_rollback_gives_way_only_at_preflight() {
    assert_snapshot!(at_each_step(&ROLLBACK, going_back), @r"
    Preflight: Close Superseded / Close Superseded
    Fence: Run 1 / Run 1
    RevertSchema: Run 2 / Run 2
    Deploy: Run 3 / Run 3
    Unfence: Run 4 / Run 4
    ");
}

#[test]
fn an_operation_goes_on_with_its_next_step() {
    let retry = |second| {
        deploying(StepName::Migrate, StepState::Started).with(|world| {
            let steps = world.status.operation.iter_mut().flat_map(|operation| &mut operation.steps);
            steps.filter(|step| step.name == StepName::Migrate).for_each(|step| step.retry_at = Some(at(second)));
        })
    };
    let rows = vec![
        ("a step is pending", deploying(StepName::BackUp, StepState::Pending)),
        ("a step was begun and not finished", deploying(StepName::BackUp, StepState::Started)),
        ("every step is done", deploying(StepName::Bake, StepState::Done)),
        ("a step failed", deploying(StepName::Verify, StepState::Failed)),
        ("it is to be tried again later", retry(1001)),
        ("it is to be tried again now", retry(1000)),
        ("the source can't be seen", deploying(StepName::Deploy, StepState::Pending).asks_unseen()),
        ("suspended: what runs is finished", deploying(StepName::Deploy, StepState::Pending).spec(|spec| spec.suspend = true)),
        ("a pin to a known good release", deploying(StepName::Deploy, StepState::Started).pinned(1)),
        (
            "a pin to what can't be gone back to, after something changed",
            deploying(StepName::Deploy, StepState::Started).entry(1, |entry| entry.state = ReleaseState::Undone).pinned(1),
        ),
        ("a pin to an unknown release", deploying(StepName::Keep, StepState::Pending).pinned(9)),
        (
            "git goes to a quarantined release before anything changed",
            deploying(StepName::BackUp, StepState::Started).asks(content(4, &[])).quarantined(&content(4, &[]), 9),
        ),
        (
            "git goes to a quarantined release after something changed",
            deploying(StepName::Bake, StepState::Started).asks(content(4, &[])).quarantined(&content(4, &[]), 9),
        ),
    ];
    assert_snapshot!(table(rows), @r"
    a step is pending
      Run 2
    a step was begun and not finished
      Run 2
    every step is done
      Close Succeeded
    a step failed
      Close Failed
    it is to be tried again later
      Waiting ProgressingWithRetry
    it is to be tried again now
      Run 3
    the source can't be seen
      Run 4
    suspended: what runs is finished
      Run 4
    a pin to a known good release
      Close Superseded
    a pin to what can't be gone back to, after something changed
      Run 4
    a pin to an unknown release
      Run 0
    git goes to a quarantined release before anything changed
      Close Superseded
    git goes to a quarantined release after something changed
      Run 6
    ");
}

#[test]
fn a_failure_behind_the_fence_takes_it_down_where_what_ran_before_can_run_on() {
    let taken_over = |given: Given| given.with(|world| world.status.operation.iter_mut().for_each(|operation| operation.steps.swap(0, 1)));
    let undeployed = |given: Given| given.deployed(1).applied(&[1, 3]);
    let failed = || going_back(StepName::RevertSchema, StepState::Failed);
    let rows = vec![
        ("the script left nothing: the release before runs on its own schema", failed()),
        ("the newer release never came up: what ran before ran beside its schema then too", undeployed(failed())),
        ("the script stopped half way", undeployed(failed()).half_way(3)),
        ("one script is done, and another failed", undeployed(failed()).applied(&[1, 2])),
        ("the fence was there before", taken_over(undeployed(failed()))),
        ("the workloads are another release's already", undeployed(going_back(StepName::Deploy, StepState::Failed))),
        ("the database was not looked at yet", undeployed(failed()).with(|world| world.database = None)),
        (
            "the database can't be seen",
            undeployed(failed()).with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable")))),
        ),
    ];
    assert_snapshot!(table(rows), @r"
    the script left nothing: the release before runs on its own schema
      Run 4
    the newer release never came up: what ran before ran beside its schema then too
      Run 4
    the script stopped half way
      Close Failed
    one script is done, and another failed
      Close Failed
    the fence was there before
      Close Failed
    the workloads are another release's already
      Close Failed
    the database was not looked at yet
      LookAtDatabase
    the database can't be seen
      Close Failed
    ");
}
