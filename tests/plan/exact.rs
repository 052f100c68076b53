//! After the point of no return: the message says what runs, whose data are live, and which commands there are to choose from.

use backout::{
    api::operation::{Kind, OperationState, StepName},
    plan::{Decision, decide, input::Seen},
};
use insta::assert_snapshot;

use super::world::{Given, Progress, content, operation, unseen};

/// A rollback from release 2 to release 1, in this way, failed at `step` and was closed.
fn failed(change: StepName, step: StepName) -> Given {
    let steps = [StepName::Preflight, StepName::Fence, change, StepName::Deploy, StepName::FlushCache, StepName::Unfence, StepName::Verify];
    let given = Given::two_releases().asks(content(1, &[1])).spec(|spec| spec.rollback.database = Vec::new());
    let failed = operation(&given.0, Kind::Rollback, 1, &steps).failed_at(step);
    given.running(failed).closed(OperationState::Failed)
}

fn swapped(given: Given) -> Given {
    given.database(|database| database.swapped_by = Some("0d9c/3".to_owned()))
}

fn told(given: &Given) -> String {
    match decide(&given.0) {
        Decision::Rest { verdict, .. } => format!("{}: {}", verdict.reason, verdict.message),
        decision => format!("{decision:?}"),
    }
}

#[test]
fn a_stop_behind_the_fence_names_the_state_and_the_commands() {
    let rows = [
        ("down scripts half way", failed(StepName::RevertSchema, StepName::RevertSchema).half_way(2)),
        ("the swap did not happen", failed(StepName::Restore, StepName::Restore).half_way(2)),
        ("it happened, and then the step failed", swapped(failed(StepName::Restore, StepName::Restore).half_way(2))),
        (
            "the fence could not be taken down, and the database is away",
            failed(StepName::Restore, StepName::Unfence).with(|world| {
                world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable")));
            }),
        ),
        (
            "the release did not come up on the restored tables",
            swapped(failed(StepName::Restore, StepName::Verify).deployed(1).applied(&[1])),
        ),
    ];
    let told: Vec<String> = rows.iter().map(|(row, given)| format!("{row}\n  {}", told(given))).collect();
    assert_snapshot!(told.join("\n"), @r#"
    down scripts half way
      RollbackFailed: rolling back to release 1 (1.0.0) stopped at RevertSchema: it went wrong. Now the fence is up: no pod runs of shop (had 3); of the down scripts of 0003 not all were run: migrations applied now are 0001, 0002, and migration 2 stands half way. Choose: mend what it names and try again: kubectl -n shops annotate --overwrite release/shop backout.dev/resetAt="$(date +%s)"; run another known good release: kubectl -n shops patch release shop --type merge -p '{"spec":{"rollbackTo":{"release":2}}}'; or push a fix
    the swap did not happen
      RollbackFailed: rolling back to release 1 (1.0.0) stopped at Restore: it went wrong. Now the fence is up: no pod runs of shop (had 3); the live tables are those from before: they were not replaced. Choose: mend what it names and try again: kubectl -n shops annotate --overwrite release/shop backout.dev/resetAt="$(date +%s)"; run another known good release: kubectl -n shops patch release shop --type merge -p '{"spec":{"rollbackTo":{"release":2}}}'; or push a fix
    it happened, and then the step failed
      RollbackFailed: rolling back to release 1 (1.0.0) stopped at Restore: it went wrong. Now the fence is up: no pod runs of shop (had 3); the live tables are those of shop-3-predeploy, and those that they replaced are kept in schema aside. Choose: mend what it names and try again: kubectl -n shops annotate --overwrite release/shop backout.dev/resetAt="$(date +%s)"; run another known good release: kubectl -n shops patch release shop --type merge -p '{"spec":{"rollbackTo":{"release":2}}}'; bring back the tables that were replaced: kubectl -n shops annotate --overwrite release/shop backout.dev/undo=3; or push a fix
    the fence could not be taken down, and the database is away
      RollbackFailed: rolling back to release 1 (1.0.0) stopped at Unfence: it went wrong. Now the fence is up: no pod runs of shop (had 3); the live tables are those of shop-3-predeploy, and those that they replaced are kept in schema aside. Choose: mend what it names and try again: kubectl -n shops annotate --overwrite release/shop backout.dev/resetAt="$(date +%s)"; run another known good release: kubectl -n shops patch release shop --type merge -p '{"spec":{"rollbackTo":{"release":2}}}'; bring back the tables that were replaced: kubectl -n shops annotate --overwrite release/shop backout.dev/undo=3; or push a fix
    the release did not come up on the restored tables
      RollbackFailed: rolling back to release 1 (1.0.0) stopped at Verify: it went wrong. Now the fence is down: the workloads are scaled as they were; the live tables are those of shop-3-predeploy, and those that they replaced are kept in schema aside. Choose: mend what it names and try again: kubectl -n shops annotate --overwrite release/shop backout.dev/resetAt="$(date +%s)"; run another known good release: kubectl -n shops patch release shop --type merge -p '{"spec":{"rollbackTo":{"release":2}}}'; bring back the tables that were replaced: kubectl -n shops annotate --overwrite release/shop backout.dev/undo=3; or push a fix
    "#);
}

#[test]
fn a_stop_whose_state_only_the_database_knows_looks_at_it() {
    let given = failed(StepName::RevertSchema, StepName::RevertSchema).with(|world| world.database = None);
    assert_eq!(decide(&given.0), Decision::LookAtDatabase);
}

#[test]
fn where_no_rollback_can_begin_it_is_said_that_the_workloads_run_on_a_half_migrated_schema() {
    let half_migrated = || Given::failed_deploy(StepName::Migrate).half_way(3).spec(|spec| spec.rollback.automatic = false);
    let rows = [
        ("going back by itself is off", half_migrated()),
        ("suspended", half_migrated().spec(|spec| spec.suspend = true)),
        ("there is no way back", half_migrated().spec(|spec| spec.rollback.automatic = true).with(|world| world.points.clear())),
        ("the migration failed cleanly", half_migrated().applied(&[1, 2])),
        ("nothing was migrated", Given::failed_deploy(StepName::Verify).spec(|spec| spec.rollback.automatic = false)),
    ];
    let warned: Vec<String> = rows
        .iter()
        .map(|(row, given)| {
            let told = told(given);
            let (reason, message) = told.split_once(": ").expect("a reason and a message");
            let warning = message.find("migration 3 stands half way, and").and_then(|at| message.get(at..));
            format!("{row}\n  {reason}: {}", warning.unwrap_or("no warning"))
        })
        .collect();
    assert_snapshot!(warned.join("\n"), @r"
    going back by itself is off
      RollbackDisabled: migration 3 stands half way, and the workloads run on it: until it can be put right, they can be stopped with kubectl -n shops scale --replicas=0 deployment/shop
    suspended
      Suspended: migration 3 stands half way, and the workloads run on it: until it can be put right, they can be stopped with kubectl -n shops scale --replicas=0 deployment/shop
    there is no way back
      NoWayBack: migration 3 stands half way, and the workloads run on it: until it can be put right, they can be stopped with kubectl -n shops scale --replicas=0 deployment/shop
    the migration failed cleanly
      RollbackDisabled: no warning
    nothing was migrated
      RollbackDisabled: no warning
    ");
    let unlooked = half_migrated().with(|world| world.database = None);
    assert_eq!(decide(&unlooked.0), Decision::LookAtDatabase);
}
