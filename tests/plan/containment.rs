//! A migration that failed half way: a fence before the operation ends, and what takes it down again.

use backout::{
    api::operation::{Action, Kind, OperationState, Scale, Step, StepName, StepState},
    plan::{
        Decision, decide,
        input::{Life, Seen},
        journal,
    },
};
use insta::assert_snapshot;

use super::world::{Given, Progress as _, at, content, operation, told, unseen};

const DEPLOY: [StepName; 6] =
    [StepName::Keep, StepName::Preflight, StepName::BackUp, StepName::Migrate, StepName::Deploy, StepName::Verify];

/// Release 3's deploy runs, and its migration has just failed half way.
fn failing() -> Given {
    let given = Given::failed_deploy(StepName::Migrate).half_way(3);
    let operation = operation(&given.0, Kind::Deploy, 3, &DEPLOY).failed_at(StepName::Migrate);
    given.running(operation)
}

/// And its fence is there, in this state.
fn fenced(state: StepState, change: impl FnOnce(&mut Step)) -> Given {
    failing().with(|world| {
        let workloads = vec![Scale { name: "shop".to_owned(), replicas: 3 }];
        world.status = journal::contained(world.status.clone(), workloads).expect("an operation runs");
        let steps = world.status.operation.iter_mut().flat_map(|operation| &mut operation.steps);
        let fence = steps.last().expect("the fence was added");
        fence.state = state;
        fence.started_at = (state != StepState::Pending).then(|| at(820));
        change(fence);
    })
}

/// As [`fenced`], and the operation ended behind it.
fn contained() -> Given {
    fenced(StepState::Done, |_| {}).closed(OperationState::Failed).workload(|workload| workload.replicas = 0)
}

