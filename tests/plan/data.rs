//! The data alone: a backup point by name, the undo of a swap, replaced tables whose time has passed, and databases and
//! workloads that are somebody else's.

use backout::{
    api::{
        Span,
        backup_point::{RehearsalOutcome, Rehearsed},
        database::RehearsePolicy,
        operation::{Action, Kind, OperationState, StepName, StepState},
        release::{CarryForward, RollbackTo},
        status::{Aside, AsideState, Hold, ReleaseState, ReleaseStatus},
    },
    plan::{
        Decision, decide,
        input::Seen,
        journal::{self, Outcome},
    },
};
use insta::assert_snapshot;

use super::{
    table,
    world::{Given, Progress, at, content, operation, unseen},
};

fn pinned(point: &str) -> Given {
    let pin = RollbackTo { release: None, version: None, backup_point: Some(point.to_owned()) };
    Given::two_releases().spec(|spec| spec.rollback_to = Some(pin)).with(|world| {
        world.points.values_mut().for_each(|point| point.migrations = Some(vec![1, 2]));
    })
}

fn of_version(version: &str) -> Given {
    let pin = RollbackTo { release: None, version: Some(version.to_owned()), backup_point: None };
    Given::two_releases().spec(|spec| spec.rollback_to = Some(pin))
}

/// Release 2 was taken back by operation 7, whose swap can be undone.
fn rolled_back() -> Given {
    Given::two_releases()
        .entry(2, |entry| entry.state = ReleaseState::Undone)
        .entry(2, |entry| entry.undone_at = Some(at(900)))
        .entry(2, |entry| entry.verified_at = Some(at(3)))
        .deployed(1)
        .applied(&[1])
        .asks(content(1, &[1]))
        .with(|world| {
            world.status.asides = vec![Aside {
                schema: "shop_backout_x_7_aside".to_owned(),
                operation: 7,
                from: Some(2),
                to: 1,
                at: at(900),
                until: at(9000),
                state: AsideState::Kept,
            }];
        })
}

fn undo(token: &str) -> Given {
    rolled_back().with(|world| world.undo = Some(token.to_owned()))
}

