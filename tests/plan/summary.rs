//! Conditions: what is always there, what only while true, and when an instant moves.

use backout::{
    api::{
        operation::{Kind, StepName, StepState},
        status::ReleaseStatus,
    },
    plan::{Decision, Verdict, decide, summary::apply},
};
use insta::assert_snapshot;

use super::world::{Given, Progress, at, content, operation};

fn verdict(given: &Given) -> Verdict {
    match decide(&given.0) {
        Decision::Rest { verdict, .. } => verdict,
        _ => Verdict::progressing(given.0.status.operation.as_ref().expect("a row that does not rest runs")),
    }
}

fn applied(given: &Given) -> ReleaseStatus {
    apply(given.0.status.clone(), &verdict(given), given.0.generation, given.0.now)
}

fn conditions(rows: Vec<(&str, Given)>) -> String {
    let row = |(name, given): (&str, Given)| {
        let status = applied(&given);
        let told = status.conditions.iter().map(|condition| format!("{}={}/{}", condition.type_, condition.status, condition.reason));
        format!("{name} ({})\n  {}", status.phase.unwrap_or_default(), told.collect::<Vec<_>>().join(" "))
    };
    rows.into_iter().map(row).collect::<Vec<_>>().join("\n")
}

fn deploying(step: StepName, state: StepState) -> Given {
    let steps = [StepName::Keep, StepName::Preflight, StepName::BackUp, StepName::Deploy, StepName::Verify, StepName::Bake];
    let given = Given::two_releases();
    let running = operation(&given.0, Kind::Deploy, 2, &steps).at(step, state);
    given.running(running)
}

