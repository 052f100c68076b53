//! Whether a node can get an image: asked of the kubelet, which has the credentials, mirrors and policies that count.
//!
//! A pod with the Deployment's own settings and a command that can't exist is made: the kubelet pulls the image and then
//! fails to start the container, so that nothing of the image ever runs. Its name is fixed, and it is always removed.

use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, Pod, PodSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams},
    runtime::wait::await_condition,
};

use super::kubernetes::Kubernetes;
use crate::cluster::{Error, within};

/// A pull that takes longer is a slow registry, which the rollout will wait for; it is no reason to refuse.
const PULL_DEADLINE: Duration = Duration::from_secs(120);
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
        within(format!("creating Pod {pod_name}"), self.pods.create(&PostParams::default(), &pod)).await?;
        let told = tokio::time::timeout(
            PULL_DEADLINE,
            await_condition(self.pods.clone(), pod_name, |pod: Option<&Pod>| pod.and_then(verdict).is_some()),
        )
        .await;
        self.remove(pod_name).await?;
        match told {
            Ok(Ok(pod)) => Ok(pod
                .as_ref()
                .and_then(verdict)
                .unwrap_or(Image::Absent { detail: format!("Pod {pod_name} was removed by somebody else") })),
            Ok(Err(error)) => Ok(Image::Absent { detail: format!("Pod {pod_name} could not be watched: {error}") }),
            Err(_) => Ok(Image::Absent { detail: format!("it was not pulled within {} s", PULL_DEADLINE.as_secs()) }),
        }
    }

    async fn remove(&self, pod_name: &str) -> Result<(), Error> {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        match within(format!("deleting Pod {pod_name}"), self.pods.delete(pod_name, &now)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
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
                resources: own.resources.clone(),
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

/// `None` while the kubelet has not made up its mind.
fn verdict(pod: &Pod) -> Option<Image> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
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
