//! Rest: in sync, drift, quarantine, suspension and reset.

use backout::{
    api::{
        operation::{Kind, OperationState, StepName},
        status::ReleaseState,
    },
    plan::input::Seen,
};
use insta::assert_snapshot;

use super::{
    table,
    world::{Given, Progress, content, operation, unseen},
};

fn quarantined() -> Given {
    Given::two_releases().asks(content(3, &[1, 2])).quarantined(&content(3, &[1, 2]), 3)
}

#[test]
fn what_runs_is_kept_as_it_should_be() {
    let rows = vec![
        ("in sync", Given::two_releases()),
        (
            "another image by hand",
            Given::two_releases()
                .workload(|workload| workload.containers.values_mut().for_each(|container| container.image = "other".to_owned())),
        ),
        (
            "a variable by hand",
            Given::two_releases().workload(|workload| workload.containers.values_mut().for_each(|container| container.env.clear())),
        ),
        ("it was put right a moment ago, and a point was taken since", {
            let given = Given::two_releases()
                .workload(|workload| workload.containers.values_mut().for_each(|container| container.image = "other".to_owned()));
            let repair = operation(&given.0, Kind::Repair, 2, &[StepName::Deploy, StepName::Verify]);
            let given = given.running(repair).closed(OperationState::Succeeded);
            let backup = operation(&given.0, Kind::Backup, 2, &[StepName::BackUp]);
            given.running(backup).closed(OperationState::Succeeded)
        }),
        ("the container is gone", Given::two_releases().workload(|workload| workload.containers.clear())),
        ("the workloads can't be seen", Given::two_releases().with(|world| world.workloads = Seen::Unknown(unseen("TargetNotFound")))),
        ("what should run can't be told", Given::two_releases().with(|world| world.kept.clear())),
        ("replicas are the user's own", Given::two_releases().workload(|workload| workload.replicas = 9)),
        ("the repair failed", {
            let given = Given::two_releases();
            let failed = operation(&given.0, Kind::Repair, 2, &[StepName::Deploy, StepName::Verify]).failed_at(StepName::Verify);
            given.running(failed).closed(OperationState::Failed)
        }),
        (
            "a superseded release left its migration: taken back before anything is said",
            Given::two_releases().release(3, content(3, &[1, 2, 3]), ReleaseState::Superseded).applied(&[1, 2, 3]),
        ),
    ];
    assert_snapshot!(table(rows), @r"
    in sync
      Ready ReconciliationSucceeded
    another image by hand
      Repair 2 → 2: Deploy 2, Verify 1m
    a variable by hand
      Repair 2 → 2: Deploy 2, Verify 1m
    it was put right a moment ago, and a point was taken since
      Waiting DriftsAgain
    the container is gone
      Repair 2 → 2: Deploy 2, Verify 1m
    the workloads can't be seen
      Waiting TargetNotFound
    what should run can't be told
      Waiting ReleaseNotKept
    replicas are the user's own
      Ready ReconciliationSucceeded
    the repair failed
      Stalled RepairFailed
    a superseded release left its migration: taken back before anything is said
      Rollback 2 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, FlushCache shop:, Unfence shop=3, Verify 1m
    ");
}

#[test]
fn a_quarantined_release_is_not_tried_again() {
    let rows = vec![
        ("git asks for it", quarantined()),
        (
            "git asks for it, and the workloads drifted",
            quarantined().workload(|workload| workload.containers.values_mut().for_each(|container| container.image = "other".to_owned())),
        ),
        ("git asks for something else", quarantined().asks(content(4, &[1, 2]))),
        ("it was answered by a rollback", {
            let given = quarantined();
            let mut rollback = operation(&given.0, Kind::Rollback, 2, &[StepName::Deploy, StepName::Verify]);
            rollback.remediates = Some(3);
            given.running(rollback).closed(OperationState::Succeeded)
        }),
        ("a person asks for a reset", quarantined().with(|world| world.reset_at = Some("now".to_owned()))),
        (
            "the reset was handled",
            quarantined().with(|world| {
                world.reset_at = Some("now".to_owned());
                world.status.last_handled_reset_at = world.reset_at.clone();
            }),
        ),
        ("suspended", quarantined().spec(|spec| spec.suspend = true)),
        (
            "suspended, and a person asks for a reset",
            quarantined().spec(|spec| spec.suspend = true).with(|world| world.reset_at = Some("now".to_owned())),
        ),
    ];
    assert_snapshot!(table(rows), @r"
    git asks for it
      Resting Quarantined
    git asks for it, and the workloads drifted
      Repair 2 → 2: Deploy 2, Verify 1m
    git asks for something else
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m
    it was answered by a rollback
      Resting RolledBack
    a person asks for a reset
      Reset now
    the reset was handled
      Resting Quarantined
    suspended
      Resting Suspended
    suspended, and a person asks for a reset
      Reset now
    ");
}
