//! A part that hangs delays only the Releases that name it.

use std::time::{Duration, Instant};

use backout::api::Release;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, PostParams},
    core::ApiResource,
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{
    bed::variable,
    place::{Place, ready},
};

/// More than an operator could have places for if each held one.
const HANGING: usize = 60;
/// Half of what a hanging fetch takes: no Release waits for one.
const PATIENCE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn releases_that_hang_hold_up_no_other() {
    let place = Place::new("hanging").await;
    // Takes connections and never answers.
    let hole = TcpListener::bind((variable("BED_NODE_IP"), 0)).await.expect("the node has a free port");
    let address = hole.local_addr().expect("a listener has an address");
    let swallowing = tokio::spawn(async move {
        let mut swallowed = Vec::new();
        while let Ok((stream, _)) = hole.accept().await {
            swallowed.push(stream);
        }
    });
    let api: Api<DynamicObject> = Api::namespaced_with(place.client.clone(), &place.namespace, &ApiResource::erase::<Release>(&()));
    for number in 0..HANGING {
        let release = json!({
            "apiVersion": "backout.dev/v1alpha1",
            "kind": "Release",
            "metadata": {"name": format!("hanging-{number}"), "namespace": place.namespace},
            "spec": {
                "interval": "1s",
                "source": {"git": {"url": format!("http://{address}/{number}.git"), "ref": {"branch": "main"}}},
                "target": {"kubernetes": {"workloads": [{"name": "none", "container": "none"}]}},
            },
        });
        let release = serde_json::from_value(release).expect("a Release is an object");
        api.create(&PostParams::default(), &release).await.expect("the Release is accepted");
    }
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    let begun = Instant::now();
    place.create(place.spec()).await.expect("the Release is accepted");
    place.until("the one that does not hang is ready", PATIENCE, ready("1.0.0")).await;
    println!("ready after {:.1} s beside {HANGING} that hang", begun.elapsed().as_secs_f64());
    // So that they hold up no later test's clean end.
    for number in 0..HANGING {
        api.delete(&format!("hanging-{number}"), &DeleteParams::default()).await.expect("the Release can be deleted");
    }
    swallowing.abort();
}
