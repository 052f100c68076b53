//! Deploy: give the workloads the release's images, configuration and secrets, and follow the rollout.
//!
//! Idempotent: the ConfigMap's name is a hash of what is in it, and applying the same fields again changes nothing.

use serde_json::{Value, json};

use super::{Error, Outcome, Task, done, waiting};
use crate::{
    api::{Kept, names, operation::Step},
    target::{kubernetes::ContainerSpec, rollout::Rollout},
};

pub async fn run(task: &Task<'_>, step: &Step, number: u64) -> Result<Outcome, Error> {
    let kept = task.kept(number).await?;
    let kubernetes = task.kubernetes();
    let map = names::config_map(&task.name, &kept.content.config);
    if !kept.content.config.is_empty() {
        kubernetes.config_map(&map, task.lasting_metadata(&map), &kept.content.config).await?;
    }
    let env = environment(&map, &kept);
    let targets = &task.release.spec.target.kubernetes.workloads;
    let mut names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    names.dedup();
    for name in &names {
        let containers: Vec<ContainerSpec> = targets
            .iter()
            .filter(|target| target.name == *name)
            .map(|target| ContainerSpec {
                name: target.container.clone(),
                image: kept.content.images.get(&target.container).cloned(),
                env: env.clone(),
            })
            .collect();
        task.may_act()?;
        kubernetes.give(name, (names::NUMBER_ANNOTATION, number.to_string()), &containers).await?;
    }
    let mut messages = Vec::new();
    for name in &names {
        match kubernetes.rollout(name, step.started_at).await? {
            Rollout::Complete { message } => messages.push(message),
            Rollout::Progressing { message } => return waiting(message),
            Rollout::Failed { message } => return Ok(Outcome::Failed { message }),
        }
    }
    done(messages.join("; "))
}

/// One entry a key: entries are merged by name, so that the user's own stay.
fn environment(map: &str, kept: &Kept) -> Vec<Value> {
    let config = kept.content.config.keys().map(|key| json!({"name": key, "valueFrom": {"configMapKeyRef": {"name": map, "key": key}}}));
    let secrets = kept.secret_keys.iter().flat_map(|(secret, keys)| {
        keys.iter().map(move |key| json!({"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}))
    });
    config.chain(secrets).collect()
}
