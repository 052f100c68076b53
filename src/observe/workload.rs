//! The workloads: what they run, where their variables come from, how many replicas they have.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Container, EnvVar},
};
use kube::{
    Api, Client,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    api::release::ReleaseSpec,
    cluster::within,
    plan::input::{ContainerSeen, EnvSource, Outlook, Rollout, Seen, Unseen, WorkloadSeen},
};

/// Looks at the workloads of the spec in the watch cache.
pub fn observe(store: &Store<Deployment>, namespace: &str, spec: &ReleaseSpec) -> Seen<Vec<WorkloadSeen>> {
    let there = names(spec).filter_map(|name| Some((name, store.get(&ObjectRef::new(name).within(namespace))?.as_ref().clone())));
    judge(&there.collect(), spec)
}

/// Looks at them in the API server: what an operation is planned on must not be older than what was done last.
pub async fn afresh(client: &Client, namespace: &str, spec: &ReleaseSpec) -> Seen<Vec<WorkloadSeen>> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let mut there = BTreeMap::new();
    for name in names(spec) {
        match within(format!("reading Deployment {name}"), api.get_opt(name)).await {
            Ok(Some(deployment)) => drop(there.insert(name, deployment)),
            Ok(None) => {}
            Err(error) => {
                return Seen::Unknown(Unseen { reason: "ApiServerUnavailable", message: error.to_string(), outlook: Outlook::Passing });
            }
        }
    }
    judge(&there, spec)
}

fn names(spec: &ReleaseSpec) -> impl Iterator<Item = &str> {
    let names: BTreeSet<&str> = spec.target.kubernetes.workloads.iter().map(|target| target.name.as_str()).collect();
    names.into_iter()
}

fn judge(there: &BTreeMap<&str, Deployment>, spec: &ReleaseSpec) -> Seen<Vec<WorkloadSeen>> {
    let mut seen: Vec<WorkloadSeen> = Vec::new();
    for target in &spec.target.kubernetes.workloads {
        let Some(deployment) = there.get(target.name.as_str()) else {
            return unseen(format!("Deployment {} does not exist: create it or correct spec.target.kubernetes.workloads", target.name));
        };
        let workload = workload(&target.name, deployment);
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
        rollout: rollout(deployment),
        containers: containers.iter().map(|container| (container.name.clone(), observed(container))).collect(),
    }
}

/// No pod of an older template is left, and the controller has seen the newest one.
fn rollout(deployment: &Deployment) -> Rollout {
    let status = deployment.status.clone().unwrap_or_default();
    let seen = status.observed_generation >= deployment.metadata.generation;
    if seen && status.updated_replicas.unwrap_or(0) == status.replicas.unwrap_or(0) { Rollout::Complete } else { Rollout::Underway }
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