#[test]
fn what_a_failed_migration_left_is_fenced_off_before_the_operation_ends() {
    let rows = [
        ("half way", failing()),
        ("the database was not looked at", failing().with(|world| world.database = None)),
        ("the database is away", failing().with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable"))))),
        (
            "and a person asks to decide anew",
            failing().with(|world| {
                world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable")));
                world.reset_at = Some("now".to_owned());
            }),
        ),
        ("the workloads can't be seen", failing().with(|world| world.workloads = Seen::Unknown(unseen("ApiServerUnavailable")))),
        ("it failed cleanly", failing().applied(&[1, 2])),
        ("suspended since", failing().spec(|spec| spec.suspend = true)),
        ("the spec names other workloads since", failing().spec(|spec| spec.target.kubernetes.workloads[0].name = "other".to_owned())),
        ("the fence is to go up", fenced(StepState::Pending, |_| {})),
        ("it goes up", fenced(StepState::Started, |_| {})),
        ("it is to be tried again later", fenced(StepState::Started, |fence| fence.retry_at = Some(at(1_100)))),
        ("it is up", fenced(StepState::Done, |_| {})),
        ("it could not be put up", fenced(StepState::Failed, |_| {})),
    ];
    let decided: Vec<String> = rows.iter().map(|(row, given)| format!("{row}: {}", given.decides())).collect();
    assert_snapshot!(decided.join("\n"), @r"
    half way: Contain shop=3
    the database was not looked at: LookAtDatabase
    the database is away: Waiting DatabaseUnavailable
    and a person asks to decide anew: Close Failed
    the workloads can't be seen: Waiting ApiServerUnavailable
    it failed cleanly: Close Failed
    suspended since: Contain shop=3
    the spec names other workloads since: Close Failed
    the fence is to go up: Run 6
    it goes up: Run 6
    it is to be tried again later: Waiting Progressing
    it is up: Close Failed
    it could not be put up: Close Failed
    ");
}

#[test]
fn the_fence_comes_down_where_the_database_is_what_a_release_runs_on() {
    let by_hand = || contained().spec(|spec| spec.rollback.automatic = false);
    let stuck = || contained().with(|world| world.points.clear());
    let rows = [
        ("a rollback answers", contained()),
        ("going back by itself is off", by_hand()),
        ("and a person changed the Release", by_hand().with(|world| world.generation += 1)),
        ("and mended the schema", by_hand().applied(&[1, 2])),
        ("and mended it while suspended", by_hand().applied(&[1, 2]).spec(|spec| spec.suspend = true)),
        ("and the database is away", by_hand().with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable"))))),
        ("and was not looked at", by_hand().with(|world| world.database = None)),
        ("and the commit is reverted", by_hand().asks(content(2, &[1, 2]))),
        ("and something newer is pushed", by_hand().asks(content(4, &[1, 2, 3]))),
        ("and release 1 is asked for", by_hand().pinned(1)),
        ("there is no way back", stuck()),
        ("and something newer is pushed", stuck().asks(content(4, &[1, 2, 3]))),
        ("and a person mended the schema", stuck().applied(&[1, 2])),
        (
            "the first release failed",
            contained().with(|world| world.status.history.retain(|entry| entry.release == 3)).with(|world| world.status.release = None),
        ),
    ];
    let decided: Vec<String> = rows.iter().map(|(row, given)| format!("{row}: {}", given.decides())).collect();
    assert_snapshot!(decided.join("\n"), @r"
    a rollback answers: Rollback 2 → 2 for 3: Fence shop=3, Preflight 2 [] database=Needed cache=Needed, Stage shop-3-predeploy, Approve Never, Restore shop-3-predeploy, FlushCache shop:, Unfence shop=3, Verify 1m
    going back by itself is off: Stalled RollbackDisabled
    and a person changed the Release: Stalled RollbackDisabled
    and mended the schema: Repair 2 → 2: Deploy 2, Unfence shop=3, Verify 1m
    and mended it while suspended: Resting Suspended
    and the database is away: Stalled RollbackDisabled
    and was not looked at: LookAtDatabase
    and the commit is reverted: Rollback 2 → 2: Fence shop=3, Preflight 2 [] database=Needed cache=Needed, Stage shop-3-predeploy, Approve Never, Restore shop-3-predeploy, FlushCache shop:, Unfence shop=3, Verify 1m
    and something newer is pushed: Stalled PreflightFailed
    and release 1 is asked for: Rollback 2 → 1: Fence shop=3, Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    there is no way back: Stalled NoWayBack
    and something newer is pushed: Stalled PreflightFailed
    and a person mended the schema: Rollback 2 → 2 for 3: Preflight 2 [] database=Untouched cache=Needed, FlushCache shop:, Unfence shop=3, Verify 1m
    the first release failed: Stalled MissingRollbackTarget
    ");
}

#[test]
fn people_are_told_what_stands_half_way_and_whether_pods_run_on_it() {
    let by_hand = |given: Given| given.spec(|spec| spec.rollback.automatic = false);
    let unfenced = || Given::failed_deploy(StepName::Migrate).half_way(3);
    let rows = [
        ("going back by itself is off", by_hand(contained())),
        ("suspended", contained().spec(|spec| spec.suspend = true)),
        ("there is no way back", contained().with(|world| world.points.clear())),
        ("the fence did not go up", by_hand(fenced(StepState::Failed, |_| {}).closed(OperationState::Failed))),
        ("it could not be looked at when the migration failed", by_hand(unfenced())),
        ("the migration failed cleanly", by_hand(unfenced()).applied(&[1, 2])),
        ("nothing was migrated", by_hand(Given::failed_deploy(StepName::Verify))),
    ];
    let said: Vec<String> = rows
        .iter()
        .map(|(row, given)| {
            let Decision::Rest { verdict, .. } = decide(&given.0) else { panic!("{row}: {}", given.decides()) };
            let tail = verdict.message.split_once("it went wrong. ").map_or("nothing more", |(_, tail)| tail);
            let tail = if verdict.message.contains("half way") || tail.contains("fence") { &verdict.message } else { tail };
            format!("{row}\n  {} {}: {tail}", told(&decide(&given.0)), verdict.phase)
        })
        .collect();
    assert_snapshot!(said.join("\n"), @r"
    going back by itself is off
      Stalled RollbackDisabled Stalled: release 3 (3.0.0) failed and spec.rollback.automatic is false: set spec.rollbackTo, push a fix, or annotate the Release with backout.dev/resetAt. Migrate: it went wrong. migration 3 stands half way; the fence is up: no pod runs of shop (had 3)
    suspended
      Resting Suspended Suspended: spec.suspend is true; set it to false to go on. migration 3 stands half way; the fence is up: no pod runs of shop (had 3)
    there is no way back
      Stalled NoWayBack Stalled: the database can't be taken back to release 2 (2.0.0): RevertSchema: migration 3 stands half way; Restore: BackupPoint shop-3-predeploy is gone; remove the cause, or push a release that goes forward. migration 3 stands half way; the fence is up: no pod runs of shop (had 3)
    the fence did not go up
      Stalled RollbackDisabled Stalled: release 3 (3.0.0) failed and spec.rollback.automatic is false: set spec.rollbackTo, push a fix, or annotate the Release with backout.dev/resetAt. Migrate: it went wrong. migration 3 stands half way; the fence could not be put up: pods may still run of shop (had 3)
    it could not be looked at when the migration failed
      Stalled RollbackDisabled Stalled: release 3 (3.0.0) failed and spec.rollback.automatic is false: set spec.rollbackTo, push a fix, or annotate the Release with backout.dev/resetAt. Migrate: it went wrong. migration 3 stands half way, and the workloads run on it: until it can be put right, they can be stopped with kubectl -n shops scale --replicas=0 deployment/shop
    the migration failed cleanly
      Stalled RollbackDisabled Stalled: nothing more
    nothing was migrated
      Stalled RollbackDisabled Stalled: nothing more
    ");
}

#[test]
fn a_release_that_is_deleted_leaves_no_pod_on_a_half_migrated_schema() {
    let deleted = |given: Given| given.with(|world| world.life = Life::Leaving);
    let stuck = fenced(StepState::Started, |fence| (fence.retry_at, fence.attempt) = (Some(at(1_100)), 5));
    let rows = [
        ("half way", deleted(failing())),
        ("the database was not looked at", deleted(failing()).with(|world| world.database = None)),
        ("the database is away", deleted(failing()).with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable"))))),
        ("the fence is to go up", deleted(fenced(StepState::Pending, |_| {}))),
        ("it is to be tried again later", deleted(fenced(StepState::Started, |fence| fence.retry_at = Some(at(1_100))))),
        ("it is given up", deleted(stuck)),
        ("it is up", deleted(fenced(StepState::Done, |_| {}))),
        ("the operation has ended", deleted(contained())),
        ("and the schema is mended", deleted(contained()).applied(&[1, 2])),
    ];
    let decided: Vec<String> = rows.iter().map(|(row, given)| format!("{row}: {}", given.decides())).collect();
    assert_snapshot!(decided.join("\n"), @r"
    half way: Contain shop=3
    the database was not looked at: LookAtDatabase
    the database is away: Close Failed
    the fence is to go up: Run 6
    it is to be tried again later: Waiting Progressing
    it is given up: Close Failed
    it is up: Close Failed
    the operation has ended: Leave 2 → 2: Discard , Unfence shop=3
    and the schema is mended: Leave 2 → 2: Unfence shop=3, Discard
    ");
}

#[test]
fn a_fence_after_a_failed_step_is_a_legal_record() {
    for state in [StepState::Pending, StepState::Started, StepState::Done, StepState::Failed] {
        let operation = fenced(state, |_| {}).0.status.operation.expect("it is there");
        assert_eq!(journal::legal(&operation), Ok(()), "{state:?}");
        let open = journal::fence_of(&operation).is_some();
        assert_eq!(open, state != StepState::Pending, "{state:?}");
        assert!(matches!(operation.steps.last().map(|step| &step.action), Some(Action::Fence { .. })));
    }
}
