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
    core::Selector,
};
use serde_json::{Value, json};

use super::{
    Error,
    rollout::{self, Rollout, Seen},
};
use crate::{
    cluster::{self, within},
    error::Class,
};

/// Tries of one write while only the status changes under it; a rollout changes it a few times a second.
const WRITES: usize = 5;

/// What one container should have.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    pub name: String,
    pub image: Option<String>,
    /// Environment entries as the API has them, each with `name` and `valueFrom`.
    pub env: Vec<Value>,
}

/// What of a Deployment still stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It is asked for pods.
    Wanted { replicas: i32, deployment: Box<Deployment> },
    /// It is asked for none, and so many are left; those that terminate count, those that have ended don't.
    Ending { left: usize },
    /// No pod, and none to come.
    Gone,
}

/// What is written to a Deployment.
enum Write {
    /// By server-side apply.
    Fields(Value),
    Replicas(i32),
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
        Ok(within(format!("reading Deployment {name}"), self.deployments.get_opt(name)).await?)
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
        let read = self.existing(name).await?;
        self.write(name, read, &Write::Fields(patch)).await
    }

    /// Sets the replicas of a Deployment as it was read.
    pub async fn scale(&self, read: Deployment, replicas: i32) -> Result<(), Error> {
        self.write(&read.name_any(), read, &Write::Replicas(replicas)).await
    }

    /// A write that carries the resourceVersion of what was read: somebody who changed the Deployment since then wins, and
    /// the step looks again. Its own controller writes the status all the time; that alone is no reason to give up.
    async fn write(&self, name: &str, read: Deployment, write: &Write) -> Result<(), Error> {
        let mut result = self.write_once(name, &read, write).await;
        for _ in 1..WRITES {
            match result {
                Err(error) if error.class() == Class::Conflict => {
                    let newest = self.existing(name).await?;
                    if !is_same(&newest, &read) {
                        return Err(error.into());
                    }
                    result = self.write_once(name, &newest, write).await;
                }
                other => return Ok(other?),
            }
        }
        Ok(result?)
    }

    async fn write_once(&self, name: &str, read: &Deployment, write: &Write) -> Result<(), cluster::Error> {
        let version = json!(read.metadata.resource_version);
        match write {
            Write::Fields(fields) => {
                let mut patch = fields.clone();
                if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.insert("resourceVersion".to_owned(), version);
                }
                let patch = Patch::Apply(&patch);
                within(format!("applying Deployment {name}"), self.deployments.patch(name, &self.apply(), &patch)).await.map(drop)
            }
            Write::Replicas(replicas) => {
                let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}});
                let params = PatchParams { field_manager: Some(self.manager.to_owned()), ..PatchParams::default() };
                let patch = Patch::Merge(&patch);
                within(format!("scaling Deployment {name}"), self.deployments.patch_scale(name, &params, &patch)).await.map(drop)
            }
        }
    }

    async fn existing(&self, name: &str) -> Result<Deployment, Error> {
        Ok(within(format!("reading Deployment {name}"), self.deployments.get(name)).await?)
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

    /// What of a Deployment runs, or may come up without anybody asking for it.
    pub async fn standing(&self, name: &str) -> Result<Standing, Error> {
        let Some(deployment) = self.deployment(name).await? else { return Ok(Standing::Gone) };
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        if replicas != 0 {
            return Ok(Standing::Wanted { replicas, deployment: Box::new(deployment) });
        }
        let (sets, pods) = (self.sets_of(&deployment).await?, self.pods_of(&deployment).await?);
        let left = pods.iter().filter(|pod| !ended(pod)).count();
        // Until their controllers have seen the zero, they may make another pod.
        let settled = rollout::is_current(&deployment) && sets.iter().all(rollout::is_empty);
        Ok(if left == 0 && settled { Standing::Gone } else { Standing::Ending { left } })
    }

    async fn pods_of(&self, deployment: &Deployment) -> Result<Vec<Pod>, Error> {
        let doing = format!("listing the pods of Deployment {}", deployment.name_any());
        Ok(within(doing, self.pods.list(&selected(deployment)?)).await?.items)
    }

    async fn sets_of(&self, deployment: &Deployment) -> Result<Vec<ReplicaSet>, Error> {
        let doing = format!("listing the ReplicaSets of Deployment {}", deployment.name_any());
        Ok(within(doing, self.sets.list(&selected(deployment)?)).await?.items)
    }

    fn apply(&self) -> PatchParams {
        // Ownership of the image and the release's variables is what spec.target hands over.
        PatchParams::apply(self.manager).force()
    }
}

/// Whether nothing that a person or Backout writes has changed between two looks.
fn is_same(one: &Deployment, other: &Deployment) -> bool {
    let (one, other) = (&one.metadata, &other.metadata);
    one.uid == other.uid && one.generation == other.generation && one.labels == other.labels
}

/// The whole selector. An empty one would select every pod of the namespace.
fn selected(deployment: &Deployment) -> Result<ListParams, Error> {
    let name = || deployment.name_any();
    let selector = deployment.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    let selector = Selector::try_from(selector).map_err(|error| Error::Selector { name: name(), detail: error.to_string() })?;
    if selector.selects_all() {
        return Err(Error::Selector { name: name(), detail: "it is empty".to_owned() });
    }
    Ok(ListParams::default().labels_from(&selector))
}

fn ended(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}
