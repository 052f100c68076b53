//! The journal: each transition of the operation, and what its end makes of the history.

use std::time::Duration;

use backout::{
    api::{
        Span,
        operation::{Kind, Operation, OperationState, StepName, StepState},
        progress::{Part, Progress as Told, Unit},
        status::{HISTORY_LIMIT, ReleaseState, ReleaseStatus},
    },
    plan::{
        Verdict,
        journal::{Outcome, answered, closed, open_fence, opened, progressed, queued, reset, settled, started},
    },
};

use super::world::{Given, Progress, at, content, operation};

const DEPLOY: [StepName; 5] = [StepName::Keep, StepName::Preflight, StepName::BackUp, StepName::Deploy, StepName::Bake];

fn deploying(step: StepName, state: StepState) -> ReleaseStatus {
    let given = Given::two_releases().release(3, content(3, &[1, 2, 3]), ReleaseState::Deploying);
    let running = operation(&given.0, Kind::Deploy, 3, &DEPLOY).at(step, state);
    given.running(running).0.status
}

fn step(status: &ReleaseStatus, name: StepName) -> (StepState, u32, Option<jiff::Timestamp>, Option<u32>) {
    let step = status.operation.iter().flat_map(|operation| &operation.steps).find(|step| step.name == name).expect("the row has the step");
    (step.state, step.attempt, step.retry_at, step.failures)
}

fn settle(name: StepName, outcome: &Outcome, second: i64) -> ReleaseStatus {
    let index = DEPLOY.iter().position(|step| *step == name).expect("the row names a step");
    let status = deploying(name, StepState::Started);
    settled(status, index, outcome, Span::seconds(30), Span::seconds(1800), at(second)).expect("a started step can be settled")
}

#[test]
fn an_outcome_becomes_the_state_of_its_step() {
    let message = || "so it went".to_owned();
    let waiting = |failures| Outcome::Waiting { message: message(), again: Duration::from_secs(1), failures };
    use StepState::{Done, Failed, Started};
    for (row, name, outcome, second, expected) in [
        ("done", StepName::Deploy, Outcome::Done { message: message() }, 1000, (Done, 1, None, None)),
        ("failed", StepName::Deploy, Outcome::Failed { message: message() }, 1000, (Failed, 1, None, None)),
        ("waiting", StepName::Deploy, waiting(None), 1000, (Started, 1, None, None)),
        ("a round of bake failed", StepName::Bake, waiting(Some(2)), 1000, (Started, 1, None, Some(2))),
        ("retry after one second", StepName::Deploy, Outcome::Retry { message: message() }, 1000, (Started, 1, Some(at(1001)), None)),
        (
            "refused until the retry interval",
            StepName::Preflight,
            Outcome::Refused { message: message() },
            1000,
            (Started, 1, Some(at(1030)), None),
        ),
        ("waiting beyond spec.timeout", StepName::Deploy, waiting(None), 9000, (Failed, 1, None, None)),
        ("retry beyond spec.timeout", StepName::Deploy, Outcome::Retry { message: message() }, 9000, (Failed, 1, None, None)),
        (
            "a backup has touched nothing, and waits until it can be taken",
            StepName::BackUp,
            Outcome::Retry { message: message() },
            9000,
            (Started, 1, Some(at(9001)), None),
        ),
        ("so does storing the release", StepName::Keep, Outcome::Retry { message: message() }, 9000, (Started, 1, Some(at(9001)), None)),
        ("done beyond spec.timeout is done", StepName::Deploy, Outcome::Done { message: message() }, 9000, (Done, 1, None, None)),
        (
            "preflight waits for people",
            StepName::Preflight,
            Outcome::Retry { message: message() },
            9000,
            (Started, 1, Some(at(9001)), None),
        ),
        ("a bake time may be longer than spec.timeout", StepName::Bake, waiting(Some(0)), 9000, (Started, 1, None, Some(0))),
    ] {
        assert_eq!(step(&settle(name, &outcome, second), name), expected, "{row}");
    }
}

