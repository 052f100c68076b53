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
