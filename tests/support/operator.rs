//! Backout in the bed's cluster, installed from `manifests/` as a user would.

use std::{process::Command, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::PersistentVolume};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::wait::{await_condition, conditions::is_deployment_completed},
};
use serde_json::json;
use tokio::{
    sync::{OnceCell, RwLock, RwLockWriteGuard},
    time::timeout,
};

use super::bed::{client, variable};

/// Tests that the installed operator works for share it; one that runs an operator of its own takes it for itself.
pub static GATE: RwLock<()> = RwLock::const_new(());

static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// Installs it once for all tests of this process; does nothing where it runs already.
pub async fn install() {
    INSTALLED.get_or_init(apply).await;
}

/// The installed operator is away. It comes back when this is dropped, also where the test failed: the next one needs it.
#[must_use = "the operator comes back when this is dropped"]
pub struct Away {
    _alone: RwLockWriteGuard<'static, ()>,
}

/// Keeps the installed operator away.
pub async fn keep_away() -> Away {
    let away = Away { _alone: GATE.write().await };
    install().await;
    kubectl(&["-n", "backout-system", "scale", "deployment/backout", "--replicas=0"]);
    kubectl(&["-n", "backout-system", "wait", "pod", "--all", "--for=delete", "--timeout=60s"]);
    away
}

impl Drop for Away {
    fn drop(&mut self) {
        for arguments in
            [["scale", "deployment/backout", "--replicas=2"].as_slice(), &["rollout", "status", "deployment/backout", "--timeout=60s"]]
        {
            // A second panic in an unwinding test would end all of them.
            if let Err(error) = attempt(&[&["-n", "backout-system"], arguments].concat()) {
                eprintln!("the installed operator did not come back: {error}");
            }
        }
    }
}

async fn apply() {
    let client = client().await;
    // The bed has no storage provisioner: the claim of the manifests binds to this folder.
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "backout-data"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteMany"],
            "hostPath": {"path": variable("BED_DATA"), "type": "Directory"},
        },
    });
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    volumes.patch("backout-data", &PatchParams::apply("test"), &Patch::Apply(&volume)).await.expect("the volume can be made");
    kubectl(&["apply", "--server-side", "--force-conflicts", "-k", concat!(env!("CARGO_MANIFEST_DIR"), "/manifests")]);
    kubectl(&["apply", "--server-side", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/approved-by.yaml")]);
    policies_are_in_force().await;
    let deployments: Api<Deployment> = Api::namespaced(client, "backout-system");
    timeout(Duration::from_secs(60), await_condition(deployments, "backout", is_deployment_completed()))
        .await
        .unwrap_or_else(|_| panic!("the operator did not come up:\n{}", kubectl(&["-n", "backout-system", "get", "pods", "-o", "wide"])))
        .expect("the operator's Deployment can be watched");
}

/// What a policy is about is refused until the API server has discovered the new kinds, which it looks for every now and then.
async fn policies_are_in_force() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("release.json");
    let release = json!({
        "apiVersion": "backout.dev/v1alpha1",
        "kind": "Release",
        "metadata": {"name": "nobodys", "namespace": "default", "annotations": {"backout.dev/approve": "sha256:0"}},
        "spec": {},
    });
    std::fs::write(&file, release.to_string()).expect("files can be written");
    super::bed::eventually("the policies can be judged", Duration::from_secs(90), async || {
        let tried = attempt(&["create", "--dry-run=server", "-f", &file.display().to_string()]);
        let unknown = tried.is_err_and(|refusal| refusal.contains("ServiceUnavailable"));
        (!unknown).then_some(())
    })
    .await;
}

/// Runs kubectl against the bed and returns what it prints.
pub fn kubectl(arguments: &[&str]) -> String {
    attempt(arguments).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
}

/// The same, where a refusal is what may be wanted.
pub fn attempt(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("kubectl").args(arguments).output().expect("the bed has kubectl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
