//! Drift: where the live workloads differ from the release that should run, and the operation that puts them right.

use super::{
    Decision,
    input::{DatabaseSeen, EnvSource, Outlook, Rollout, Seen, Unseen, World},
    journal,
    report::{self, Aim, Draft},
};
use crate::api::{
    Content, Kept, names,
    operation::{Action, Kind},
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

/// Whether the database holds exactly what this release runs on.
pub fn database_fits(world: &World, database: &DatabaseSeen, release: &HistoryEntry) -> bool {
    let Some(kept) = world.kept.get(&release.release) else { return false };
    database.is_whole()
        && database.applied.iter().map(|applied| applied.version).eq(kept.content.migrations.iter().map(|migration| migration.version))
}

/// Whether a release with this content needs nothing but what runs: the same images, configuration and Secrets as the release
/// that is deployed, which the live workloads have without a difference.
pub fn application_stays(world: &World, content: &Content) -> bool {
    let Some(current) = world.current() else { return false };
    let Some(kept) = world.kept.get(&current.release) else { return false };
    let same = kept.content.images == content.images && kept.content.config == content.config && kept.content.secrets == content.secrets;
    let rolled_out = match &world.workloads {
        Seen::Known(workloads) => workloads.iter().all(|workload| workload.rollout == Rollout::Complete),
        Seen::Unknown(_) => false,
    };
    same && rolled_out && find(world, current) == Seen::Known(Vec::new())
}

/// One operation that deploys the release again.
pub fn repair(world: &World, current: &HistoryEntry, differences: &[String]) -> Decision {
    let mut actions = vec![Action::Deploy { release: current.release }];
    actions.extend(journal::open_fence(&world.status).map(|workloads| Action::Unfence { workloads }));
    actions.push(Action::Verify { within: world.spec.verify.timeout });
    report::begin(
        world,
        Draft {
            kind: Kind::Repair,
            aim: Aim::from(current),
            cause: format!("drift: {}", differences.join("; ")),
            // The last rollback's answer to a failure still stands while its drift is put right.
            remediates: world.status.operation.as_ref().and_then(|operation| operation.remediates),
            undoes: None,
            why: "the workloads differ from the release that should run".to_owned(),
            not_chosen: Vec::new(),
            actions,
        },
    )
}
