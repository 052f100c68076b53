//! An operator that stands still while another one does its work, and then wakes in the middle of a step.
//!
//! Two processes stand in for two replicas: the second is started by hand where leader election would wake it.

use std::time::Duration;

use backout::api::{Release, names, operation::StepName};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::scene::{Clock, PATIENCE, Play, Scene, Survived};
use crate::support::{
    crashing::{Crashing, When::After, Write},
    place::NAME,
};

/// It stands still for longer than a leader's lease lasts: before that nobody takes over.
const PAST_THE_LEASE: Duration = Duration::from_secs(16);
/// Arguments of both operators.
// LEADER ELECTION: `--leader-elect=true --lease-duration=…` go here; the second is then started before the first is frozen.
const ARGUMENTS: &[&str] = &[];

/// The operator is frozen right after a step was written down as started. Another one brings the operation to its end, and
/// plays what comes `next`. Then the first wakes, with the step's effect still before it.
pub async fn frozen(scene: &mut Scene, play: Play, step: StepName, next: Option<Play>) -> Survived {
    let held = scene.hold(play, Write::Started(step), After).await;
    scene.operator.freeze().await;
    let clock = Clock::start();
    let past = Instant::now() + PAST_THE_LEASE;
    let second = Crashing::start_with(scene.place.client.clone(), ARGUMENTS).await;
    let mut lost = scene.rest(play).await;
    if let Some(next) = next {
        scene.ask(next).await;
        lost += scene.rest(next).await;
    }
    second.stop().await;
    sleep_until(past).await;
    // The answer is there when it wakes.
    drop(held);
    scene.operator.thaw().await;
    awake(scene).await;
    lost += scene.account.whole(&scene.place, &scene.clients, scene.runs).await;
    clock.stop(lost)
}

/// Waits until the operator has answered a question that was put after it woke: what it was in the middle of is over then,
/// since a Release is never worked on beside itself.
async fn awake(scene: &Scene) {
    let token = format!("woken-after-{}", scene.account.operations);
    let patch = json!({"metadata": {"annotations": {names::REQUESTED_AT: token}}});
    let releases = scene.place.api::<Release>();
    releases.patch(NAME, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("the Release can be annotated");
    scene
        .place
        .until("the woken operator has looked again", PATIENCE, |status| {
            status.last_handled_requested_at.as_deref() == Some(token.as_str())
        })
        .await;
}
