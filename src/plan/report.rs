//! From the actions of a plan to an operation with its report: what it will do, why in this way, and why not in others.

use std::collections::BTreeSet;

use super::{Decision, input::World, journal, target::asked_digest};
use crate::api::{
    database::DatabaseSpec,
    names,
    operation::{Action, Expired, Kind, Operation, OperationState, Ownership, Plan, Risk, Staged},
    release::{ApprovalPolicy, CarryForward, ReleaseSpec, Workload},
    status::HistoryEntry,
};

/// What an operation leads to.
pub struct Aim {
    pub release: u64,
    pub version: String,
    pub digest: String,
    pub revision: String,
}

impl From<&HistoryEntry> for Aim {
    fn from(entry: &HistoryEntry) -> Self {
        Self { release: entry.release, version: entry.version.clone(), digest: entry.digest.clone(), revision: entry.revision.clone() }
    }
}

/// A plan before it is an operation.
pub struct Draft {
    pub kind: Kind,
    pub aim: Aim,
    /// Why anything is done.
    pub cause: String,
    /// The failed release that it answers.
    pub remediates: Option<u64>,
    /// The operation whose swap it takes back.
    pub undoes: Option<u64>,
    /// Why it is done in this way.
    pub why: String,
    /// Ways that were not chosen, each with the reason.
    pub not_chosen: Vec<String>,
    pub actions: Vec<Action>,
}

/// Begins the operation.
pub fn begin(world: &World, draft: Draft) -> Decision {
    let Draft { kind, aim: Aim { release, version, digest, revision }, cause, remediates, undoes, why, not_chosen, actions } = draft;
    let id = world.status.operations + 1;
    let plan = Plan {
        digest: names::plan_digest(&world.uid, id, &actions),
        why,
        steps: actions.iter().map(|action| format!("{}: {}", action.name().as_str(), describe(action))).collect(),
        not_chosen,
    };
    Decision::Begin(Box::new(Operation {
        id,
        kind,
        state: OperationState::Running,
        cause,
        plan,
        loss: None,
        approval: None,
        remediates,
        undoes,
        from: world.status.release,
        to: release,
        version,
        digest,
        revision,
        wanted: asked_digest(world),
        database: place(&world.spec),
        target: Some(workloads(&world.spec)),
        generation: world.generation,
        started_at: world.now,
        finished_at: None,
        steps: journal::pending_steps(actions),
    }))
}

/// Which database and which store: a step must not go on elsewhere than the ones before it.
pub fn place(spec: &ReleaseSpec) -> Option<String> {
    let DatabaseSpec { mysql, backup, rehearse_migrations: _ } = spec.database.as_ref()?;
    Some(format!("{}, {}", mysql.place(), backup.store.url))
}

/// Which containers of which workloads, in an order of their own: writing them in another one changes nothing.
pub fn workloads(spec: &ReleaseSpec) -> String {
    let named = |Workload { kind, name, container }: &Workload| format!("container {container} of {kind:?} {name}");
    let named: BTreeSet<String> = spec.target.kubernetes.workloads.iter().map(named).collect();
    Vec::from_iter(named).join(", ")
}

/// What an action will do, for people.
fn describe(action: &Action) -> String {
    match action {
        Action::Keep { release, .. } => format!("store release {release} where it can be gone back to without git"),
        Action::Preflight { .. } => "look at images, Secrets, workloads, database and cache; refuse before anything is touched".to_owned(),
        Action::BackUp { point, .. } => format!("capture the database as BackupPoint {point}"),
        Action::RehearseMigrations { migrations, point, scratch, within, at_most, .. } => {
            let numbers = numbers(migrations.iter().copied());
            let limit = at_most.map(|limit| format!("; more than {limit} for all of them ends it")).unwrap_or_default();
            format!("load {point} into schema {scratch} within {within}, apply {numbers} there and take them back{limit}")
        }
        Action::Migrate { migrations, .. } => format!("apply migrations {}", numbers(migrations.iter().copied())),
        Action::Deploy { release } => format!("give the workloads the images, configuration and Secrets of release {release}"),
        Action::FlushCache { prefix } => format!("remove the keys below {prefix:?} from the cache"),
        Action::Verify { within } => format!("all checks must pass in one round within {within}"),
        Action::Bake { hold, every, failure_threshold, stage } => {
            let beside =
                stage.as_ref().map(|Staged { point, shadow }| format!("; BackupPoint {point} is loaded into schema {shadow} meanwhile"));
            format!("checks every {every} for {hold}; {failure_threshold} failed rounds in a row end it{}", beside.unwrap_or_default())
        }
        Action::Stage { point, shadow } => format!("load BackupPoint {point} into schema {shadow} and compare every table"),
        Action::Fence { workloads } => {
            let names: Vec<&str> = workloads.iter().map(|workload| workload.name.as_str()).collect();
            format!("scale {} to zero and wait until no pod is left", names.join(", "))
        }
        Action::Approve { policy, risk } => {
            let what = match risk {
                Risk::Replacement { schema, .. } => format!("measure which rows schema {schema} does not have"),
                Risk::Scripts { migrations } => {
                    format!("measure what the down scripts of {} take away", numbers(migrations.iter().map(|revert| revert.migration)))
                }
            };
            match policy {
                ApprovalPolicy::Never => what,
                ApprovalPolicy::DataLoss => format!("{what}; where anything would be lost, wait for approval"),
                ApprovalPolicy::Always => format!("{what}; wait for approval"),
            }
        }
        Action::RevertSchema { migrations, .. } => {
            format!("run the down scripts of {}", numbers(migrations.iter().map(|revert| revert.migration)))
        }
        Action::Restore { point, aside, keep, carry, .. } => {
            let swap = format!("swap {point} in for the live tables in one statement; those are kept in schema {aside} for {keep}");
            match carry {
                CarryForward::None => swap,
                CarryForward::Inserts => format!("{swap}; rows inserted since the point are carried forward where they fit"),
            }
        }
        Action::Unfence { workloads } => {
            let names: Vec<String> = workloads.iter().map(|workload| format!("{} to {}", workload.name, workload.replicas)).collect();
            format!("scale {}", names.join(", "))
        }
        Action::Rehearse { point, scratch } => format!("load {point} into schema {scratch}, compare every row, and drop it again"),
        Action::Discard { schemas, ownership } => {
            let drop = if schemas.is_empty() { "drop no schema".to_owned() } else { format!("drop {}", schemas.join(", ")) };
            match ownership {
                Ownership::Kept => drop,
                Ownership::Released => format!("{drop}; another Release may then migrate the database"),
            }
        }
        Action::Expire { points } => {
            let points: Vec<String> = points.iter().map(|Expired { point, why }| format!("BackupPoint {point} ({why})")).collect();
            format!("delete {}", points.join(", "))
        }
    }
}

fn numbers(versions: impl Iterator<Item = u64>) -> String {
    versions.map(|version| format!("{version:04}")).collect::<Vec<_>>().join(", ")
}
