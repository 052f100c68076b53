//! Whether a node can get an image: asked of the kubelet, which has the credentials, mirrors and policies that count.
//!
//! A pod with the Deployment's own settings and a command that can't exist is made: the kubelet pulls the image and then
//! fails to start the container, so that nothing of the image ever runs. Its name is fixed, and it is always removed.
//!
//! Only a kubelet that tried and failed says that an image can't be had. A pod that found no place says nothing about the
//! image, and must not hold up a rollback on a full cluster.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, Pod, PodSpec, ResourceRequirements},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams},
    runtime::wait::await_condition,
};

use super::{Error, kubernetes::Kubernetes};
use crate::cluster::{self, within};

/// A pull that takes longer is a slow registry: the rollout will wait for what is on its way. Longer holds up a rollback.
const PULL_DEADLINE: Duration = Duration::from_secs(60);
/// No image has this file, so nothing runs.
const NO_COMMAND: &str = "/backout-looks-whether-this-image-can-be-pulled";

/// What was found out about an image.
#[derive(Clone, Debug, PartialEq)]
pub enum Image {
    Present,
    /// Why the kubelet can't get it.
    Absent {
        detail: String,
    },
    /// Nobody could tell, and why.
    Untold {
        detail: String,
    },
}

impl Kubernetes {
    /// Asks a node for `image` as the container of the Deployment would use it.
    pub async fn image(
        &self,
        pod_name: &str,
        metadata: ObjectMeta,
        deployment: &Deployment,
        container: &str,
        image: &str,
    ) -> Result<Image, Error> {
        self.remove(pod_name).await?;
        let Some(pod) = probe(pod_name, metadata, deployment, container, image) else {
            return Ok(Image::Absent { detail: format!("Deployment {} has no container {container}", deployment.name_any()) });
        };
        if let Err(error) = self.create(pod_name, pod).await {
            return match error {
                cluster::Error::Refused { source, .. } if is_forbidden(&source) => Ok(Image::Untold { detail: refusal(&source) }),
                error => Err(error.into()),
            };
        }
        let told = tokio::time::timeout(
            PULL_DEADLINE,
            await_condition(self.pods.clone(), pod_name, |pod: Option<&Pod>| pod.and_then(verdict).is_some()),
        )
        .await;
        self.remove(pod_name).await?;
        let untold = |detail: String| Image::Untold { detail };
        Ok(match told {
            Ok(Ok(pod)) => pod.as_ref().and_then(verdict).unwrap_or_else(|| untold(format!("Pod {pod_name} was removed by somebody else"))),
            Ok(Err(error)) => untold(format!("Pod {pod_name} could not be watched: {error}")),
            Err(_) => untold(format!("it was not pulled within {} s", PULL_DEADLINE.as_secs())),
        })
    }

