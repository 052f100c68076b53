//! The operator is killed with SIGKILL around every step of an operation: before the step is written down as started, after,
//! in the middle of its effect, before its end is written down, and after.
//!
//! One operation takes all the kills of one step. Each finds the state that the one before left, so none hides another.

use backout::api::operation::StepName;
use tokio::select;

use super::{
    amid::{self, Amid},
    scene::{Clock, PATIENCE, Play, Scene, Survived},
};
use crate::support::trap::{
    Then,
    When::{self, After, Before},
    Write,
};

/// Kills around one step.
pub async fn around(scene: &mut Scene, play: Play, step: StepName) -> Survived {
    scene.ready_for(play).await;
    scene.fill(amid::of(step).iter().any(|middle| middle.takes_bulk())).await;
    let trap = scene.trap(play, Write::Started(step), Before, Then::Kill);
    scene.ask(play).await;
    drop(trap.wait(PATIENCE).await);
    let clock = Clock::start();
    killed_at(scene, play, Write::Started(step), After).await;
    for middle in amid::of(step) {
        amid(scene, play, step, *middle).await;
    }
    killed_at(scene, play, Write::Done(step), Before).await;
    killed_at(scene, play, Write::Done(step), After).await;
    scene.operator.run().await;
    let lost = scene.rest(play).await;
    clock.stop(lost)
}

/// Kills around the writing down of the operation's begin and of its end.
pub async fn around_the_ends(scene: &mut Scene, play: Play) -> Survived {
    scene.ready_for(play).await;
    let trap = scene.trap(play, Write::Opened, Before, Then::Kill);
    scene.ask(play).await;
    drop(trap.wait(PATIENCE).await);
    let clock = Clock::start();
    killed_at(scene, play, Write::Opened, After).await;
    killed_at(scene, play, Write::Closed, Before).await;
    killed_at(scene, play, Write::Closed, After).await;
    scene.operator.run().await;
    let lost = scene.rest(play).await;
    clock.stop(lost)
}

/// How many kills [`around`] makes.
pub fn count(step: StepName) -> usize {
    4 + amid::of(step).len()
}

/// Lets the dead operator live until it comes to this write.
async fn killed_at(scene: &Scene, play: Play, write: Write, when: When) {
    let trap = scene.trap(play, write, when, Then::Kill);
    scene.operator.run().await;
    drop(trap.wait(PATIENCE).await);
}

/// Lets the dead operator live until the step's effect has begun.
async fn amid(scene: &Scene, play: Play, step: StepName, middle: Amid) {
    let hold = middle.prepare(scene).await;
    if let Some(write) = middle.write() {
        killed_at(scene, play, write, After).await;
    } else {
        let over = scene.trap(play, Write::Done(step), Before, Then::Kill);
        scene.operator.run().await;
        select! {
            () = middle.seen(scene) => scene.operator.kill().await,
            _ = over.wait(PATIENCE) => panic!("{} was over before {middle:?} was seen", step.as_str()),
        }
        assert!(middle.still(scene).await, "{} was over before the kill", step.as_str());
    }
    hold.release().await;
}
