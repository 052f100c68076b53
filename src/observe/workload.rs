//! The workloads as they stand in the watch cache.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Container, EnvVar},
};
use kube::runtime::reflector::{ObjectRef, Store};

use crate::{
    api::release::ReleaseSpec,
    plan::input::{ContainerSeen, EnvSource, Outlook, Seen, Unseen, WorkloadSeen},
};

/// Looks at each workload of the spec once, however many of its containers are targets.
pub fn observe(store: &Store<Deployment>, namespace: &str, spec: &ReleaseSpec) -> Seen<Vec<WorkloadSeen>> {
    let mut seen: Vec<WorkloadSeen> = Vec::new();
    for target in &spec.target.kubernetes.workloads {
        let Some(deployment) = store.get(&ObjectRef::new(&target.name).within(namespace)) else {
            return unseen(format!("Deployment {} does not exist: create it or correct spec.target.kubernetes.workloads", target.name));
        };
        let workload = workload(&target.name, &deployment);
        if !workload.containers.contains_key(&target.container) {
            let there: Vec<&str> = workload.containers.keys().map(String::as_str).collect();
            return unseen(format!("Deployment {} has no container {}: it has {}", target.name, target.container, there.join(", ")));
        }
        if seen.iter().all(|other| other.name != target.name) {
            seen.push(workload);
        }
    }
    Seen::Known(seen)
}

fn unseen(message: String) -> Seen<Vec<WorkloadSeen>> {
    Seen::Unknown(Unseen { reason: "TargetNotFound", message, outlook: Outlook::Passing })
}

fn workload(name: &str, deployment: &Deployment) -> WorkloadSeen {
    let spec = deployment.spec.as_ref();
    let containers = spec.and_then(|spec| spec.template.spec.as_ref()).map(|pod| pod.containers.as_slice()).unwrap_or_default();
    WorkloadSeen {
        name: name.to_owned(),
        // The API server's own default.
        replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        containers: containers.iter().map(|container| (container.name.clone(), observed(container))).collect(),
    }
}

fn observed(container: &Container) -> ContainerSeen {
    let env: BTreeMap<String, EnvSource> =
        container.env.iter().flatten().map(|variable| (variable.name.clone(), source(variable))).collect();
    ContainerSeen { image: container.image.clone().unwrap_or_default(), env }
}

fn source(variable: &EnvVar) -> EnvSource {
    let from = variable.value_from.as_ref();
    if let Some(reference) = from.and_then(|from| from.config_map_key_ref.as_ref()) {
        EnvSource::ConfigMap { name: reference.name.clone(), key: reference.key.clone() }
    } else if let Some(reference) = from.and_then(|from| from.secret_key_ref.as_ref()) {
        EnvSource::Secret { name: reference.name.clone(), key: reference.key.clone() }
    } else {
        EnvSource::Other
    }
}
