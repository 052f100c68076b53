//! What Backout does by itself is bounded: answers to failures, a source that flaps, and repairs of what somebody puts back.

use backout::api::{
    operation::{Kind, OperationState, StepName, StepState},
    status::{AutomaticRollback, Switch},
};
use insta::assert_snapshot;

use super::{
    table,
    world::{Given, Progress, at, content, operation},
};

fn failed(rollbacks: &[(u64, i64)]) -> Given {
    Given::failed_deploy(StepName::Verify).with(|world| {
        world.status.automatic_rollbacks =
            rollbacks.iter().map(|(release, second)| AutomaticRollback { release: *release, at: at(*second) }).collect();
    })
}

fn asked_again(times: usize, last: i64) -> Given {
    Given::two_releases().asks(content(1, &[1])).with(|world| {
        let digest = content(1, &[1]).digest();
        world.status.switches = (0..times).map(|_| Switch { digest: digest.clone(), at: at(last) }).collect();
    })
}

fn repaired(finished: i64) -> Given {
    let given = Given::two_releases().workload(|workload| workload.containers.clear());
    let repair = operation(&given.0, Kind::Repair, 2, &[StepName::Deploy]).at(StepName::Deploy, StepState::Done);
    given.running(repair).closed_at(OperationState::Succeeded, finished)
}

#[test]
fn rollbacks_that_nobody_asked_for_are_bounded_within_a_window() {
    let many: Vec<(u64, i64)> = (90..95).map(|release| (release, 900)).collect();
    let rows = vec![
        ("the first", failed(&[])),
        ("fewer than the limit", failed(&many[1..])),
        ("as many as the limit", failed(&many)),
        ("as many, but before the window", failed(&(90..95).map(|release| (release, -9000)).collect::<Vec<_>>())),
        ("the same failure's own rollback does not count against it", failed(&[&many[1..], &[(3, 900)]].concat())),
        ("at the limit, but something new is asked for", failed(&many).asks(content(4, &[1, 2, 3]))),
        ("at the limit, but a person pins", failed(&many).pinned(2).with(|world| world.generation = 2)),
    ];
    assert_snapshot!(table(rows), @r"
    the first
      Rollback 3 → 2 for 3: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    fewer than the limit
      Rollback 3 → 2 for 3: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    as many as the limit
      Stalled RollbackLimitReached
    as many, but before the window
      Rollback 3 → 2 for 3: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    the same failure's own rollback does not count against it
      Rollback 3 → 2 for 3: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    at the limit, but something new is asked for
      Deploy 3 → 4: Keep 4, Preflight 4 [] database=Untouched cache=Untouched, Deploy 4, Verify 1m
    at the limit, but a person pins
      Rollback 3 → 2: Preflight 2 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 3 of 3, Deploy 2, FlushCache shop:, Unfence shop=3, Verify 1m
    ");
}

#[test]
fn a_source_that_asks_for_the_same_release_again_and_again_is_slowed_down() {
    let rows = vec![
        ("twice", asked_again(2, 999)),
        ("three times, just now", asked_again(3, 999)),
        ("three times, the last a minute ago", asked_again(3, 939)),
        ("five times, the last a minute ago", asked_again(5, 939)),
        ("often, but long ago", asked_again(9, -9000)),
    ];
    assert_snapshot!(table(rows), @r"
    twice
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    three times, just now
      Waiting Flapping
    three times, the last a minute ago
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    five times, the last a minute ago
      Waiting Flapping
    often, but long ago
      Rollback 2 → 1: Preflight 1 [] database=Needed cache=Needed, Approve Never, Fence shop=3, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    ");
}

#[test]
fn what_somebody_puts_back_after_each_repair_is_not_repaired_without_a_pause() {
    let rows = vec![("repaired just now", repaired(990)), ("repaired a while ago", repaired(900))];
    assert_snapshot!(table(rows), @r"
    repaired just now
      Waiting DriftsAgain
    repaired a while ago
      Repair 2 → 2: Deploy 2, Verify 1m
    ");
}