#[test]
fn rollback_to_a_backup_point_brings_its_data_back_once_under_the_release_that_runs() {
    let rows = vec![
        ("a point that fits", pinned("shop-2-predeploy")),
        ("it was done", pinned("shop-2-predeploy").with(|world| world.status.restored_point = Some("shop-2-predeploy".to_owned()))),
        ("no such point", pinned("shop-9-predeploy")),
        (
            "a point with another schema",
            pinned("shop-2-predeploy").with(|world| world.points.values_mut().for_each(|it| it.migrations = Some(vec![1]))),
        ),
        ("nothing is deployed", pinned("shop-2-predeploy").with(|world| world.status.release = None)),
        ("by version", of_version("1.0.0")),
        ("by a version that never was", of_version("7.0.0")),
    ];
    assert_snapshot!(table(rows), @r"
    a point that fits
      Restore 2 → 2: Preflight 2 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Fence shop=3, Restore shop-2-predeploy, FlushCache shop:, Unfence shop=3, Verify 1m
    it was done
      Ready PinnedByRollbackTo
    no such point
      Stalled NoWayBack
    a point with another schema
      Stalled NoWayBack
    nothing is deployed
      Stalled NoWayBack
    by version
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    by a version that never was
      Stalled MissingRollbackTarget
    ");
}

#[test]
fn what_is_carried_forward_is_in_the_plan_that_is_approved() {
    for (carry, expected) in [(CarryForward::None, false), (CarryForward::Inserts, true)] {
        let Given(world) = pinned("shop-2-predeploy").spec(|spec| spec.rollback.carry_forward = carry);
        let Decision::Begin(begun) = decide(&world) else { panic!("the restore can be begun") };
        let restore = begun.steps.iter().find_map(|step| match step.action {
            Action::Restore { carry, .. } => Some(carry),
            _ => None,
        });
        assert_eq!(restore, Some(carry));
        let told = begun.plan.steps.iter().any(|step| step.contains("rows inserted since the point are carried forward"));
        assert_eq!(told, expected);
    }
}

#[test]
fn a_swap_is_undone_by_its_operation_s_number_while_what_it_replaced_is_kept() {
    let rows = vec![
        ("the last swap", undo("7")),
        ("it was acted on", undo("7").with(|world| world.status.last_handled_undo = Some("7".to_owned()))),
        ("another operation", undo("6")),
        ("nothing is kept", undo("7").with(|world| world.status.asides.clear())),
        ("a release that had failed is not verified again", undo("7").entry(2, |entry| entry.verified_at = None)),
        (
            "no release ran on what was replaced: its schema stood half way",
            undo("7").with(|world| world.status.asides.iter_mut().for_each(|aside| aside.from = None)),
        ),
    ];
    assert_snapshot!(table(rows), @r"
    the last swap
      Undo 1 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, Restore shop_backout_x_7_aside, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    it was acted on
      Ready ReconciliationSucceeded
    another operation
      Refuse 6: backout.dev/undo asks to undo operation 6, but only operation 7, the last that replaced tables, can be undone, until 2023-11-15T00:43:20Z
    nothing is kept
      Refuse 7: backout.dev/undo asks to undo operation 7, but no replaced tables are kept
    a release that had failed is not verified again
      Undo 1 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, Restore shop_backout_x_7_aside, Deploy 2, FlushCache shop:, Unfence shop=3
    no release ran on what was replaced: its schema stood half way
      Refuse 7: backout.dev/undo asks to undo operation 7, but no release ran on the tables that it replaced
    ");
}

/// The status after the restore of an operation with these steps, from release 2 to release 1.
fn swapped(given: Given, kind: Kind, steps: &[StepName], shadow: &str) -> ReleaseStatus {
    let mut running = operation(&given.0, kind, 1, steps).at(StepName::Restore, StepState::Started);
    running.from = Some(2);
    for step in &mut running.steps {
        if let Action::Restore { shadow: planned, .. } = &mut step.action {
            shadow.clone_into(planned);
        }
    }
    let index = running.steps.iter().position(|step| step.name == StepName::Restore).expect("the row has a restore");
    let outcome = Outcome::Done { message: "swapped".to_owned() };
    let status = given.running(running).0.status;
    journal::settled(status, index, &outcome, Span::seconds(30), Span::seconds(1800), at(950)).expect("the restore runs")
}

#[test]
fn what_was_replaced_names_the_release_that_ran_on_it_if_one_did() {
    let from = |steps: &[StepName]| swapped(Given::two_releases(), Kind::Rollback, steps, "shadow").asides.first().and_then(|it| it.from);
    for (row, steps, expected) in [
        ("the application served until the fence", vec![StepName::Preflight, StepName::Fence, StepName::Restore], Some(2)),
        ("it was down before, or the schema stood half way", vec![StepName::Fence, StepName::Preflight, StepName::Restore], None),
    ] {
        assert_eq!(from(&steps), expected, "{row}");
    }
}

#[test]
fn a_swap_back_makes_the_releases_live_again_that_had_shaped_those_tables() {
    let steps = [StepName::Preflight, StepName::Fence, StepName::Restore];
    let states = |given: Given, shadow: &str| {
        let status = swapped(given, Kind::Undo, &steps, shadow);
        status.history.iter().map(|entry| (entry.release, entry.state, entry.undone_at.is_some())).collect::<Vec<_>>()
    };
    let failed = |given: Given| given.entry(2, |entry| entry.state = ReleaseState::Failed);
    let later = |given: Given| given.entry(2, |entry| entry.started_at = at(901));
    let (aside, good) = ("shop_backout_x_7_aside", (1, ReleaseState::KnownGood, false));
    for (row, given, shadow, expected) in [
        ("known good before", rolled_back(), aside, (2, ReleaseState::KnownGood, false)),
        ("it had failed", failed(rolled_back()), aside, (2, ReleaseState::Failed, false)),
        ("it came after them", later(rolled_back()), aside, (2, ReleaseState::Undone, true)),
        ("another schema is swapped in", rolled_back(), "shadow", (2, ReleaseState::Undone, true)),
    ] {
        assert_eq!(states(given, shadow), [expected, good], "{row}");
    }
}

#[test]
fn what_a_swap_replaced_is_accounted_for_from_the_moment_in_which_it_may_be_there() {
    let restoring = |state| {
        let given = Given::two_releases();
        let running =
            operation(&given.0, Kind::Rollback, 1, &[StepName::Preflight, StepName::Fence, StepName::Restore]).at(StepName::Restore, state);
        given.running(running).0.status
    };
    let told = |status: &ReleaseStatus| -> Vec<String> {
        let told = |aside: &Aside| format!("{} {:?} of {} {:?} → {}", aside.schema, aside.state, aside.operation, aside.from, aside.to);
        status.asides.iter().map(told).collect()
    };
    let begun = journal::started(restoring(StepState::Pending), 2, at(1000)).expect("it is next");
    assert_eq!(told(&begun), ["aside Expected of 3 Some(2) → 1"]);
    let again = journal::started(begun, 2, at(1010)).expect("it is tried again");
    assert_eq!(told(&again), ["aside Expected of 3 Some(2) → 1"]);
    let done = Outcome::Done { message: "swapped".to_owned() };
    let swapped = journal::settled(again, 2, &done, Span::seconds(30), Span::seconds(1800), at(1020)).expect("it was begun");
    assert_eq!(told(&swapped), ["aside Kept of 3 Some(2) → 1"]);
    assert_eq!(swapped.asides.first().map(|aside| aside.at), Some(at(1020)));
}

#[test]
fn a_swap_that_nobody_came_to_write_down_can_be_undone_where_the_database_says_that_it_happened() {
    let expected = |token: &str| {
        undo(token).with(|world| {
            let older = world.status.asides.first().cloned().expect("the fixture has one");
            world.status.asides.insert(0, Aside { operation: 8, state: AsideState::Expected, ..older });
        })
    };
    let swapped = |given: Given, by: &str| given.database(|database| database.swapped_by = Some(by.to_owned()));
    let rows = vec![
        ("it happened", swapped(expected("8"), "0d9c/8")),
        ("it did not", swapped(expected("8"), "0d9c/7")),
        ("it did not, and the one before is asked for", swapped(expected("7"), "0d9c/7")),
        ("nobody has looked yet", expected("8").with(|world| world.database = None)),
        ("nobody can look", expected("8").with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable"))))),
        (
            "its time has passed, whether it is there or not",
            expected("8").with(|world| {
                world.undo = None;
                world.status.asides.iter_mut().filter(|aside| aside.operation == 8).for_each(|aside| {
                    aside.schema = "shop_backout_x_8_aside".to_owned();
                    aside.until = at(999);
                });
            }),
        ),
    ];
    assert_snapshot!(table(rows), @r"
    it happened
      Undo 1 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, Restore shop_backout_x_7_aside, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    it did not
      Refuse 8: backout.dev/undo asks to undo operation 8, but only operation 7, the last that replaced tables, can be undone, until 2023-11-15T00:43:20Z
    it did not, and the one before is asked for
      Undo 1 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, Restore shop_backout_x_7_aside, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    nobody has looked yet
      LookAtDatabase
    nobody can look
      Waiting DatabaseUnavailable
    its time has passed, whether it is there or not
      Cleanup 1 → 1: Discard shop_backout_x_8_aside
    ");
}

#[test]
fn an_undo_that_did_not_come_to_its_end_is_tried_again_by_its_token_once_a_person_says_so() {
    let ended = |end| {
        let given = undo("7");
        let Decision::Begin(begun) = decide(&given.0) else { panic!("the undo can be begun") };
        let given = given.with(|world| {
            world.status = journal::opened(world.status.clone(), *begun);
            let steps = world.status.operation.iter_mut().flat_map(|operation| &mut operation.steps);
            steps.take(1).for_each(|step| {
                step.state = if end == OperationState::Failed { StepState::Failed } else { StepState::Started };
                step.started_at = Some(at(940));
            });
        });
        given.closed(end)
    };
    let reset = |given: Given| given.with(|world| world.status = journal::reset(world.status.clone(), "now".to_owned()));
    let set_again = |given: Given| {
        given.with(|world| {
            world.status = journal::looked(world.status.clone(), journal::Look { undo: None, pinned_point: None });
        })
    };
    let rows = vec![
        ("it failed: not by itself", ended(OperationState::Failed)),
        ("it failed, and was reset", reset(ended(OperationState::Failed))),
        ("it gave way: not by itself", ended(OperationState::Superseded)),
        ("it gave way, and was reset", reset(ended(OperationState::Superseded))),
        ("it gave way, and the annotation was removed and set again", set_again(ended(OperationState::Superseded))),
    ];
    assert_snapshot!(table(rows), @r"
    it failed: not by itself
      Stalled RollbackFailed
    it failed, and was reset
      Undo 1 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, Restore shop_backout_x_7_aside, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    it gave way: not by itself
      Ready ReconciliationSucceeded
    it gave way, and was reset
      Undo 1 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, Restore shop_backout_x_7_aside, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    it gave way, and the annotation was removed and set again
      Undo 1 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, Restore shop_backout_x_7_aside, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    ");
    let succeeded = reset(ended(OperationState::Succeeded));
    assert_eq!(succeeded.0.status.last_handled_undo.as_deref(), Some("7"), "what was undone is not undone again");
}

#[test]
fn what_an_undo_brought_back_stays_until_something_else_is_asked_for() {
    let given = undo("7");
    let done = operation(&given.0, Kind::Undo, 2, &[StepName::Restore]).at(StepName::Restore, StepState::Done);
    let given = given.running(done).closed(OperationState::Succeeded).deployed(2).applied(&[1, 2]).with(|world| world.undo = None);
    assert_eq!(given.0.status.release, Some(2));
    let rows = vec![
        ("the source asks for what was undone", given.clone()),
        ("something new is asked for", given.clone().asks(content(4, &[1, 2]))),
        ("the hold was reset", given.with(|world| world.status = journal::reset(world.status.clone(), "once".to_owned()))),
    ];
    assert_snapshot!(table(rows), @r"
    the source asks for what was undone
      Resting RollbackUndone
    something new is asked for
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m
    the hold was reset
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    ");
}

#[test]
fn the_newest_point_is_rehearsed_once_at_rest_and_a_failed_one_is_never_chosen() {
    let rehearse = |given: Given| {
        given.spec(|spec| spec.database.as_mut().expect("it has one").backup.rehearse = RehearsePolicy::AfterCapture).with(|world| {
            let place = world.spec.database.as_ref().map(|database| database.mysql.place());
            world.points.values_mut().for_each(|point| point.database.clone_from(&place));
        })
    };
    let with = |outcome| {
        let rehearsed = Some(Rehearsed { at: at(500), outcome, took: None, message: "other values".to_owned() });
        move |given: Given| given.with(|world| world.points.values_mut().for_each(|point| point.rehearsed.clone_from(&rehearsed)))
    };
    let (passed, failed) = (with(RehearsalOutcome::Passed), with(RehearsalOutcome::Failed));
    let running = |given: Given| {
        let begun = operation(&given.0, Kind::Rehearse, 2, &[StepName::Rehearse]).at(StepName::Rehearse, StepState::Started);
        given.running(begun)
    };
    let rows = vec![
        ("not tried", rehearse(Given::two_releases())),
        ("nobody asks for it", Given::two_releases()),
        ("it passed", passed(rehearse(Given::two_releases()))),
        ("it failed", failed(rehearse(Given::two_releases()))),
        ("of another database", rehearse(Given::two_releases()).with(|world| world.points.values_mut().for_each(|it| it.database = None))),
        ("it runs", running(rehearse(Given::two_releases()))),
        ("it runs and something is asked for", running(rehearse(Given::two_releases())).asks(content(4, &[1, 2]))),
        ("a point that passed", passed(pinned("shop-2-predeploy"))),
        ("a point that failed", failed(pinned("shop-2-predeploy"))),
    ];
    assert_snapshot!(table(rows), @r"
    not tried
      Rehearse 2 → 2: Rehearse shop-2-predeploy
    nobody asks for it
      Ready ReconciliationSucceeded
    it passed
      Ready ReconciliationSucceeded
    it failed
      Ready ReconciliationSucceeded
    of another database
      Ready ReconciliationSucceeded
    it runs
      Run 0
    it runs and something is asked for
      Close Superseded
    a point that passed
      Restore 2 → 2: Preflight 2 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Fence shop=3, Restore shop-2-predeploy, FlushCache shop:, Unfence shop=3, Verify 1m
    a point that failed
      Stalled NoWayBack
    ");
}

#[test]
fn schemas_that_nothing_needs_any_more_are_dropped_at_rest_and_never_before() {
    let expired = || rolled_back().with(|world| world.status.asides.iter_mut().for_each(|aside| aside.until = at(999)));
    let failed_cleanup = |given: Given, finished: i64| {
        let cleanup = operation(&given.0, Kind::Cleanup, 1, &[StepName::Discard]).failed_at(StepName::Discard);
        given.running(cleanup).closed_at(OperationState::Failed, finished)
    };
    let rows = vec![
        ("kept", rolled_back()),
        ("its time has passed", expired()),
        ("a shadow that was not swapped in", rolled_back().with(|world| world.status.shadows.push("shadow".to_owned()))),
        ("a clean-up failed just now", failed_cleanup(expired(), 990)),
        ("a clean-up failed an hour ago", failed_cleanup(expired(), -3000)),
        ("something else is to be done", expired().asks(content(4, &[1]))),
    ];
    assert_snapshot!(table(rows), @r"
    kept
      Ready ReconciliationSucceeded
    its time has passed
      Cleanup 1 → 1: Discard shop_backout_x_7_aside
    a shadow that was not swapped in
      Cleanup 1 → 1: Discard shadow
    a clean-up failed just now
      Ready ReconciliationSucceeded
    a clean-up failed an hour ago
      Cleanup 1 → 1: Discard shop_backout_x_7_aside
    something else is to be done
      Deploy 1 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m
    ");
}

#[test]
fn a_database_or_a_container_of_another_release_is_refused_by_name() {
    let shared = |given: Given| given.database(|database| database.other_owner = Some("shops/other".to_owned()));
    let rows = vec![
        ("a deploy with a migration", shared(Given::two_releases().asks(content(4, &[1, 2, 4])))),
        ("a deploy without one", shared(Given::two_releases().asks(content(4, &[1, 2])))),
        ("a deploy of a release that knows nothing of the schema", shared(Given::two_releases().asks(content(4, &[9])))),
        ("a rollback of the schema", shared(Given::two_releases().asks(content(1, &[1])))),
        ("a container that another Release deploys to", Given::two_releases().with(|world| world.rivals.push("Release other".to_owned()))),
        (
            "a hold does not outlive the release that it held",
            Given::two_releases().with(|world| world.status.hold = Some(Hold { wanted: "other".to_owned(), operation: 1 })),
        ),
    ];
    assert_snapshot!(table(rows), @r"
    a deploy with a migration
      Stalled DatabaseShared
    a deploy without one
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m
    a deploy of a release that knows nothing of the schema
      Stalled DatabaseShared
    a rollback of the schema
      Stalled DatabaseShared
    a container that another Release deploys to
      Stalled TargetShared
    a hold does not outlive the release that it held
      Ready ReconciliationSucceeded
    ");
}