#[test]
fn what_earlier_steps_took_is_not_counted_against_the_next_one() {
    let mut status = deploying(StepName::Deploy, StepState::Started);
    let steps = status.operation.iter_mut().flat_map(|operation| &mut operation.steps);
    steps.filter(|step| step.name == StepName::Deploy).for_each(|step| step.started_at = Some(at(8990)));
    let waiting = Outcome::Waiting { message: "rolling out".to_owned(), again: Duration::from_secs(1), failures: None };
    let status = settled(status, 3, &waiting, Span::seconds(30), Span::seconds(1800), at(9000)).expect("a started step can be settled");
    assert_eq!(step(&status, StepName::Deploy).0, StepState::Started);
}

#[test]
fn a_request_to_look_is_answered_only_by_what_was_seen() {
    let before = Given::two_releases().0.status;
    assert_eq!(answered(before.clone(), Some("now")).last_handled_requested_at.as_deref(), Some("now"));
    assert_eq!(answered(before.clone(), None), before);
}

#[test]
fn the_time_in_a_queue_counts_for_nothing() {
    let stage = |state| {
        let given = Given::two_releases();
        let running = operation(&given.0, Kind::Rollback, 1, &[StepName::Preflight, StepName::Stage]).at(StepName::Stage, state);
        given.running(running).0.status
    };
    let state = |status: &ReleaseStatus| status.operation.as_ref().and_then(|operation| operation.steps.get(1)).cloned();
    for begun in [StepState::Pending, StepState::Started] {
        let waiting = queued(stage(begun), 1, "waiting for its turn".to_owned()).expect("it may wait");
        let seen = state(&waiting).expect("the row has the step");
        assert_eq!((seen.state, seen.started_at, seen.message.as_deref()), (StepState::Pending, None, Some("waiting for its turn")));
        assert_eq!(queued(waiting.clone(), 1, "waiting for its turn".to_owned()), Some(waiting.clone()), "nothing new is written");
        let begun = started(waiting, 1, at(9000)).expect("it is its turn");
        let seen = state(&begun).expect("the row has the step");
        assert_eq!((seen.state, seen.started_at, seen.message), (StepState::Started, Some(at(9000)), None));
        let retry = Outcome::Retry { message: "away".to_owned() };
        let settled = settled(begun, 1, &retry, Span::seconds(30), Span::seconds(1800), at(9010)).expect("it was begun");
        assert_eq!(state(&settled).map(|step| step.state), Some(StepState::Started));
    }
    assert_eq!(queued(stage(StepState::Done), 1, String::new()), None);
    assert_eq!(queued(stage(StepState::Failed), 1, String::new()), None);
}

