//! Backup points that no release asks for, by schedule and on request, and rehearsals by schedule. At rest alone, and nothing that is
//! asked for waits for one.

use backout::{
    api::{
        Span,
        backup_point::{PointReason, RehearsalOutcome, Rehearsed},
        operation::{Action, Kind, OperationState, StepName, StepState},
        status::{Aside, AsideState},
    },
    plan::{
        Decision,
        input::Seen,
        journal::{self, Outcome, settled},
    },
};
use insta::assert_snapshot;
use serde_json::{from_value, json};

use super::{
    table,
    world::{Given, Progress, at, content, operation, unseen},
};

/// Every twenty minutes, and 22:30 it is. The points from before releases 1 and 2 are 999 and 998 s old.
fn scheduled_every_20(given: Given) -> Given {
    let schedule = from_value(json!({"cron": "*/20 * * * *"})).expect("it is a schedule");
    here(given).spec(|spec| spec.database.as_mut().expect("the fixture has a database").backup.schedule = Some(schedule))
}

/// The points are those of this database.
fn here(given: Given) -> Given {
    given.with(|world| {
        let place = world.spec.database.as_ref().map(|database| database.mysql.place());
        world.points.values_mut().for_each(|point| point.database.clone_from(&place));
    })
}

fn newest(given: Given, seconds: i64) -> Given {
    given.with(|world| world.points.get_mut("shop-2-predeploy").expect("the fixture has it").taken_at = Some(at(seconds)))
}

fn asked(given: Given) -> Given {
    given.with(|world| world.backup_at = Some("now".to_owned()))
}

fn running(given: Given) -> Given {
    let begun = operation(&given.0, Kind::Backup, 2, &[StepName::BackUp]).at(StepName::BackUp, StepState::Started);
    given.running(begun)
}

fn failed(given: Given, kind: Kind, step: StepName) -> Given {
    let failed = operation(&given.0, kind, 2, &[step]).failed_at(step);
    given.running(failed).closed(OperationState::Failed)
}

/// Operation 7 replaced tables.
fn replaced(given: Given) -> Given {
    given.with(|world| {
        let (schema, state) = ("aside".to_owned(), AsideState::Kept);
        world.status.asides.push(Aside { schema, operation: 7, from: Some(1), to: 2, at: at(500), until: at(2000), state });
    })
}

