//! The operation that runs: its next step, and what makes it give way.

use backout::{
    api::{
        ReleaseSpec,
        operation::{Kind, OperationState, StepName, StepState},
        release::Workload,
        status::ReleaseState,
    },
    plan::input::{Seen, WorkloadSeen},
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
fn an_operation_never_ends_on_another_database_or_other_workloads_than_it_began_with() {
    let elsewhere = |spec: &mut ReleaseSpec| "db2".clone_into(&mut spec.database.as_mut().expect("the fixture has one").mysql.host);
    let worker = |spec: &mut ReleaseSpec| {
        let other =
            Workload { name: "worker".to_owned(), ..spec.target.kubernetes.workloads.first().cloned().expect("the fixture has one") };
        spec.target.kubernetes.workloads.push(other);
    };
    let older = |given: Given| given.with(|world| world.status.operation.iter_mut().for_each(|operation| operation.target = None));
    let rows = vec![
        ("another database, while nothing is touched", deploying(StepName::BackUp, StepState::Started).spec(elsewhere)),
        ("another database, while a migration runs", deploying(StepName::Migrate, StepState::Started).spec(elsewhere)),
        ("another database, behind the fence", going_back(StepName::RevertSchema, StepState::Started).spec(elsewhere)),
        ("a container that is not there was corrected", deploying(StepName::Preflight, StepState::Started).spec(worker)),
        ("other workloads, while a migration runs", deploying(StepName::Migrate, StepState::Started).spec(worker)),
        ("other workloads, while it bakes", deploying(StepName::Bake, StepState::Started).spec(worker)),
        ("other workloads, behind the fence", going_back(StepName::Deploy, StepState::Pending).spec(worker)),
        ("the same workloads in an operation that does not say", older(going_back(StepName::Deploy, StepState::Pending)).spec(worker)),
        ("a fence that was left is put up before a new workload too", {
            let given = going_back(StepName::RevertSchema, StepState::Pending).spec(worker).workload(|workload| workload.replicas = 0);
            let given = given.closed(OperationState::Superseded);
            given.with(|world| {
                if let Seen::Known(workloads) = &mut world.workloads {
                    let worker = workloads.first().cloned().expect("the fixture has one");
                    workloads.push(WorkloadSeen { name: "worker".to_owned(), replicas: 2, ..worker });
                }
            })
        }),
    ];
    assert_snapshot!(table(rows), @r"
    another database, while nothing is touched
      Close Superseded
    another database, while a migration runs
      Waiting DatabaseChanged
    another database, behind the fence
      Waiting DatabaseChanged
    a container that is not there was corrected
      Close Superseded
    other workloads, while a migration runs
      Waiting TargetChanged
    other workloads, while it bakes
      Close Superseded
    other workloads, behind the fence
      Waiting TargetChanged
    the same workloads in an operation that does not say
      Run 3
    a fence that was left is put up before a new workload too
      Rollback 2 → 1: Fence shop=3 worker=2, Preflight 1 [] database=Needed cache=Needed, Approve Never, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3 worker=2, Verify 1m
    ");
}

#[test]
fn what_failed_behind_a_fence_takes_it_down_once_the_database_says_that_it_may() {
    let failed = |step| going_back(step, StepState::Failed);
    let away = |given: Given| given.with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable"))));
    let elsewhere = |spec: &mut ReleaseSpec| "db2".clone_into(&mut spec.database.as_mut().expect("the fixture has one").mysql.host);
    let rows = vec![
        ("the scripts failed and nothing changed", failed(StepName::RevertSchema)),
        ("the scripts failed half way", failed(StepName::RevertSchema).half_way(2)),
        ("the database was not looked at", failed(StepName::RevertSchema).with(|world| world.database = None)),
        ("the database is away: it is looked at again", away(failed(StepName::RevertSchema))),
        (
            "it is away, and a person asks for a reset",
            away(failed(StepName::RevertSchema)).with(|world| world.reset_at = Some("now".to_owned())),
        ),
        ("it is away, and the spec names another", away(failed(StepName::RevertSchema)).spec(elsewhere)),
        ("before the fence", away(failed(StepName::Preflight))),
    ];
    assert_snapshot!(table(rows), @r"
    the scripts failed and nothing changed
      Run 4
    the scripts failed half way
      Close Failed
    the database was not looked at
      LookAtDatabase
    the database is away: it is looked at again
      Waiting DatabaseUnavailable
    it is away, and a person asks for a reset
      Close Failed
    it is away, and the spec names another
      Close Failed
    before the fence
      Close Failed
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
      Waiting DatabaseUnavailable
    ");
}
