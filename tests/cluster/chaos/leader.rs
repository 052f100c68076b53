//! A leader that stands still in the middle of a step for longer than its lease lasts, while another operator does its work,
//! and then wakes with the step's effect still before it.

use backout::api::operation::StepName;

use super::scene::{Clock, PATIENCE, Play, Scene, Survived};
use crate::support::{
    process::Process,
    trap::{Then, When::After, Write},
};

/// Shorter than the time that a request to the API server may take: the answer that a woken leader finds is not too old by that.
const LEASE: [&str; 6] = ["--lease-duration", "4s", "--lease-renew-deadline", "3s", "--lease-retry", "1s"];
const LEADS: &str = "this process leads";
const LOST: &str = "leadership is lost";

/// The leader is frozen right after a step was written down as started. Another operator takes over, brings the operation to
/// its end, and plays what comes `next`. Then the first one wakes.
pub async fn frozen(scene: &mut Scene, play: Play, step: StepName, next: Option<Play>) -> Survived {
    scene.ready_for(play).await;
    scene.operator.kill().await;
    let first = start(scene, "first").await;
    first.says(LEADS, PATIENCE).await;
    let second = start(scene, "second").await;
    let trap = first.trap(scene.at(play, Write::Started(step), After), Then::Hold);
    scene.ask(play).await;
    let held = trap.wait(PATIENCE).await;
    first.signal("STOP").await;
    let clock = Clock::start();
    let mut lost = scene.rest(play).await;
    if let Some(next) = next {
        scene.ask(next).await;
        lost += scene.rest(next).await;
    }
    // The answer is there when it wakes.
    drop(held);
    first.signal("CONT").await;
    let status = first.ended(PATIENCE).await;
    assert!(!status.success() && first.log().contains(LOST), "it ends because it does not lead any more:\n{}", first.log());
    lost += scene.account.whole(&scene.place, &scene.clients, scene.runs).await;
    first.kill().await;
    second.kill().await;
    scene.operator.run().await;
    clock.stop(lost)
}

/// One of two operators that share a Lease and a store.
async fn start(scene: &Scene, name: &str) -> Process {
    let backups = scene.operator.backups().display().to_string();
    let mut arguments = vec!["--pod-name", name, "--pod-namespace", &scene.place.namespace, "--backups", &backups];
    arguments.extend(LEASE);
    Process::start(&scene.place, &arguments).await
}
