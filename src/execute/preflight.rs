//! Preflight: everything that the later steps need, looked at before anything is touched. Refuses with all the reasons at
//! once; a refusal is asked again, since each reason can be mended from outside.
//!
//! Idempotent: it reads, and the pods with which it asks for images are removed.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

use super::{Error, Outcome, Task, done};
use crate::{
    api::{
        Kept, names,
        operation::{Kind, Revert, Use},
    },
    error::Class,
    mysql,
    target::image::Image,
};

pub async fn run(task: &Task<'_>, number: u64, scripts: Scripts<'_>, database: Use, cache: Use) -> Result<Outcome, Error> {
    let kept = task.kept(number).await?;
    let mut found = Found { problems: secrets(task, &kept).await?, notes: Vec::new() };
    Box::pin(workloads(task, number, &kept, &mut found)).await?;
    let Found { mut problems, mut notes } = found;
    if database == Use::Needed {
        problems.extend(ups(&kept, scripts.migrations));
        problems.extend(downs(task, scripts.reverts).await?);
        problems.extend(store(task).await.err().map(|error| error.to_string()));
    }
    if cache == Use::Needed
        && let Err(error) = reach(task).await
    {
        let going_back =
            task.release.status.as_ref().and_then(|status| status.operation.as_ref()).is_some_and(|it| it.kind != Kind::Deploy);
        // A cache that stays dirty is less than a bad release that stays.
        if going_back { notes.push(format!("it goes on without the cache: {error}")) } else { problems.push(error.to_string()) }
    }
    if !problems.is_empty() {
        return Ok(Outcome::Refused { message: problems.join("; ") });
    }
    notes.insert(0, "nothing stands in the way".to_owned());
    done(notes.join("; "))
}

/// What was found.
struct Found {
    /// Reasons to refuse.
    problems: Vec<String>,
    /// What could not be found out, or can be done without.
    notes: Vec<String>,
}

async fn reach(task: &Task<'_>) -> Result<(), Error> {
    Ok(task.cache().await?.ping().await?)
}

/// The store can be opened and says what it holds, and the key that opens what is encrypted is there: a point that nobody can read is
/// no way back.
async fn store(task: &Task<'_>) -> Result<(), Error> {
    Ok(mysql::ask_store(&task.readable_store().await?, &task.prefix("")).await?)
}

/// The scripts that will be run.
#[derive(Clone, Copy)]
pub struct Scripts<'a> {
    pub migrations: &'a [u64],
    pub reverts: &'a [Revert],
}

/// The Secrets that the release names are there, with the keys that they had.
async fn secrets(task: &Task<'_>, kept: &Kept) -> Result<Vec<String>, Error> {
    let mut problems = Vec::new();
    for (secret, keys) in &kept.secret_keys {
        match task.hands.access.secret_keys(&task.namespace, secret).await {
            Ok(there) => problems.extend(
                keys.iter().filter(|key| !there.contains(key)).map(|key| format!("Secret {secret} has no key {key} any more: add it")),
            ),
            Err(error) if error.class() == Class::Permanent => problems.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    let names: Vec<&String> = kept.content.config.keys().chain(kept.secret_keys.values().flatten()).collect();
    let mut seen = BTreeMap::new();
    for name in names {
        *seen.entry(name).or_insert(0_u32) += 1;
    }
    problems.extend(
        seen.iter()
            .filter(|(_, count)| **count > 1)
            .map(|(name, _)| format!("the release sets {name} more than once: keep it in one of config and secrets")),
    );
    Ok(problems)
}

/// The Deployments take what the release brings, and a node can get its images.
async fn workloads(task: &Task<'_>, number: u64, kept: &Kept, found: &mut Found) -> Result<(), Error> {
    let kubernetes = task.kubernetes();
    let brought: Vec<&String> = kept.content.config.keys().chain(kept.secret_keys.values().flatten()).collect();
    let Found { problems, notes } = found;
    for target in &task.release.spec.target.kubernetes.workloads {
        let Some(deployment) = kubernetes.deployment(&target.name).await? else {
            problems.push(format!("Deployment {} does not exist: create it or correct spec.target.kubernetes.workloads", target.name));
            continue;
        };
        let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let Some(container) = pod.and_then(|pod| pod.containers.iter().find(|container| container.name == target.container)) else {
            problems.push(format!("Deployment {} has no container {}", target.name, target.container));
            continue;
        };
        problems.extend(
            container
                .env
                .iter()
                .flatten()
                // Both a value of the user's and a source of the release's in one entry is what the API server refuses.
                .filter(|variable| variable.value.is_some() && brought.contains(&&variable.name))
                .map(|variable| {
                    format!(
                        "Deployment {} sets {} of container {} itself: remove it there or from the release",
                        target.name, variable.name, target.container
                    )
                }),
        );
        let Some(image) = kept.content.images.get(&target.container) else { continue };
        if container.image.as_ref() == Some(image) {
            continue;
        }
        let metadata = ObjectMeta {
            labels: Some(BTreeMap::from([
                (names::MANAGED_BY.0.to_owned(), names::MANAGED_BY.1.to_owned()),
                (names::RELEASE_LABEL.to_owned(), task.name.clone()),
            ])),
            owner_references: task.release.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let pod = format!("{}-{number}-image-{}", task.name, target.container);
        let what = format!("image {image} of container {}", target.container);
        match kubernetes.image(&pod, metadata, &deployment, &target.container, image).await? {
            Image::Present => {}
            Image::Absent { detail } => problems.push(format!("{what} can't be had: {detail}")),
            Image::Untold { detail } => notes.push(format!("whether {what} can be had is not known: {detail}")),
        }
    }
    Ok(())
}

/// The migrations can be taken apart into statements.
fn ups(kept: &Kept, versions: &[u64]) -> Vec<String> {
    kept.content
        .migrations
        .iter()
        .filter(|migration| versions.contains(&migration.version))
        .flat_map(|migration| {
            let check =
                |script: &String| mysql::check_script(migration.version, &migration.name, script).err().map(|error| error.to_string());
            [check(&migration.up), migration.down.as_ref().and_then(check)].into_iter().flatten()
        })
        .collect()
}

/// So can the down scripts of those that will be taken back.
async fn downs(task: &Task<'_>, reverts: &[Revert]) -> Result<Vec<String>, Error> {
    let mut problems = Vec::new();
    for revert in reverts {
        let (migration, down) = task.down_script(revert).await?;
        problems.extend(mysql::check_script(migration.version, &migration.name, &down).err().map(|error| error.to_string()));
    }
    Ok(problems)
}
