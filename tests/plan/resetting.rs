//! `backout.dev/resetAt`: what a person's reset forgets, and what it must not.

use backout::{
    api::{
        operation::{OperationState, StepName},
        status::ReleaseStatus,
    },
    plan::journal,
};

use super::world::Given;

fn reset(given: &Given) -> ReleaseStatus {
    journal::reset(given.0.status.clone(), "once".to_owned())
}

#[test]
fn a_reset_after_a_failed_deploy_tries_it_again() {
    let status = reset(&Given::failed_deploy(StepName::Verify));
    assert!(status.quarantine.is_empty());
    assert_eq!(status.operation.map(|operation| operation.state), Some(OperationState::Superseded));
    assert_eq!(status.last_handled_reset_at.as_deref(), Some("once"));
}

#[test]
fn a_reset_after_a_failed_rollback_tries_the_rollback_again_and_not_the_release_that_failed() {
    let mut given = Given::failed_deploy(StepName::Verify);
    let quarantined = given.0.status.quarantine.clone();
    assert!(!quarantined.is_empty());
    let failed = given.0.status.operation.as_mut().expect("a deploy failed");
    failed.kind = backout::api::operation::Kind::Rollback;
    failed.remediates = Some(failed.to);
    let status = reset(&given);
    assert_eq!(status.quarantine, quarantined);
    assert_eq!(status.operation.map(|operation| operation.state), Some(OperationState::Superseded));
}