    /// Asks for no resources; where a quota wants every pod to name some, for next to none.
    async fn create(&self, pod_name: &str, mut pod: Pod) -> Result<(), cluster::Error> {
        let post = PostParams::default();
        match within(format!("creating Pod {pod_name}"), self.pods.create(&post, &pod)).await {
            Err(cluster::Error::Refused { source, .. }) if is_forbidden(&source) => {
                for container in pod.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
                    container.resources = Some(next_to_nothing());
                }
                within(format!("creating Pod {pod_name}"), self.pods.create(&post, &pod)).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn remove(&self, pod_name: &str) -> Result<(), Error> {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        match within(format!("deleting Pod {pod_name}"), self.pods.delete(pod_name, &now)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// By a quota, an admission policy or a missing right: none of them says anything about the image.
fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

fn refusal(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn next_to_nothing() -> ResourceRequirements {
    let of = |cpu: &str, memory: &str| {
        Some(BTreeMap::from([("cpu".to_owned(), Quantity(cpu.to_owned())), ("memory".to_owned(), Quantity(memory.to_owned()))]))
    };
    // A container runtime needs some memory of the limit for itself.
    ResourceRequirements { requests: of("1m", "1Mi"), limits: of("10m", "16Mi"), ..ResourceRequirements::default() }
}

fn probe(name: &str, metadata: ObjectMeta, deployment: &Deployment, container: &str, image: &str) -> Option<Pod> {
    let template = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let own = template.containers.iter().find(|candidate| candidate.name == container)?;
    Some(Pod {
        // Without the Deployment's labels: no Service may send it traffic.
        metadata: ObjectMeta { name: Some(name.to_owned()), ..metadata },
        spec: Some(PodSpec {
            containers: vec![Container {
                name: own.name.clone(),
                image: Some(image.to_owned()),
                image_pull_policy: own.image_pull_policy.clone(),
                command: Some(vec![NO_COMMAND.to_owned()]),
                security_context: own.security_context.clone(),
                ..Container::default()
            }],
            restart_policy: Some("Never".to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            image_pull_secrets: template.image_pull_secrets.clone(),
            security_context: template.security_context.clone(),
            node_selector: template.node_selector.clone(),
            tolerations: template.tolerations.clone(),
            affinity: template.affinity.clone(),
            termination_grace_period_seconds: Some(0),
            ..PodSpec::default()
        }),
        status: None,
    })
}

/// `None` while nobody has made up their mind.
fn verdict(pod: &Pod) -> Option<Image> {
    let status = pod.status.as_ref()?;
    let unscheduled = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unscheduled {
        let why = condition.message.clone().unwrap_or_default();
        return Some(Image::Untold { detail: format!("no node took the pod that asks for it: {why}") });
    }
    let container = status.container_statuses.as_ref()?.first()?;
    let state = container.state.as_ref()?;
    if state.terminated.is_some() || state.running.is_some() {
        return Some(Image::Present);
    }
    let waiting = state.waiting.as_ref()?;
    match waiting.reason.as_deref() {
        Some(reason @ ("ErrImageNeverPull" | "InvalidImageName" | "ErrImagePull" | "ImagePullBackOff" | "ImageInspectError")) => {
            Some(Image::Absent {
                detail: waiting.message.as_deref().map_or_else(|| reason.to_owned(), |message| format!("{reason}: {message}")),
            })
        }
        // The image is there; the container could not be started, as intended.
        Some("RunContainerError" | "CreateContainerError" | "StartError") => Some(Image::Present),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_a_kubelet_that_tried_says_that_an_image_can_not_be_had() {
        let waiting = |reason: &str| {
            json!({"containerStatuses": [{"name": "api", "image": "api:1", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": reason, "message": "why"}}}]})
        };
        let unschedulable = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu."}]});
        let absent = |reason: &str| Some(Image::Absent { detail: format!("{reason}: why") });
        let untold = Some(Image::Untold {
            detail: "no node took the pod that asks for it: 0/1 nodes are available: 1 Insufficient cpu.".to_owned(),
        });
        for (status, expected) in [
            (waiting("ErrImagePull"), absent("ErrImagePull")),
            (waiting("ImagePullBackOff"), absent("ImagePullBackOff")),
            (waiting("InvalidImageName"), absent("InvalidImageName")),
            (waiting("ErrImageNeverPull"), absent("ErrImageNeverPull")),
            (waiting("RunContainerError"), Some(Image::Present)),
            (waiting("ContainerCreating"), None),
            (unschedulable, untold),
            (json!({"phase": "Pending"}), None),
        ] {
            let pod: Pod = serde_json::from_value(json!({"status": status.clone()})).expect("the fixture is valid");
            assert_eq!(verdict(&pod), expected, "{status}");
        }
    }

    #[test]
    fn the_pod_that_asks_wants_no_resources_and_no_traffic() {
        let deployment: Value = json!({"spec": {"selector": {"matchLabels": {"app": "api"}}, "template": {
            "metadata": {"labels": {"app": "api"}},
            "spec": {"containers": [{"name": "api", "resources": {"requests": {"cpu": "4"}}}]}}}});
        let deployment: Deployment = serde_json::from_value(deployment).expect("the fixture is valid");
        let pod = probe("asks", ObjectMeta::default(), &deployment, "api", "api:2").expect("the container is there");
        assert_eq!(pod.metadata.labels, None);
        let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
        assert!(containers.iter().all(|container| container.resources.is_none() && container.image.as_deref() == Some("api:2")));
    }
}