#[test]
fn points_are_taken_by_schedule_and_on_request() {
    let scheduled = || scheduled_every_20(Given::two_releases());
    let rows = vec![
        ("nobody asks", here(Given::two_releases())),
        ("the newest point is from before the last time", scheduled()),
        ("one was taken since, for whatever reason", newest(scheduled(), 500)),
        ("no point of this database", scheduled().with(|world| world.points.values_mut().for_each(|point| point.database = None))),
        ("one that is not complete is none", scheduled().with(|world| world.points.values_mut().for_each(|point| point.verified = false))),
        ("something else is asked for", scheduled().asks(content(4, &[1, 2]))),
        ("suspended", scheduled().spec(|spec| spec.suspend = true)),
        ("the workloads can't be seen", scheduled().with(|world| world.workloads = Seen::Unknown(unseen("away")))),
        ("asked for, and no schedule", asked(Given::two_releases())),
        ("asked for, and there is no database", asked(Given::two_releases()).spec(|spec| spec.database = None)),
        (
            "asked for, and it was taken",
            asked(Given::two_releases()).with(|world| world.status.last_handled_backup_at = Some("now".to_owned())),
        ),
        ("it runs", running(scheduled())),
        ("it runs and something is asked for", running(scheduled()).asks(content(4, &[1, 2]))),
        ("it runs and somebody changes a workload", running(scheduled()).deployed(1).with(|world| world.status.release = Some(2))),
        (
            "it runs and somebody wants back what was replaced",
            replaced(running(scheduled())).with(|world| world.undo = Some("7".to_owned())),
        ),
        ("the last one failed a moment ago", failed(scheduled(), Kind::Backup, StepName::BackUp)),
        ("the last one failed a moment ago, and something else was done since", {
            let given = failed(scheduled(), Kind::Backup, StepName::BackUp);
            let dropped = operation(&given.0, Kind::Cleanup, 2, &[StepName::Discard]);
            given.running(dropped).closed(OperationState::Succeeded)
        }),
        ("it failed a moment ago, and a person asks for a reset", {
            let given = failed(scheduled(), Kind::Backup, StepName::BackUp);
            given.with(|world| world.status = journal::reset(world.status.clone(), "now".to_owned()))
        }),
        (
            "a schema can't be dropped",
            failed(scheduled().with(|world| world.status.shadows.push("shadow".to_owned())), Kind::Cleanup, StepName::Discard),
        ),
        ("it was taken, says a database whose clock is behind, before it was due", {
            let given = newest(scheduled(), 395);
            let mut taken = operation(&given.0, Kind::Backup, 2, &[StepName::BackUp]);
            taken.started_at = at(405);
            let given = given.running(taken).closed(OperationState::Succeeded);
            given.with(|world| world.status.last_backup_point = Some("shop-2-predeploy".to_owned()))
        }),
    ];
    assert_snapshot!(table(rows), @r"
    nobody asks
      Ready ReconciliationSucceeded
    the newest point is from before the last time
      Backup 2 → 2: BackUp shop-20231114t222000-scheduled-5241349b14
    one was taken since, for whatever reason
      Ready ReconciliationSucceeded
    no point of this database
      Backup 2 → 2: BackUp shop-first-scheduled-5241349b14
    one that is not complete is none
      Backup 2 → 2: BackUp shop-first-scheduled-5241349b14
    something else is asked for
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m
    suspended
      Resting Suspended
    the workloads can't be seen
      Waiting away
    asked for, and no schedule
      Backup 2 → 2: BackUp shop-manual-c0a84686e6
    asked for, and there is no database
      Refuse now: backout.dev/backupAt asks for a backup point, but spec.database names no database
    asked for, and it was taken
      Ready ReconciliationSucceeded
    it runs
      Run 0
    it runs and something is asked for
      Close Superseded
    it runs and somebody changes a workload
      Close Superseded
    it runs and somebody wants back what was replaced
      Close Superseded
    the last one failed a moment ago
      Ready ReconciliationSucceeded
    the last one failed a moment ago, and something else was done since
      Ready ReconciliationSucceeded
    it failed a moment ago, and a person asks for a reset
      Backup 2 → 2: BackUp shop-20231114t222000-scheduled-5241349b14
    a schema can't be dropped
      Backup 2 → 2: BackUp shop-20231114t222000-scheduled-5241349b14
    it was taken, says a database whose clock is behind, before it was due
      Ready ReconciliationSucceeded
    ");
}

#[test]
fn a_point_that_no_release_asked_for_answers_who_asked_and_is_no_way_back() {
    let given = asked(Given::two_releases());
    let mut begun = operation(&given.0, Kind::Backup, 2, &[StepName::BackUp]).at(StepName::BackUp, StepState::Started);
    let (point, reason) = ("shop-now-manual".to_owned(), PointReason::Manual);
    begun.steps[0].action = Action::BackUp { release: 2, point: point.clone(), reason, token: Some("now".to_owned()) };
    let taken = Outcome::Done { message: "taken".to_owned() };
    let status = settled(given.running(begun).0.status, 0, &taken, Span::seconds(30), Span::seconds(1800), at(1000)).expect("it runs");
    assert_eq!(status.last_handled_backup_at.as_deref(), Some("now"));
    assert_eq!(status.last_backup_point, Some(point));
    assert_eq!(status.history[0].backup_point.as_deref(), Some("shop-2-predeploy"));
}

#[test]
fn a_rest_ends_when_something_is_due() {
    let pause = |given: Given| match given.decision() {
        Decision::Rest { again, .. } => again.as_secs(),
        decision => panic!("{decision:?}"),
    };
    let given = newest(scheduled_every_20(Given::two_releases()), 500);
    let calm = pause(newest(here(Given::two_releases()), 500));
    assert_eq!(pause(given.clone()), calm, "the next is due after the interval");
    assert_eq!(pause(given.clone().with(|world| world.now = at(1570))), 30, "due at 22:40, at second 1600");
    assert_eq!(pause(replaced(given).with(|world| world.status.asides[0].until = at(1010))), 10);
}

#[test]
fn the_newest_sound_point_is_rehearsed_again_by_schedule() {
    let scheduled = || {
        here(Given::two_releases()).spec(|spec| {
            let schedule = from_value(json!({"cron": "*/20 * * * *"})).expect("it is a schedule");
            spec.database.as_mut().expect("the fixture has a database").backup.rehearse_schedule = Some(schedule);
        })
    };
    let tried = |given: Given, point: &str, seconds, outcome| {
        let rehearsed = Rehearsed { at: at(seconds), outcome, took: None, message: "other values".to_owned() };
        given.with(|world| world.points.get_mut(point).expect("the fixture has it").rehearsed = Some(rehearsed))
    };
    let (passed, bad) = (RehearsalOutcome::Passed, RehearsalOutcome::Failed);
    let done = |given: Given, seconds| {
        let mut done = operation(&given.0, Kind::Rehearse, 2, &[StepName::Rehearse]);
        done.started_at = at(seconds);
        given.running(done).with(|world| world.now = at(seconds)).closed(OperationState::Succeeded).with(|world| world.now = at(1000))
    };
    let rows = vec![
        ("none was tried since there is one", scheduled()),
        ("it was tried before the last time", tried(scheduled(), "shop-2-predeploy", 390, passed)),
        ("it was tried since", tried(scheduled(), "shop-2-predeploy", 410, passed)),
        ("it was found wanting before the last time", tried(scheduled(), "shop-2-predeploy", 390, bad)),
        ("it was found wanting since", tried(scheduled(), "shop-2-predeploy", 410, bad)),
        ("none is sound", tried(tried(scheduled(), "shop-2-predeploy", 390, bad), "shop-1-predeploy", 390, bad)),
        ("a point that is gone was tried since", done(scheduled(), 410)),
        ("a point that is gone was tried before the last time", done(scheduled(), 390)),
        ("the last one failed a moment ago", failed(scheduled(), Kind::Rehearse, StepName::Rehearse)),
        ("the newest is younger than the last time", newest(scheduled(), 900)),
        ("all are", newest(scheduled(), 900).with(|world| drop(world.points.remove("shop-1-predeploy")))),
        ("something else is asked for", scheduled().asks(content(4, &[1, 2]))),
    ];
    assert_snapshot!(table(rows), @r"
    none was tried since there is one
      Rehearse 2 → 2: Rehearse shop-2-predeploy
    it was tried before the last time
      Rehearse 2 → 2: Rehearse shop-2-predeploy
    it was tried since
      Ready ReconciliationSucceeded
    it was found wanting before the last time
      Rehearse 2 → 2: Rehearse shop-1-predeploy
    it was found wanting since
      Ready ReconciliationSucceeded
    none is sound
      Ready ReconciliationSucceeded
    a point that is gone was tried since
      Ready ReconciliationSucceeded
    a point that is gone was tried before the last time
      Ready ReconciliationSucceeded
    the last one failed a moment ago
      Ready ReconciliationSucceeded
    the newest is younger than the last time
      Rehearse 2 → 2: Rehearse shop-2-predeploy
    all are
      Ready ReconciliationSucceeded
    something else is asked for
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m
    ");
}
