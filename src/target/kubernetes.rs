//! Deployments: giving them a release, following their rollout, scaling them.
//!
//! Server-side apply with one field manager owns exactly the image, the environment entries that a release brings, and an
//! annotation; nothing else of the user's Deployment. Applying the same release again changes nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::cluster::{Error, within};

/// What one container should have.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    pub name: String,
    pub image: Option<String>,
    /// Environment entries as the API has them, each with `name` and `valueFrom`.
    pub env: Vec<Value>,
}

/// How far a rollout has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Rollout {
    Complete {
        message: String,
    },
    Progressing {
        message: String,
    },
    /// It will not come to an end by itself.
    Failed {
        message: String,
    },
}

/// One namespace's workloads.
#[derive(Clone)]
pub struct Kubernetes {
    deployments: Api<Deployment>,
    config_maps: Api<ConfigMap>,
    pub(super) pods: Api<Pod>,
    manager: &'static str,
}

impl Kubernetes {
    pub fn new(client: &Client, namespace: &str, manager: &'static str) -> Self {
        Self {
            deployments: Api::namespaced(client.clone(), namespace),
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

    /// Whether the newest template of a Deployment has replaced all others.
    pub async fn rollout(&self, name: &str) -> Result<Rollout, Error> {
        let Some(deployment) = self.deployment(name).await? else {
            return Ok(Rollout::Failed { message: format!("Deployment {name} does not exist") });
        };
        let rollout = judge(name, &deployment);
        if let Rollout::Progressing { message } = rollout {
            let pods = self.pods_of(&deployment).await?;
            return Ok(match trouble(&pods) {
                Some(Trouble { detail, lasting: true }) => Rollout::Failed { message: format!("Deployment {name}: {detail}") },
                Some(Trouble { detail, lasting: false }) => Rollout::Progressing { message: format!("{message}: {detail}") },
                None => Rollout::Progressing { message },
            });
        }
        if let Rollout::Failed { message } = rollout {
            let pods = self.pods_of(&deployment).await?;
            let detail = trouble(&pods).map(|trouble| format!(": {}", trouble.detail)).unwrap_or_default();
            return Ok(Rollout::Failed { message: format!("{message}{detail}") });
        }
        Ok(rollout)
    }

    /// Pods of a Deployment that still exist, terminating ones included; those that have ended are not counted.
    pub async fn pods_left(&self, name: &str) -> Result<usize, Error> {
        match self.deployment(name).await? {
            Some(deployment) => Ok(self.pods_of(&deployment).await?.iter().filter(|pod| !ended(pod)).count()),
            None => Ok(0),
        }
    }

    async fn pods_of(&self, deployment: &Deployment) -> Result<Vec<Pod>, Error> {
        let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
        let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let params = ListParams::default().labels(&selector.join(","));
        let pods = within(format!("listing the pods of Deployment {}", deployment.name_any()), self.pods.list(&params)).await?;
        Ok(pods.items)
    }

    fn apply(&self) -> PatchParams {
        // Ownership of the image and the release's variables is what spec.target hands over.
        PatchParams::apply(self.manager).force()
    }
}

/// The rules of `kubectl rollout status`.
fn judge(name: &str, deployment: &Deployment) -> Rollout {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        return Rollout::Progressing { message: format!("Deployment {name} has not been looked at by its controller yet") };
    }
    let overdue = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Progressing" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    let (total, updated, available) =
        (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    if updated == wanted && total == wanted && available == wanted {
        return Rollout::Complete { message: format!("Deployment {name}: {wanted} of {wanted} replicas updated and available") };
    }
    let message = format!("Deployment {name}: {updated} of {wanted} replicas updated, {available} available");
    if overdue {
        Rollout::Failed { message: format!("{message}; its progressDeadlineSeconds have passed") }
    } else {
        Rollout::Progressing { message }
    }
}

/// Why pods don't come up.
struct Trouble {
    detail: String,
    lasting: bool,
}

/// So many restarts are no start-up hiccup any more.
const RESTARTS_THAT_TELL: i32 = 3;

fn trouble(pods: &[Pod]) -> Option<Trouble> {
    let mut found: Vec<Trouble> = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .flat_map(|pod| pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()))
        .filter_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.as_deref()?;
            let lasting = match reason {
                "ErrImageNeverPull" | "InvalidImageName" | "CreateContainerConfigError" => true,
                "CrashLoopBackOff" => container.restart_count >= RESTARTS_THAT_TELL,
                "ErrImagePull" | "ImagePullBackOff" => false,
                _ => return None,
            };
            Some(Trouble { detail: format!("container {} ({}): {reason}", container.name, container.image), lasting })
        })
        .collect();
    found.sort_by(|one, other| (other.lasting, &other.detail).cmp(&(one.lasting, &one.detail)));
    found.into_iter().next()
}

fn ended(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}