#[test]
fn the_pause_between_tries_doubles_up_to_half_a_minute() {
    let mut status = deploying(StepName::BackUp, StepState::Pending);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        status = started(status, 2, at(1000)).expect("it may be begun again");
        let retry = Outcome::Retry { message: "away".to_owned() };
        status = settled(status, 2, &retry, Span::seconds(30), Span::seconds(1800), at(1000)).expect("it was begun");
        pauses.push(step(&status, StepName::BackUp).2.expect("a retry has an instant").duration_since(at(1000)).as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn only_a_step_that_may_be_begun_is_begun_and_only_a_begun_one_ends() {
    let done = Outcome::Done { message: String::new() };
    let end = |status, index| settled(status, index, &done, Span::seconds(30), Span::seconds(1800), at(1000));
    for (row, allowed) in [
        ("begin a pending step", started(deploying(StepName::BackUp, StepState::Pending), 2, at(1000)).is_some()),
        ("begin a started step again", started(deploying(StepName::BackUp, StepState::Started), 2, at(1000)).is_some()),
        ("end a started step", end(deploying(StepName::BackUp, StepState::Started), 2).is_some()),
        (
            "close an operation that runs",
            closed(deploying(StepName::BackUp, StepState::Started), OperationState::Failed, at(1000)).is_some(),
        ),
    ] {
        assert!(allowed, "{row}");
    }
    for (row, refused) in [
        ("begin a done step", started(deploying(StepName::BackUp, StepState::Done), 2, at(1000)).is_none()),
        ("begin a failed step", started(deploying(StepName::BackUp, StepState::Failed), 2, at(1000)).is_none()),
        ("begin a step that is not there", started(deploying(StepName::BackUp, StepState::Pending), 9, at(1000)).is_none()),
        ("end a pending step", end(deploying(StepName::BackUp, StepState::Pending), 2).is_none()),
        ("begin without an operation", started(ReleaseStatus::default(), 0, at(1000)).is_none()),
        ("close without an operation", closed(ReleaseStatus::default(), OperationState::Failed, at(1000)).is_none()),
    ] {
        assert!(refused, "{row}");
    }
}

#[test]
fn a_backup_point_is_remembered_with_its_release_once_it_is_taken() {
    let status = settle(StepName::BackUp, &Outcome::Done { message: "taken".to_owned() }, 1000);
    assert_eq!(status.last_backup_point.as_deref(), Some("shop-3-predeploy"));
    let status = settle(StepName::BackUp, &Outcome::Failed { message: "disk full".to_owned() }, 1000);
    assert_eq!(status.last_backup_point, None);
}

#[test]
fn the_end_of_a_deploy_decides_what_its_release_is() {
    for (row, step, end, state, undone, quarantined) in [
        ("succeeded", StepName::Bake, OperationState::Succeeded, ReleaseState::KnownGood, false, 0),
        ("failed", StepName::Bake, OperationState::Failed, ReleaseState::Failed, false, 1),
        ("superseded while it ran", StepName::Bake, OperationState::Superseded, ReleaseState::Superseded, false, 0),
        ("superseded before anything changed", StepName::BackUp, OperationState::Superseded, ReleaseState::Superseded, true, 0),
    ] {
        let status = closed(deploying(step, StepState::Started), end, at(1000)).expect("it runs");
        let entry = status.history.first().expect("the release is in the history");
        assert_eq!((entry.state, entry.undone_at.is_some(), status.quarantine.len()), (state, undone, quarantined), "{row}");
    }
}

#[test]
fn a_rollback_undoes_every_release_above_its_target() {
    let given =
        Given::two_releases().release(3, content(3, &[]), ReleaseState::Failed).release(4, content(4, &[]), ReleaseState::Superseded);
    let rollback = operation(&given.0, Kind::Rollback, 1, &[StepName::Deploy]);
    let status = given.running(rollback).closed(OperationState::Succeeded).0.status;
    let states: Vec<_> = status.history.iter().map(|entry| (entry.release, entry.state, entry.undone_at.is_some())).collect();
    assert_eq!(
        states,
        [
            (4, ReleaseState::Undone, true),
            (3, ReleaseState::Failed, true),
            (2, ReleaseState::Undone, true),
            (1, ReleaseState::KnownGood, false)
        ]
    );
    assert_eq!(status.last_rollback_at, Some(at(950)));
}

#[test]
fn the_history_is_trimmed_but_never_of_what_is_deployed_or_could_be_gone_back_to() {
    let mut status = Given::two_releases().0.status;
    for number in 3..=100 {
        let given = Given::new().with(|world| world.status = status.clone());
        let deploy = Operation { to: number, ..operation(&given.0, Kind::Deploy, number, &DEPLOY).at(StepName::Bake, StepState::Started) };
        status = opened(status, deploy);
        if number == 3 {
            // The first release since the last known good one, and so the one whose backup point a restore needs.
            status.history.iter_mut().filter(|entry| entry.release == 3).for_each(|entry| entry.backup_point = Some("p3".to_owned()));
        }
        status = closed(status, OperationState::Superseded, at(1000)).expect("it runs");
    }
    let numbers: Vec<u64> = status.history.iter().map(|entry| entry.release).collect();
    assert_eq!(numbers.len(), HISTORY_LIMIT + 2, "{numbers:?}");
    assert_eq!(numbers.iter().rev().take(3).rev().copied().collect::<Vec<_>>(), [71, 3, 2]);
    assert_eq!((status.releases, numbers.first()), (100, Some(&100)));
}

#[test]
fn how_far_a_step_has_come_is_told_while_it_runs_and_no_longer() {
    let progress = || Told { part: Part::Capture, done: 5, total: 20, unit: Unit::Rows, per_second: 1, left: None, at: at(1000) };
    let told = |status: &ReleaseStatus| status.operation.as_ref().and_then(|operation| operation.steps[2].progress.clone());
    let message = |status: &ReleaseStatus| Verdict::progressing(status.operation.as_ref().expect("it runs")).message;
    let running = progressed(deploying(StepName::BackUp, StepState::Started), 2, progress()).expect("the step runs");
    assert_eq!(told(&running), Some(progress()));
    assert!(message(&running).ends_with("BackUp: Capture 25 %: 5 of 20 rows, 1 rows/s"), "{}", message(&running));
    let settle =
        |outcome: Outcome| settled(running.clone(), 2, &outcome, Span::seconds(30), Span::seconds(1800), at(1001)).expect("it runs");
    for status in [settle(Outcome::Done { message: "taken".to_owned() }), settle(Outcome::Retry { message: "away".to_owned() })] {
        assert_eq!(told(&status), None);
        assert!(!message(&status).contains("Capture"), "{}", message(&status));
    }
    assert_eq!(told(&started(running.clone(), 2, at(1001)).expect("it runs")), None, "another try begins anew");
    // A step that does not run any more, or not yet, has nothing to tell.
    for state in [StepState::Pending, StepState::Done, StepState::Failed] {
        assert_eq!(progressed(deploying(StepName::BackUp, state), 2, progress()), None, "{state:?}");
    }
}

#[test]
fn a_fence_counts_as_open_until_it_is_known_to_be_down() {
    let own = [StepName::Preflight, StepName::Fence, StepName::Deploy, StepName::Unfence];
    let inherited = [StepName::Keep, StepName::Deploy, StepName::Unfence];
    let taken_over = [StepName::Fence, StepName::Preflight, StepName::Deploy, StepName::Unfence];
    let open = |steps: &[StepName], step, state| {
        let given = Given::two_releases();
        let running = operation(&given.0, Kind::Rollback, 1, steps).at(step, state);
        open_fence(&given.running(running).0.status).is_some()
    };
    for (row, is_open, expected) in [
        ("before its own fence", open(&own, StepName::Preflight, StepState::Failed), false),
        ("its own fence was begun", open(&own, StepName::Fence, StepState::Failed), true),
        ("behind its own fence", open(&own, StepName::Deploy, StepState::Failed), true),
        ("taking it down failed", open(&own, StepName::Unfence, StepState::Failed), true),
        ("it is down", open(&own, StepName::Unfence, StepState::Done), false),
        ("inherited, and nothing was begun", open(&inherited, StepName::Keep, StepState::Pending), true),
        ("inherited and taken down", open(&inherited, StepName::Unfence, StepState::Done), false),
        ("taken over, and given up before that was begun", open(&taken_over, StepName::Fence, StepState::Pending), true),
        ("taken over and taken down", open(&taken_over, StepName::Unfence, StepState::Done), false),
        ("no fence at all", open(&[StepName::Deploy], StepName::Deploy, StepState::Failed), false),
    ] {
        assert_eq!(is_open, expected, "{row}");
    }
}

#[test]
fn a_reset_forgets_failures_and_remembers_its_token() {
    let status = Given::failed_deploy(StepName::Verify).0.status;
    assert_eq!(status.quarantine.len(), 1);
    let status = reset(status, "now".to_owned());
    assert!(status.quarantine.is_empty());
    assert_eq!(status.operation.map(|operation| operation.state), Some(OperationState::Superseded));
    assert_eq!(status.last_handled_reset_at.as_deref(), Some("now"));
}
