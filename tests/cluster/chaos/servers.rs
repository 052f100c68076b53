//! Every server that an operation needs goes away in the middle of it and comes back: database, API server, cache, source,
//! node. What must be in the middle is found by the operator's own writes or by a fact, and a server stays away until the operator has
//! met with that often enough: nothing goes by time.

use axum::http::Method;
use backout::api::{
    operation::{OperationState, StepName},
    status::ReleaseStatus,
};
use serde_json::{Value, json};

use super::{
    amid::Amid,
    scene::{Clock, Content, PATIENCE, Play, Scene, Survived},
};
use crate::support::{
    bed::column,
    parts::Part,
    place::{condition, ready},
    process::Asks,
    trap::{
        Held, Then,
        When::{self, After, Before},
        Write,
    },
};

/// Requests that fail before the API server is back: the one in flight, and some of those that try it again.
const IN_VAIN: usize = 3;
/// Looks at a rollout before the node works again; less than what Kubernetes takes for a lost node.
const LOOKS: usize = 40;

/// MariaDB is killed in the middle of a step's effect, and started again.
pub async fn database_killed(scene: &mut Scene, play: Play, step: StepName, middle: Amid) -> Survived {
    scene.ready_for(play).await;
    scene.fill(middle.takes_bulk()).await;
    let trap = scene.trap(play, Write::Started(step), After, Then::Hold);
    scene.ask(play).await;
    let held = trap.wait(PATIENCE).await;
    let hold = middle.prepare(scene).await;
    drop(held);
    middle.seen(scene).await;
    if middle.takes_bulk() {
        // Stopping a server takes a moment, in which the effect would come to its end.
        scene.operator.signal("STOP").await;
        assert!(middle.still(scene).await, "{} was over before the server was killed", step.as_str());
    }
    let clock = Clock::start();
    Part::MariaDb.kill().await;
    Part::MariaDb.start().await;
    if middle.takes_bulk() {
        scene.operator.signal("CONT").await;
    }
    hold.release().await;
    let lost = scene.rest(play).await;
    clock.stop(lost)
}

/// The API server goes away once a step is written down as started.
pub async fn api_server_away(scene: &mut Scene, play: Play, step: StepName) -> Survived {
    let held = scene.hold(play, Write::Started(step), After).await;
    let clock = Clock::start();
    Part::ApiServer.kill().await;
    drop(held);
    scene.operator.asks(Asks::InVain, IN_VAIN, PATIENCE).await;
    // By itself it asks again after half a minute, and leads clients and checks to pods that are gone until then.
    Part::KubeProxy.kill().await;
    Part::ApiServer.start().await;
    Part::KubeProxy.start().await;
    let lost = scene.rest(play).await;
    clock.stop(lost)
}

/// The cache is away when a rollback begins: that holds nothing up before the flush, which is tried again until it is back.
pub async fn cache_away_before(scene: &mut Scene) -> Survived {
    cache_away(scene, Write::Opened, Before).await
}

/// The cache goes away behind the fence: the flush is tried again until it is back.
pub async fn cache_away_amid(scene: &mut Scene) -> Survived {
    cache_away(scene, Write::Started(StepName::Fence), After).await
}

async fn cache_away(scene: &mut Scene, write: Write, when: When) -> Survived {
    let held = scene.hold(Play::Revert, write, when).await;
    let clock = Clock::start();
    Part::Redis.kill().await;
    drop(held);
    scene.hindered(StepName::FlushCache).await;
    Part::Redis.start().await;
    let lost = scene.rest(Play::Revert).await;
    clock.stop(lost)
}

/// The git server is away before the release is kept: nothing else can be done without it.
pub async fn source_away_before(scene: &mut Scene) -> Survived {
    let held = scene.hold(Play::Deploy, Write::Opened, After).await;
    let before = touchable(scene).await;
    let clock = Clock::start();
    Part::Git.kill().await;
    drop(held);
    scene.hindered(StepName::Keep).await;
    assert_eq!(touchable(scene).await, before, "nothing is touched");
    Part::Git.start().await;
    let lost = scene.rest(Play::Deploy).await;
    clock.stop(lost)
}