#[test]
fn ready_is_always_there_and_reconciling_and_stalled_only_while_true() {
    let retrying = |step| {
        deploying(step, StepState::Started).with(|world| {
            let steps = world.status.operation.iter_mut().flat_map(|operation| &mut operation.steps);
            steps.filter(|entry| entry.name == step).for_each(|entry| entry.retry_at = Some(at(2000)));
        })
    };
    let rows = vec![
        ("in sync", Given::two_releases()),
        ("pinned", Given::two_releases().pinned(2)),
        ("suspended", Given::two_releases().spec(|spec| spec.suspend = true)),
        ("the source can't be seen", Given::two_releases().asks_unseen()),
        ("no such target", Given::two_releases().pinned(9)),
        ("a step runs", deploying(StepName::Deploy, StepState::Started)),
        ("preflight refuses", retrying(StepName::Preflight)),
        ("the backup is tried again", retrying(StepName::BackUp)),
        ("preflight refuses behind a fence", {
            let given = Given::two_releases().asks(content(1, &[1]));
            let steps = [StepName::Fence, StepName::Preflight, StepName::Restore, StepName::Unfence];
            let running = operation(&given.0, Kind::Rollback, 1, &steps).at(StepName::Preflight, StepState::Started);
            given.running(running).with(|world| {
                let steps = world.status.operation.iter_mut().flat_map(|operation| &mut operation.steps);
                steps.filter(|entry| entry.name == StepName::Preflight).for_each(|entry| entry.retry_at = Some(at(2000)));
            })
        }),
        ("baking", deploying(StepName::Bake, StepState::Started)),
        ("a failed release that does not go back", Given::failed_deploy(StepName::Verify).spec(|spec| spec.rollback.automatic = false)),
        ("quarantined", Given::two_releases().asks(content(3, &[1, 2])).quarantined(&content(3, &[1, 2]), 3)),
    ];
    assert_snapshot!(conditions(rows), @r"
    in sync (Deployed)
      Ready=True/ReconciliationSucceeded Verified=True/KnownGood
    pinned (Pinned)
      Ready=True/PinnedByRollbackTo Verified=True/KnownGood
    suspended (Suspended)
      Ready=False/Suspended Verified=True/KnownGood
    the source can't be seen (Waiting)
      Ready=False/GitOperationFailed Reconciling=True/GitOperationFailed Verified=True/KnownGood
    no such target (Stalled)
      Ready=False/MissingRollbackTarget Stalled=True/MissingRollbackTarget Verified=True/KnownGood
    a step runs (Deploying)
      Ready=Unknown/Progressing Reconciling=True/Progressing Verified=True/KnownGood
    preflight refuses (Preflight)
      Ready=False/PreflightFailed Reconciling=True/PreflightFailed Verified=True/KnownGood
    the backup is tried again (BackingUp)
      Ready=False/PreflightFailed Reconciling=True/PreflightFailed BackupReady=False/BackUpFailed Verified=True/KnownGood
    preflight refuses behind a fence (Preflight)
      Ready=False/PreflightFailed Stalled=True/PreflightFailed Verified=True/KnownGood
    baking (Baking)
      Ready=Unknown/Progressing Reconciling=True/Progressing Healthy=True/ChecksPassed Verified=True/KnownGood
    a failed release that does not go back (Stalled)
      Ready=False/RollbackDisabled Stalled=True/RollbackDisabled Healthy=False/HealthCheckFailed Verified=False/NotKnownGood
    quarantined (Quarantined)
      Ready=False/Quarantined Verified=True/KnownGood
    ");
}

#[test]
fn a_release_stays_as_ready_as_it_is_while_house_is_kept() {
    let ready = |status: &ReleaseStatus| {
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").cloned().expect("Ready is always there");
        (ready.status, ready.reason, ready.last_transition_time.0)
    };
    let rehearsal = Verdict::progressing(&operation(&Given::two_releases().0, Kind::Rehearse, 2, &[StepName::Rehearse]));
    for (verdict, said) in [(verdict(&Given::two_releases()), "True"), (Verdict::suspended(), "False")] {
        let before = apply(ReleaseStatus::default(), &verdict, 1, at(1));
        let during = apply(before.clone(), &rehearsal, 2, at(2));
        assert_eq!(ready(&during), (said.to_owned(), verdict.reason.to_owned(), at(1)));
        assert!(during.conditions.iter().any(|condition| condition.type_ == "Reconciling" && condition.status == "True"));
        assert_eq!(apply(during, &verdict, 1, at(3)), before, "and nothing is left of it");
    }
    assert_eq!(ready(&apply(ReleaseStatus::default(), &rehearsal, 1, at(1))).0, "Unknown", "nothing was said before");
}

#[test]
fn an_instant_moves_only_when_a_condition_turns() {
    let ready = |status: &ReleaseStatus| {
        let condition = status.conditions.iter().find(|condition| condition.type_ == "Ready").cloned().expect("Ready is always there");
        (condition.status, condition.last_transition_time.0, condition.observed_generation)
    };
    let good = verdict(&Given::two_releases());
    let first = apply(ReleaseStatus::default(), &good, 1, at(1));
    assert_eq!(ready(&first), ("True".to_owned(), at(1), Some(1)));
    assert_eq!(first.observed_generation, 1);
    let second = apply(first.clone(), &good, 1, at(2));
    assert_eq!(second, first, "nothing new is said");
    let pinned = apply(first.clone(), &verdict(&Given::two_releases().pinned(2)), 2, at(3));
    assert_eq!(ready(&pinned), ("True".to_owned(), at(1), Some(2)), "another reason is no transition");
    let suspended = apply(pinned, &Verdict::suspended(), 2, at(4));
    assert_eq!(ready(&suspended), ("False".to_owned(), at(4), Some(2)));
}

#[test]
fn a_message_is_never_longer_than_the_api_server_takes() {
    let status = apply(ReleaseStatus::default(), &Verdict::invalid(&"é".repeat(40_000)), 1, at(1));
    for condition in status.conditions {
        assert!(condition.message.len() <= 32_768, "{} bytes", condition.message.len());
        assert!(condition.message.ends_with('…'));
    }
}
