//! Deployments: giving them a release, following their rollout, scaling them.
//!
//! Server-side apply with one field manager owns exactly the image, the environment entries that a release brings, and an
//! annotation; nothing else of the user's Deployment. Applying the same release again changes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::rollout::{self, Rollout, Seen};
use crate::cluster::{Error, within};

/// What one container should have.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    pub name: String,
    pub image: Option<String>,
    /// Environment entries as the API has them, each with `name` and `valueFrom`.
    pub env: Vec<Value>,
}

/// One namespace's workloads.
#[derive(Clone)]
pub struct Kubernetes {
    deployments: Api<Deployment>,
    sets: Api<ReplicaSet>,
    config_maps: Api<ConfigMap>,
    pub(super) pods: Api<Pod>,
    manager: &'static str,
}

impl Kubernetes {
    pub fn new(client: &Client, namespace: &str, manager: &'static str) -> Self {
        Self {
            deployments: Api::namespaced(client.clone(), namespace),
            sets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            manager,
        }
    }

    pub async fn deployment(&self, name: &str) -> Result<Option<Deployment>, Error> {
        within(format!("reading Deployment {name}"), self.deployments.get_opt(name)).await
    }

    /// Makes the immutable ConfigMap, or finds it: its name says what is in it.
    pub async fn config_map(&self, name: &str, metadata: Value, data: &BTreeMap<String, String>) -> Result<(), Error> {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": true, "data": data});
        within(format!("applying ConfigMap {name}"), self.config_maps.patch(name, &self.apply(), &Patch::Apply(&map))).await?;
        Ok(())
    }

    /// Gives the containers of one Deployment what they should have.
    pub async fn give(&self, name: &str, annotation: (&str, String), containers: &[ContainerSpec]) -> Result<(), Error> {
        let containers: Vec<Value> = containers
            .iter()
            .map(|container| {
                let mut spec = json!({"name": container.name, "env": container.env});
                if let (Some(image), Some(fields)) = (&container.image, spec.as_object_mut()) {
                    fields.insert("image".to_owned(), json!(image));
                }
                spec
            })
            .collect();
        let patch = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "annotations": {annotation.0: annotation.1}},
            "spec": {"template": {"spec": {"containers": containers}}},
        });
        within(format!("applying Deployment {name}"), self.deployments.patch(name, &self.apply(), &Patch::Apply(&patch))).await?;
        Ok(())
    }

    pub async fn scale(&self, name: &str, replicas: i32) -> Result<(), Error> {
        let patch = json!({"spec": {"replicas": replicas}});
        let params = PatchParams { field_manager: Some(self.manager.to_owned()), ..PatchParams::default() };
        within(format!("scaling Deployment {name}"), self.deployments.patch_scale(name, &params, &Patch::Merge(&patch))).await?;
        Ok(())
    }

    /// Whether the newest template of a Deployment has replaced all others, `since` the change that is followed began.
    pub async fn rollout(&self, name: &str, since: Option<Timestamp>) -> Result<Rollout, Error> {
        let Some(deployment) = self.deployment(name).await? else {
            return Ok(Rollout::Failed { message: format!("Deployment {name} does not exist") });
        };
        let bare = rollout::judge(name, &Seen { deployment: &deployment, sets: &[], pods: &[] }, since);
        if !rollout::is_current(&deployment) || matches!(bare, Rollout::Complete { .. }) {
            return Ok(bare);
        }
        let (sets, pods) = (self.sets_of(&deployment).await?, self.pods_of(&deployment).await?);
        Ok(rollout::judge(name, &Seen { deployment: &deployment, sets: &sets, pods: &pods }, since))
    }

    /// Pods of a Deployment that still exist, terminating ones included; those that have ended are not counted.
    pub async fn pods_left(&self, name: &str) -> Result<usize, Error> {
        match self.deployment(name).await? {
            Some(deployment) => Ok(self.pods_of(&deployment).await?.iter().filter(|pod| !ended(pod)).count()),
            None => Ok(0),
        }
    }

    async fn pods_of(&self, deployment: &Deployment) -> Result<Vec<Pod>, Error> {
        let doing = format!("listing the pods of Deployment {}", deployment.name_any());
        Ok(within(doing, self.pods.list(&selected(deployment))).await?.items)
    }

    async fn sets_of(&self, deployment: &Deployment) -> Result<Vec<ReplicaSet>, Error> {
        let doing = format!("listing the ReplicaSets of Deployment {}", deployment.name_any());
        Ok(within(doing, self.sets.list(&selected(deployment))).await?.items)
    }

    fn apply(&self) -> PatchParams {
        // Ownership of the image and the release's variables is what spec.target hands over.
        PatchParams::apply(self.manager).force()
    }
}

fn selected(deployment: &Deployment) -> ListParams {
    let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    ListParams::default().labels(&selector.join(","))
}

fn ended(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}
