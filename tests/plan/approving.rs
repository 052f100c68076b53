//! The gate before data goes: where it stands in a plan, when it opens, and for whom.

use backout::{
    api::{
        Span,
        operation::{Action, Approval, ApprovalState, Kind, Loss, OperationState, StepName, StepState},
        release::{ApprovalPolicy, Method},
    },
    plan::{
        Decision, decide,
        input::ApprovalSeen,
        journal::{self, Outcome},
    },
};
use insta::assert_snapshot;

use super::{
    table,
    world::{Given, Progress, at, content, operation},
};

const RESTORE: [StepName; 8] = [
    StepName::Preflight,
    StepName::Stage,
    StepName::Approve,
    StepName::Fence,
    StepName::Restore,
    StepName::Deploy,
    StepName::Unfence,
    StepName::Verify,
];

fn reverted(policy: ApprovalPolicy) -> Given {
    Given::two_releases().asks(content(1, &[1])).spec(|spec| spec.rollback.approval = policy)
}

fn loss(rows: u64) -> Loss {
    Loss {
        inserted: rows,
        changed: 0,
        deleted: 0,
        by_scripts: 0,
        since: Some(at(2)),
        took: Span::seconds(0),
        measured_at: at(995),
        details: Vec::new(),
        uncertain: false,
    }
}

/// A rollback at its gate, with this measured.
fn at_the_gate(loss: Option<Loss>) -> Given {
    let given = reverted(ApprovalPolicy::DataLoss);
    let mut running = operation(&given.0, Kind::Rollback, 1, &RESTORE).at(StepName::Approve, StepState::Started);
    running.loss = loss;
    given.running(running)
}

fn approved(given: Given, digest: &str, by: Option<&str>) -> Given {
    given.with(|world| world.approve = Some(ApprovalSeen { digest: digest.to_owned(), by: by.map(str::to_owned) }))
}

