//! Rollback: by git, by pin and by failure; which way the database goes; and where it stops.

use backout::{
    api::{
        backup_point::PointReason,
        operation::{Action, Kind, OperationState, StepName, StepState},
        release::{EmergencyPoint, Method},
        status::ReleaseState,
    },
    plan::input::Seen,
};
use insta::assert_snapshot;

use super::{
    table,
    world::{Given, Progress, content, operation, unseen},
};

fn reverted() -> Given {
    Given::two_releases().asks(content(1, &[1]))
}

#[test]
fn going_back_to_a_known_good_release_takes_the_first_way_that_is_possible() {
    let rows = vec![
        ("every down script is there", reverted()),
        ("a down script is missing", reverted().no_down(2)),
        ("the schema is the target's already", reverted().applied(&[1])),
        ("there is no database", reverted().spec(|spec| spec.database = None)),
        ("there is no cache", reverted().applied(&[1]).spec(|spec| spec.cache = None)),
        ("Restore comes first", reverted().spec(|spec| spec.rollback.database = vec![Method::Restore, Method::RevertSchema])),
        ("a migration stands half way", reverted().half_way(2)),
        ("the target needs a migration that is gone", reverted().applied(&[2])),
        (
            "two releases back: down scripts newest first",
            Given::two_releases()
                .release(3, content(3, &[1, 2, 3]), ReleaseState::KnownGood)
                .deployed(3)
                .applied(&[1, 2, 3])
                .asks(content(1, &[1])),
        ),
        (
            "two releases back: the point from before the first that is undone",
            Given::two_releases()
                .release(3, content(3, &[1, 2, 3]), ReleaseState::KnownGood)
                .deployed(3)
                .applied(&[1, 2, 3])
                .no_down(3)
                .asks(content(1, &[1])),
        ),
        (
            "a squash revert is the same content under another commit",
            reverted().with(|world| {
                if let Seen::Known(desired) = &mut world.desired {
                    desired.revision = "main@squashed".to_owned();
                }
            }),
        ),
        ("the database was not looked at yet", reverted().with(|world| world.database = None)),
    ];
    assert_snapshot!(table(rows), @r"
    every down script is there
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    a down script is missing
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Fence shop=3, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    the schema is the target's already
      Rollback 2 → 1: Preflight 1 [] database=Untouched cache=Needed, Deploy 1, FlushCache shop:, Verify 1m
    there is no database
      Rollback 2 → 1: Preflight 1 [] database=Untouched cache=Needed, Deploy 1, FlushCache shop:, Verify 1m
    there is no cache
      Rollback 2 → 1: Preflight 1 [] database=Untouched cache=Untouched, Deploy 1, Verify 1m
    Restore comes first
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Fence shop=3, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    a migration stands half way
      Rollback 2 → 1: Fence shop=3, Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    the target needs a migration that is gone
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Fence shop=3, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    two releases back: down scripts newest first
      Rollback 3 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3 2 of 3, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    two releases back: the point from before the first that is undone
      Rollback 3 → 1: Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Fence shop=3, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    a squash revert is the same content under another commit
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    the database was not looked at yet
      LookAtDatabase
    ");
}

#[test]
fn what_can_not_be_seen_or_trusted_is_never_destroyed() {
    let restore_only = || reverted().no_down(2);
    let rows = vec![
        ("the database can't be seen", reverted().with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable"))))),
        ("the workloads can't be seen", reverted().with(|world| world.workloads = Seen::Unknown(unseen("TargetNotFound")))),
        ("the target's ControllerRevision is gone", reverted().with(|world| drop(world.kept.remove(&1)))),
        ("the database is never taken back", reverted().spec(|spec| spec.rollback.database = Vec::new())),
        ("no down script, and Restore is not allowed", restore_only().spec(|spec| spec.rollback.database = vec![Method::RevertSchema])),
        (
            "the applied migration is not the kept one",
            reverted()
                .database(|database| database.applied.iter_mut().for_each(|applied| applied.checksum = "other".to_owned()))
                .spec(|spec| spec.rollback.database = vec![Method::RevertSchema]),
        ),
        ("privileges are missing", reverted().database(|database| database.missing_grants.push("GRANT DROP".to_owned()))),
        (
            "an object that the point can't carry",
            restore_only().database(|database| database.uncarried.push("sequence nightly".to_owned())),
        ),
        ("the point is gone", restore_only().with(|world| world.points.clear())),
        ("the point is not verified", restore_only().with(|world| world.points.values_mut().for_each(|point| point.verified = false))),
        (
            "the point has another schema version",
            restore_only().with(|world| world.points.values_mut().for_each(|point| point.migrations = Some(vec![1, 7]))),
        ),
        (
            "the point lacks a migration from before the newest",
            restore_only().with(|world| world.points.values_mut().for_each(|point| point.migrations = Some(Vec::new()))),
        ),
        (
            "the point does not say what it holds",
            restore_only().with(|world| world.points.values_mut().for_each(|point| point.migrations = None)),
        ),
        ("no release since has a point", restore_only().entry(2, |entry| entry.backup_point = None)),
        ("the point of a release that was undone before is too old", {
            // 2 was undone and deployed again as 3: what is live was shaped by 3 alone.
            Given::two_releases()
                .entry(2, |entry| entry.state = ReleaseState::Undone)
                .entry(2, |entry| entry.undone_at = Some(entry.started_at))
                .release(3, content(2, &[1, 2]), ReleaseState::KnownGood)
                .with(|world| world.points.values_mut().for_each(|point| point.migrations = Some(vec![1])))
                .deployed(3)
                .database(|database| database.applied.iter_mut().for_each(|applied| applied.release = 3))
                .no_down(2)
                .asks(content(1, &[1]))
        }),
        ("so is that of one that a rollback took back before it failed on something else: the database says who brought what", {
            Given::two_releases()
                .release(3, content(2, &[1, 2]), ReleaseState::KnownGood)
                .with(|world| world.points.values_mut().for_each(|point| point.migrations = Some(vec![1])))
                .deployed(3)
                .database(|database| database.applied.iter_mut().for_each(|applied| applied.release = 3))
                .no_down(2)
                .asks(content(1, &[1]))
        }),
    ];
    assert_snapshot!(table(rows), @r"
    the database can't be seen
      Waiting DatabaseUnavailable
    the workloads can't be seen
      Waiting TargetNotFound
    the target's ControllerRevision is gone
      Waiting ReleaseNotKept
    the database is never taken back
      Stalled NoWayBack
    no down script, and Restore is not allowed
      Stalled NoWayBack
    the applied migration is not the kept one
      Stalled NoWayBack
    privileges are missing
      Stalled NoWayBack
    an object that the point can't carry
      Stalled NoWayBack
    the point is gone
      Stalled NoWayBack
    the point is not verified
      Stalled NoWayBack
    the point has another schema version
      Stalled NoWayBack
    the point lacks a migration from before the newest
      Stalled NoWayBack
    the point does not say what it holds
      Stalled NoWayBack
    no release since has a point
      Stalled NoWayBack
    the point of a release that was undone before is too old
      Rollback 3 → 1: Preflight 1 [] database=Needed cache=Needed, Stage shop-3-predeploy, Approve Never, Fence shop=3, Restore shop-3-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    so is that of one that a rollback took back before it failed on something else: the database says who brought what
      Rollback 3 → 1: Preflight 1 [] database=Needed cache=Needed, Stage shop-3-predeploy, Approve Never, Fence shop=3, Restore shop-3-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    ");
}

#[test]
fn what_down_scripts_drop_is_copied_before_where_the_spec_asks_for_that() {
    let asked = |given: Given| given.spec(|spec| spec.rollback.emergency_point = EmergencyPoint::BeforeDownScripts);
    let copying = |given: Given| {
        let steps = [StepName::Preflight, StepName::BackUp, StepName::Approve];
        let mut running = operation(&given.0, Kind::Rollback, 1, &steps).at(StepName::BackUp, StepState::Started);
        for step in &mut running.steps {
            if let Action::BackUp { reason, .. } = &mut step.action {
                *reason = PointReason::Emergency;
            }
        }
        given.running(running)
    };
    let rows = vec![
        ("down scripts", asked(reverted())),
        ("what a restore replaces is kept in any case", asked(reverted()).no_down(2)),
        (
            "a point can't carry what is there",
            asked(reverted()).with(|world| {
                if let Some(Seen::Known(database)) = &mut world.database {
                    database.uncarried.push("table old".to_owned());
                }
            }),
        ),
        ("the application is down", {
            let given = Given::failed_deploy(StepName::Migrate);
            let contained = operation(&given.0, Kind::Deploy, 3, &[StepName::Migrate, StepName::Fence]).failed_at(StepName::Migrate);
            let mut fenced = contained.clone();
            fenced.steps[1].state = StepState::Done;
            asked(given.running(fenced).closed(OperationState::Failed))
        }),
        ("it is under way", copying(asked(reverted()))),
        ("it is under way, and nobody asks for it any more", copying(reverted())),
    ];
    assert_snapshot!(table(rows), @r"
    down scripts
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, BackUp shop-3-emergency-6eefdf8f77, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    what a restore replaces is kept in any case
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Fence shop=3, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    a point can't carry what is there
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    the application is down
      Rollback 2 → 2 for 3: Fence shop=3, Preflight 2 [] database=Needed cache=Needed, Approve Never, RevertSchema 3 of 3, FlushCache shop:, Unfence shop=3, Verify 1m
    it is under way
      Run 1
    it is under way, and nobody asks for it any more
      Close Superseded
    ");
}

#[test]
fn a_failed_release_goes_back_by_itself_or_says_why_not() {
    let rows = vec![
        ("its checks failed", Given::failed_deploy(StepName::Verify)),
        ("its checks failed, and it can only be restored", Given::failed_deploy(StepName::Verify).no_down(3)),
        ("its migration stands half way", Given::failed_deploy(StepName::Migrate).half_way(3)),
        ("its migration failed cleanly", Given::failed_deploy(StepName::Migrate).applied(&[1, 2])),
        ("its migration failed on a copy", {
            let given = Given::two_releases().release(3, content(3, &[1, 2, 3]), ReleaseState::Deploying).asks(content(3, &[1, 2, 3]));
            let names = [StepName::Keep, StepName::Preflight, StepName::BackUp, StepName::RehearseMigrations, StepName::Migrate];
            let failed = operation(&given.0, Kind::Deploy, 3, &names).failed_at(StepName::RehearseMigrations);
            given.running(failed).closed(OperationState::Failed)
        }),
        (
            "no release before it is known good",
            Given::failed_deploy(StepName::Verify)
                .entry(1, |entry| entry.state = ReleaseState::Superseded)
                .entry(2, |entry| entry.state = ReleaseState::Superseded),
        ),
        (
            "no release before it is known good, and a fix is pushed",
            Given::failed_deploy(StepName::Verify)
                .entry(1, |entry| entry.state = ReleaseState::Superseded)
                .entry(2, |entry| entry.state = ReleaseState::Superseded)
                .asks(content(4, &[1, 2, 3])),
        ),
        ("going back by itself is off", Given::failed_deploy(StepName::Verify).spec(|spec| spec.rollback.automatic = false)),
        (
            "going back by itself is off, and the commit is reverted",
            Given::failed_deploy(StepName::Verify).spec(|spec| spec.rollback.automatic = false).asks(content(2, &[1, 2])),
        ),
        (
            "going back by itself is off, its migration failed half way, and the commit is reverted: what is deployed is not in sync",
            Given::failed_deploy(StepName::Migrate).half_way(3).spec(|spec| spec.rollback.automatic = false).asks(content(2, &[1, 2])),
        ),
        ("there is no way back", Given::failed_deploy(StepName::Verify).no_down(3).with(|world| world.points.clear())),
        (
            "there is no way back, and a fix is pushed",
            Given::failed_deploy(StepName::Verify).no_down(3).with(|world| world.points.clear()).asks(content(4, &[1, 2, 3])),
        ),
        ("what it would go back to is not kept", Given::failed_deploy(StepName::Verify).with(|world| drop(world.kept.remove(&2)))),
        (
            "what it would go back to is not kept, and a fix is pushed",
            Given::failed_deploy(StepName::Verify).with(|world| drop(world.kept.remove(&2))).asks(content(4, &[1, 2, 3])),
        ),
        (
            "what it would go back to is not kept, and a person pins another",
            Given::failed_deploy(StepName::Verify).with(|world| drop(world.kept.remove(&2))).pinned(1),
        ),
        ("a fix is pushed before the way back was begun: back first", Given::failed_deploy(StepName::Verify).asks(content(4, &[1, 2, 3]))),
        (
            "the database can't be seen",
            Given::failed_deploy(StepName::Verify).with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable")))),
        ),
        ("the source can't be seen", Given::failed_deploy(StepName::Verify).asks_unseen()),
        ("suspended", Given::failed_deploy(StepName::Verify).spec(|spec| spec.suspend = true)),
    ];
    assert_snapshot!(table(rows), @r"
    its checks failed
      Rollback 3 → 2 for 3: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    its checks failed, and it can only be restored
      Rollback 3 → 2 for 3: Preflight 2 [] database=Needed cache=Needed, Stage shop-3-predeploy, Approve Never, Fence shop=3, Restore shop-3-predeploy, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    its migration stands half way
      Rollback 2 → 2 for 3: Fence shop=3, Preflight 2 [] database=Needed cache=Needed, Stage shop-3-predeploy, Approve Never, Restore shop-3-predeploy, FlushCache shop:, Unfence shop=3, Verify 1m
    its migration failed cleanly
      Rollback 2 → 2 for 3: Preflight 2 [] database=Untouched cache=Needed, FlushCache shop:, Verify 1m
    its migration failed on a copy
      Rollback 2 → 2 for 3: Preflight 2 [] database=Untouched cache=Needed, FlushCache shop:, Verify 1m
    no release before it is known good
      Stalled MissingRollbackTarget
    no release before it is known good, and a fix is pushed
      Deploy 3 → 4: Keep 4, Preflight 4 [] database=Untouched cache=Untouched, Deploy 4, Verify 1m
    going back by itself is off
      Stalled RollbackDisabled
    going back by itself is off, and the commit is reverted
      Rollback 3 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    going back by itself is off, its migration failed half way, and the commit is reverted: what is deployed is not in sync
      Rollback 2 → 2: Fence shop=3, Preflight 2 [] database=Needed cache=Needed, Stage shop-3-predeploy, Approve Never, Restore shop-3-predeploy, FlushCache shop:, Unfence shop=3, Verify 1m
    there is no way back
      Stalled NoWayBack
    there is no way back, and a fix is pushed
      Deploy 3 → 4: Keep 4, Preflight 4 [] database=Untouched cache=Untouched, Deploy 4, Verify 1m
    what it would go back to is not kept
      Waiting ReleaseNotKept
    what it would go back to is not kept, and a fix is pushed
      Deploy 3 → 4: Keep 4, Preflight 4 [] database=Untouched cache=Untouched, Deploy 4, Verify 1m
    what it would go back to is not kept, and a person pins another
      Rollback 3 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3 2 of 3, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    a fix is pushed before the way back was begun: back first
      Rollback 3 → 2 for 3: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    the database can't be seen
      Waiting DatabaseUnavailable
    the source can't be seen
      Rollback 3 → 2 for 3: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    suspended
      Resting Suspended
    ");
}

/// The automatic rollback from release 3 to release 2 failed at `step`.
fn failed_rollback(step: StepName) -> Given {
    let steps = [
        StepName::Preflight,
        StepName::Fence,
        StepName::RevertSchema,
        StepName::Restore,
        StepName::Deploy,
        StepName::Unfence,
        StepName::Verify,
    ];
    let given = Given::failed_deploy(StepName::Verify).with(|world| world.status.operation = None);
    let mut failed = operation(&given.0, Kind::Rollback, 2, &steps).failed_at(step);
    failed.remediates = Some(3);
    given.running(failed).closed(OperationState::Failed)
}

#[test]
fn a_failed_rollback_tries_the_way_that_is_left_once_and_then_stops() {
    let rows = vec![
        ("down scripts failed: restore", failed_rollback(StepName::RevertSchema).half_way(3)),
        (
            "down scripts failed, and Restore is not allowed",
            failed_rollback(StepName::RevertSchema).half_way(3).spec(|spec| spec.rollback.database = vec![Method::RevertSchema]),
        ),
        (
            "down scripts failed, and the database can't be seen",
            failed_rollback(StepName::RevertSchema).with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable")))),
        ),
        (
            "down scripts failed, and what it leads to is not kept",
            failed_rollback(StepName::RevertSchema).with(|world| drop(world.kept.remove(&2))),
        ),
        (
            "down scripts failed, what it leads to is not kept, and a fix is pushed",
            failed_rollback(StepName::RevertSchema).with(|world| drop(world.kept.remove(&2))).asks(content(4, &[1, 2, 3])),
        ),
        ("the restore failed", failed_rollback(StepName::Restore).half_way(3)),
        ("its checks failed: a rollback is not rolled back", failed_rollback(StepName::Verify).deployed(2).applied(&[1, 2])),
        (
            "its checks failed, and somebody changed the spec",
            failed_rollback(StepName::Verify).deployed(2).applied(&[1, 2]).with(|world| world.generation = 2),
        ),
        (
            "its checks failed, and a fix is pushed",
            failed_rollback(StepName::Verify).deployed(2).applied(&[1, 2]).asks(content(4, &[1, 2])),
        ),
        (
            "it was superseded, and git came round to the failed release",
            failed_rollback(StepName::Restore).with(|world| {
                if let Some(operation) = &mut world.status.operation {
                    operation.state = OperationState::Superseded;
                }
            }),
        ),
    ];
    assert_snapshot!(table(rows), @r"
    down scripts failed: restore
      Rollback 3 → 2 for 3: Fence shop=3, Preflight 2 [] database=Needed cache=Needed, Stage shop-3-predeploy, Approve Never, Restore shop-3-predeploy, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    down scripts failed, and Restore is not allowed
      Stalled RollbackFailed
    down scripts failed, and the database can't be seen
      Waiting DatabaseUnavailable
    down scripts failed, and what it leads to is not kept
      Waiting ReleaseNotKept
    down scripts failed, what it leads to is not kept, and a fix is pushed
      Deploy 3 → 4: Keep 4, Preflight 4 [] database=Untouched cache=Untouched, Deploy 4, Unfence shop=3, Verify 1m
    the restore failed
      Stalled RollbackFailed
    its checks failed: a rollback is not rolled back
      Stalled RollbackFailed
    its checks failed, and somebody changed the spec
      Rollback 2 → 2 for 3: Preflight 2 [] database=Untouched cache=Needed, FlushCache shop:, Verify 1m
    its checks failed, and a fix is pushed
      Deploy 2 → 4: Keep 4, Preflight 4 [] database=Untouched cache=Untouched, Deploy 4, Verify 1m
    it was superseded, and git came round to the failed release
      Rollback 3 → 2 for 3: Fence shop=3, Preflight 2 [] database=Needed cache=Needed, Approve Never, RevertSchema 3 of 3, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    ");
}

#[test]
fn rollback_to_rules_while_it_is_there() {
    let rows = vec![
        ("a known good release", Given::two_releases().pinned(1)),
        ("the one that is deployed", Given::two_releases().pinned(2)),
        (
            "the one that is deployed, under the remains of a later one",
            Given::two_releases().release(3, content(3, &[1, 2, 3]), ReleaseState::Superseded).applied(&[1, 2, 3]).pinned(2),
        ),
        ("an unknown one", Given::two_releases().pinned(9)),
        ("an undone one", Given::two_releases().entry(1, |entry| entry.state = ReleaseState::Undone).pinned(1)),
        ("the source can't be seen", Given::two_releases().asks_unseen().pinned(1)),
        (
            "it was removed, and git asks for the undone release again",
            Given::two_releases()
                .entry(2, |entry| entry.state = ReleaseState::Undone)
                .entry(2, |entry| entry.undone_at = Some(entry.started_at))
                .deployed(1)
                .applied(&[1]),
        ),
    ];
    assert_snapshot!(table(rows), @r"
    a known good release
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    the one that is deployed
      Ready PinnedByRollbackTo
    the one that is deployed, under the remains of a later one
      Rollback 2 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, FlushCache shop:, Unfence shop=3, Verify 1m
    an unknown one
      Stalled MissingRollbackTarget
    an undone one
      Stalled MissingRollbackTarget
    the source can't be seen
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    it was removed, and git asks for the undone release again
      Deploy 1 → 3: Keep 3, Preflight 3 [2] database=Needed cache=Untouched, BackUp shop-3-predeploy, Migrate [2] of 3, Deploy 3, Verify 1m
    ");
}
