//! Two operators and one Lease: a leader that is frozen or stopped, and a standby that takes over.

use std::time::{Duration, Instant};

use backout::api::operation::{Kind, StepName};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use crate::support::{
    bed::variable,
    operator,
    place::{Place, ready},
    process::Process,
    trap::{Then, Trap, When, Write},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// The lease's duration, a standby's last look before it, and one of slack for a busy machine.
const TAKEN_OVER: Duration = Duration::from_secs(15 + 2 * 2 + 2);
/// A standby looks every two seconds; as much again for a busy machine.
const NEXT_LOOK: Duration = Duration::from_secs(2 * 2);
const LEADS: &str = "this process leads";

async fn start(place: &Place, name: &str, backups: &str) -> Process {
    let arguments = ["--pod-name", name, "--pod-namespace", &place.namespace, "--backups", backups];
    Process::start(place, &arguments).await
}

async fn holder(place: &Place) -> Option<String> {
    place.api::<Lease>().get("backout").await.expect("the Lease is there").spec.and_then(|spec| spec.holder_identity)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_replaced_and_writes_nothing_when_it_wakes() {
    let _away = operator::keep_away().await;
    let place = Place::alone("two-operators").await;
    let backups = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = backups.path().display().to_string();
    let mut spec = place.spec();
    // The operators run on the node, where the cluster's names are not known.
    spec["database"]["mysql"]["host"] = json!(variable("BED_MYSQL_HOST"));
    spec["database"]["backup"] = json!({"store": {"url": format!("file://{folder}")}});
    spec["cache"]["redis"]["host"] = json!(variable("BED_REDIS_HOST"));
    spec["verify"]["checks"][0]["http"]["url"] = json!(format!("{}/health", place.service().await));
    spec["verify"]["bake"] = json!({"for": "2s", "every": "500ms"});

    let first = start(&place, "first", &folder).await;
    first.says(LEADS, PATIENCE).await;
    let second = start(&place, "second", &folder).await;
    second.ready().await;
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    place.create(spec).await.expect("the Release is accepted");
    place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    assert!(!second.log().contains(LEADS));
    assert_eq!(second.written(), Vec::<String>::new(), "a standby is ready, and writes nothing");

    // The bake is written down as begun, which the leader neither knows nor has told anybody, and there is something to do at every moment.
    place.edit(json!({"verify": {"bake": {"for": "30s", "every": "200ms"}}})).await;
    let trap = Trap { after: 1, kind: Kind::Deploy, write: Write::Started(StepName::Bake), when: When::After };
    let trap = first.trap(trap, Then::Hold);
    place.write_release("1.1.0");
    place.repository.push("liqui 1.1.0");
    let held = trap.wait(PATIENCE).await;
    first.signal("STOP").await;
    drop(held);
    let frozen = Instant::now();
    second.says(LEADS, TAKEN_OVER).await;
    println!("a frozen leader was replaced after {:.1} s", frozen.elapsed().as_secs_f64());
    assert!(frozen.elapsed() > Duration::from_secs(8), "not before the lease has run out");
    let _ = first.written();
    first.signal("CONT").await;
    let status = first.ended(Duration::from_secs(5)).await;
    assert!(!status.success());
    assert_eq!(first.written(), Vec::<String>::new(), "{}", first.log());
    assert!(first.log().contains("leadership is lost: Lease backout was not renewed for 10s"), "{}", first.log());
    place.until("the other one goes on", PATIENCE, ready("1.1.0")).await;
    assert!(holder(&place).await.is_some_and(|holder| holder.starts_with("second_")));

    // One that is told to stop brings what it is at to its end, and is alive until then.
    let third = start(&place, "third", &folder).await;
    third.ready().await;
    let trap = Trap { after: 2, kind: Kind::Deploy, write: Write::Started(StepName::Keep), when: When::After };
    let trap = second.trap(trap, Then::Hold);
    place.write_manifest("1.1.0", 301);
    place.repository.push("another configuration");
    let held = trap.wait(PATIENCE).await;
    second.signal("TERM").await;
    second.says("stopping: what runs is finished", PATIENCE).await;
    second.ready().await;
    drop(held);
    let status = second.ended(PATIENCE).await;
    let released = Instant::now();
    assert!(status.success() && second.log().contains("KeepDone"), "{}", second.log());
    third.says(LEADS, NEXT_LOOK).await;
    println!("a stopped leader was replaced after {:.1} s", released.elapsed().as_secs_f64());

    // After a crash the next process of the same pod need not wait.
    third.signal("KILL").await;
    let crashed = Instant::now();
    let again = start(&place, "third", &folder).await;
    again.says(LEADS, Duration::from_secs(5)).await;
    println!("a crashed leader was back after {:.1} s", crashed.elapsed().as_secs_f64());
    again.ready().await;
    drop(again);
}