#[test]
fn a_person_is_asked_before_the_fence_goes_up_and_after_everything_is_ready() {
    let restore = |policy| reverted(policy).spec(|spec| spec.rollback.database = vec![Method::Restore]);
    let rows = vec![
        ("down scripts, never", reverted(ApprovalPolicy::Never)),
        ("down scripts, where data is lost", reverted(ApprovalPolicy::DataLoss)),
        ("restore, never", restore(ApprovalPolicy::Never)),
        ("restore, where data is lost", restore(ApprovalPolicy::DataLoss)),
        ("restore, always", restore(ApprovalPolicy::Always)),
        ("nothing runs on a half-migrated schema while a person is asked", restore(ApprovalPolicy::DataLoss).half_way(2)),
        ("the database stays: nobody is asked", reverted(ApprovalPolicy::Always).applied(&[1])),
    ];
    assert_snapshot!(table(rows), @r"
    down scripts, never
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    down scripts, where data is lost
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve DataLoss, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    restore, never
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Fence shop=3, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    restore, where data is lost
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve DataLoss, Fence shop=3, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    restore, always
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Always, Fence shop=3, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    nothing runs on a half-migrated schema while a person is asked
      Rollback 2 → 1: Fence shop=3, Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve DataLoss, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    the database stays: nobody is asked
      Rollback 2 → 1: Preflight 1 [] database=Untouched cache=Needed, Deploy 1, FlushCache shop:, Verify 1m
    ");
}

#[test]
fn the_gate_opens_for_its_own_plan_only() {
    let rows = vec![
        ("nothing measured yet: measure", at_the_gate(None)),
        ("nothing would be lost", at_the_gate(Some(loss(0)))),
        ("rows would be lost", at_the_gate(Some(loss(12)))),
        ("approved, who is known", approved(at_the_gate(Some(loss(12))), "p1an", Some("ada"))),
        ("approved, without the admission policy", approved(at_the_gate(Some(loss(12))), "p1an", None)),
        ("an approval for another plan", approved(at_the_gate(Some(loss(12))), "0ther", Some("ada"))),
        ("measured long ago: measure again", at_the_gate(Some(Loss { measured_at: at(900), ..loss(12) }))),
        (
            "measured long ago, but it took long: it still counts",
            at_the_gate(Some(Loss { measured_at: at(900), took: Span::seconds(30), ..loss(12) })),
        ),
        ("something could not be counted", at_the_gate(Some(Loss { uncertain: true, ..loss(0) }))),
        ("something newer is asked for meanwhile", at_the_gate(Some(loss(12))).asks(content(4, &[1, 2]))),
    ];
    assert_snapshot!(table(rows), @r"
    nothing measured yet: measure
      Run 2
    nothing would be lost
      Grant 2 NotNeeded by nobody
    rows would be lost
      Waiting AwaitingApproval
    approved, who is known
      Grant 2 Approved by ada
    approved, without the admission policy
      Grant 2 Approved by nobody
    an approval for another plan
      Waiting AwaitingApproval
    measured long ago: measure again
      Run 2
    measured long ago, but it took long: it still counts
      Waiting AwaitingApproval
    something could not be counted
      Waiting AwaitingApproval
    something newer is asked for meanwhile
      Close Superseded
    ");
}

#[test]
fn where_nobody_is_asked_it_is_measured_all_the_same_and_going_back_does_not_depend_on_it() {
    let never = |loss: Option<Loss>, attempt: u32| {
        at_the_gate(loss).with(|world| {
            let steps = world.status.operation.iter_mut().flat_map(|operation| &mut operation.steps);
            steps.filter(|step| step.name == StepName::Approve).for_each(|step| {
                step.attempt = attempt;
                if let Action::Approve { policy, .. } = &mut step.action {
                    *policy = ApprovalPolicy::Never;
                }
            });
        })
    };
    let rows = vec![
        ("nothing measured yet: measure", never(None, 1)),
        ("rows would be lost", never(Some(loss(12)), 1)),
        ("it could not be measured twice", never(None, 2)),
        ("nor the third time", never(None, 3)),
    ];
    assert_snapshot!(table(rows), @r"
    nothing measured yet: measure
      Run 2
    rows would be lost
      Grant 2 NotNeeded by nobody
    it could not be measured twice
      Run 2
    nor the third time
      Grant 2 NotNeeded by nobody
    ");
}

#[test]
fn who_waits_is_told_what_goes_and_how_to_approve_and_that_another_approval_changes_nothing() {
    let Decision::Rest { verdict, .. } = decide(&approved(at_the_gate(Some(loss(12))), "0ther", None).0) else {
        panic!("the gate is closed");
    };
    assert_snapshot!(verdict.message, @r"
    rolling back to release 1 (1.0.0): this would take away 12 rows inserted since 2023-11-14T22:13:22Z; the approval that is there is for plan 0ther, which is not this one, and changes nothing; approve with: kubectl -n shops annotate --overwrite release/shop backout.dev/approve=p1an
    ");
}

#[test]
fn who_approved_is_known_for_as_long_as_the_release_stands_in_the_history() {
    let given = at_the_gate(Some(loss(12)));
    let index = RESTORE.iter().position(|step| *step == StepName::Approve).expect("the plan has the step");
    let granted = |state, by: Option<&str>| {
        let approval = Approval { state, by: by.map(str::to_owned), at: Some(at(996)) };
        let status = journal::granted(given.0.status.clone(), index, approval, at(996)).expect("the gate waits");
        let next = operation(&given.0, Kind::Repair, 1, &[StepName::Deploy]);
        let status = journal::closed(status, OperationState::Succeeded, at(997)).expect("it runs");
        let status = journal::opened(status, next);
        status.history.iter().find(|entry| entry.release == 1).and_then(|entry| entry.approval.clone())
    };
    let approved = granted(ApprovalState::Approved, Some("ada")).expect("it was approved");
    assert_eq!((approved.by.as_deref(), approved.at), (Some("ada"), Some(at(996))));
    assert_eq!(granted(ApprovalState::NotNeeded, None), None);
}

#[test]
fn more_written_after_nobody_had_to_be_asked_takes_the_fence_down_and_asks() {
    let mut given = at_the_gate(Some(loss(0)));
    let index = |name: StepName| RESTORE.iter().position(|step| *step == name).expect("the plan has the step");
    let granted = Approval { state: ApprovalState::NotNeeded, by: None, at: None };
    given.0.status = journal::granted(given.0.status, index(StepName::Approve), granted, at(996)).expect("the gate waits");
    for (step, outcome) in [
        (StepName::Fence, Outcome::Done { message: "no pod runs".to_owned() }),
        (StepName::Restore, Outcome::Unapproved { message: "12 rows".to_owned() }),
    ] {
        given.0.status = journal::started(given.0.status, index(step), at(997)).expect("the step is next");
        let spec = &given.0.spec;
        given.0.status = journal::settled(given.0.status, index(step), &outcome, spec.retry_interval, spec.timeout, at(998))
            .expect("the step was begun");
    }
    let failed = given.decides();
    given.0.status = journal::started(given.0.status, index(StepName::Unfence), at(999)).expect("the fence can be taken down");
    let back = Outcome::Done { message: "3 of 3".to_owned() };
    let spec = &given.0.spec;
    given.0.status = journal::settled(given.0.status, index(StepName::Unfence), &back, spec.retry_interval, spec.timeout, at(999))
        .expect("the step was begun");
    let unfenced = given.decides();
    let again = given.closed(OperationState::Failed).decides();
    assert_snapshot!([failed, unfenced, again].join("\n"), @r"
    Run 6
    Close Failed
    Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Always, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    ");
}