/// The git server goes away once the release is kept: the operation comes to its end without it.
pub async fn source_away_amid(scene: &mut Scene) -> Survived {
    let held = scene.hold(Play::Deploy, Write::Started(StepName::Preflight), After).await;
    let clock = Clock::start();
    Part::Git.kill().await;
    drop(held);
    let ended = |status: &ReleaseStatus| {
        let operation = status.operation.as_ref();
        operation.is_some_and(|operation| operation.version == "1.1.0" && operation.state == OperationState::Succeeded)
    };
    scene.place.until("the deploy has ended without git", PATIENCE, ended).await;
    Part::Git.start().await;
    let lost = scene.rest(Play::Deploy).await;
    clock.stop(lost)
}

/// With the git server away, `spec.rollbackTo` goes back to a kept release, data and all.
pub async fn rollback_without_source(scene: &mut Scene) -> Survived {
    scene.ready_for(Play::Revert).await;
    scene.account.open(&scene.place).await;
    let clock = Clock::start();
    Part::Git.kill().await;
    scene.place.edit(json!({"rollbackTo": {"release": 1}})).await;
    let pinned = |status: &ReleaseStatus| {
        ready("1.0.0")(status) && condition(status, "Ready").is_some_and(|(_, reason, _)| reason == "PinnedByRollbackTo")
    };
    let status = scene.place.until("release 1 runs, without git", PATIENCE, pinned).await;
    let lost = scene.account.close(&scene.place, &scene.clients, Play::Revert, &status).await;
    let survived = clock.stop(lost);
    Part::Git.start().await;
    // Git comes round to what runs, and may rule again.
    scene.place.repository.revert();
    scene.place.edit(json!({"rollbackTo": null})).await;
    let unpinned = |status: &ReleaseStatus| ready("1.0.0")(status) && !pinned(status);
    scene.place.until("git rules again", PATIENCE, unpinned).await;
    scene.runs = Content::Base;
    survived
}

/// The node's kubelet is dead while a release is rolled out.
pub async fn kubelet_away(scene: &mut Scene) -> Survived {
    let held = scene.hold(Play::Deploy, Write::Effect(Method::PATCH, "/deployments/"), After).await;
    away(scene, Part::Kubelet, held, Play::Deploy).await
}

/// The node's container runtime is dead while the fence goes up.
pub async fn containerd_away(scene: &mut Scene) -> Survived {
    let held = scene.hold(Play::Revert, Write::Effect(Method::PATCH, "/scale"), After).await;
    away(scene, Part::Containerd, held, Play::Revert).await
}

async fn away(scene: &mut Scene, part: Part, held: Held, play: Play) -> Survived {
    let clock = Clock::start();
    part.kill().await;
    drop(held);
    scene.operator.asks(Asks::ForDeployment, LOOKS, PATIENCE).await;
    part.start().await;
    let lost = scene.rest(play).await;
    clock.stop(lost)
}

/// No node has the image: Preflight refuses while nothing is touched, and the next commit is followed.
pub async fn image_missing(scene: &mut Scene) -> Survived {
    scene.ready_for(Play::Deploy).await;
    scene.account.open(&scene.place).await;
    let before = touchable(scene).await;
    let clock = Clock::start();
    scene.place.write_manifest("9.9.9", 300);
    scene.place.repository.push("liqui 9.9.9");
    scene.hindered(StepName::Preflight).await;
    assert_eq!(touchable(scene).await, before, "nothing is touched");
    scene.place.repository.revert();
    scene.place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    let lost = scene.account.whole(&scene.place, &scene.clients, Content::Base).await;
    clock.stop(lost)
}

/// What an operation must not touch before it can come to its end: the Deployment, the schemas, the migrations.
async fn touchable(scene: &Scene) -> (Value, Vec<String>) {
    let deployment = scene.place.deployment().await.spec;
    let database = &scene.place.database;
    let facts = column(format!(
        "SELECT CONCAT(version, ' ', state) FROM {database}._backout_migrations \
         UNION ALL SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '{}%' ORDER BY 1",
        database.replace('_', "\\_")
    ))
    .await;
    (serde_json::to_value(deployment).expect("a Deployment is an object"), facts)
}
