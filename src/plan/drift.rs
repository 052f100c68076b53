//! Drift: where the live workloads differ from the release that should run, and the operation that puts them right.

use super::{
    Decision,
    input::{EnvSource, Outlook, Seen, Unseen, World},
    journal,
    target::asked_digest,
};
use crate::api::{
    Kept, names,
    operation::{Action, Kind, Operation, OperationState},
    status::HistoryEntry,
};

/// Differences as sentences; none means that the workloads are as they should be.
pub fn find(world: &World, current: &HistoryEntry) -> Seen<Vec<String>> {
    let workloads = match &world.workloads {
        Seen::Known(workloads) => workloads,
        Seen::Unknown(unseen) => return Seen::Unknown(unseen.clone()),
    };
    let Some(kept) = world.kept.get(&current.release) else {
        return Seen::Unknown(Unseen {
            reason: "ReleaseNotKept",
            message: format!("ControllerRevision {} is missing, so drift can't be told", names::revision(&world.name, current.release)),
            outlook: Outlook::Passing,
        });
    };
    let expected = environment(&world.name, kept);
    let mut differences = Vec::new();
    for target in &world.spec.target.kubernetes.workloads {
        let Some(container) =
            workloads.iter().find(|seen| seen.name == target.name).and_then(|seen| seen.containers.get(&target.container))
        else {
            differences.push(format!("Deployment {} has no container {}", target.name, target.container));
            continue;
        };
        if let Some(image) = kept.content.images.get(&target.container)
            && *image != container.image
        {
            differences.push(format!(
                "container {} of Deployment {} runs image {} instead of {image}",
                target.container, target.name, container.image
            ));
        }
        differences.extend(expected.iter().filter(|(name, source)| container.env.get(name) != Some(source)).map(|(name, _)| {
            format!("{name} of container {} of Deployment {} does not come from the release", target.container, target.name)
        }));
    }
    Seen::Known(differences)
}

/// The environment that a release gives to its containers, in the order in which it is applied.
pub fn environment(release: &str, kept: &Kept) -> Vec<(String, EnvSource)> {
    let map = names::config_map(release, &kept.content.config);
    let config = kept.content.config.keys().map(|key| (key.clone(), EnvSource::ConfigMap { name: map.clone(), key: key.clone() }));
    let secrets = kept
        .secret_keys
        .iter()
        .flat_map(|(secret, keys)| keys.iter().map(move |key| (key.clone(), EnvSource::Secret { name: secret.clone(), key: key.clone() })));
    config.chain(secrets).collect()
}

/// One operation that deploys the release again.
pub fn repair(world: &World, current: &HistoryEntry, differences: &[String]) -> Decision {
    Decision::Begin(Box::new(Operation {
        id: world.status.operations + 1,
        kind: Kind::Repair,
        state: OperationState::Running,
        cause: format!("drift: {}", differences.join("; ")),
        // The last rollback's answer to a failure still stands while its drift is put right.
        remediates: world.status.operation.as_ref().and_then(|operation| operation.remediates),
        from: Some(current.release),
        to: current.release,
        version: current.version.clone(),
        digest: current.digest.clone(),
        revision: current.revision.clone(),
        wanted: asked_digest(world),
        generation: world.generation,
        started_at: world.now,
        finished_at: None,
        steps: journal::pending_steps(vec![
            Action::Deploy { release: current.release },
            Action::Verify { within: world.spec.verify.timeout },
        ]),
    }))
}
