//! Deploy: bring up a release that is not known good.

use super::{
    Decision, Verdict,
    input::{Desired, Seen, World},
    journal, safety,
    target::{asked_digest, refuse, rest},
};
use crate::api::{
    names,
    operation::{Action, Kind, Operation, OperationState, Use},
    release::Method,
};

/// Plans the deploy of `desired`, or says why it can't be begun.
pub fn plan(world: &World, desired: &Desired) -> Decision {
    if let Seen::Unknown(unseen) = &world.workloads {
        return rest(world, Verdict::unseen(unseen));
    }
    let problems = safety::containers(&world.spec, &desired.content);
    if !problems.is_empty() {
        return refuse(world, &problems);
    }
    let pending = match (&world.spec.database, &world.database) {
        (None, _) if !desired.content.migrations.is_empty() => {
            return refuse(world, &["the release has migrations, but spec.database names no database to apply them to".to_owned()]);
        }
        (None, _) => Vec::new(),
        (Some(_), None) => return Decision::LookAtDatabase,
        (Some(_), Some(Seen::Unknown(unseen))) => return rest(world, Verdict::unseen(unseen)),
        (Some(_), Some(Seen::Known(database))) => match safety::pending(&world.spec, database, &desired.content) {
            Ok(pending) => pending,
            Err(problems) => return refuse(world, &problems),
        },
    };

    let release = world.status.releases + 1;
    let mut actions = vec![
        Action::Keep { release, digest: desired.digest.clone(), revision: desired.revision.clone() },
        Action::Preflight {
            release,
            migrations: pending.clone(),
            database: if pending.is_empty() { Use::Untouched } else { Use::Needed },
            cache: Use::Untouched,
        },
    ];
    if !pending.is_empty() {
        if world.spec.rollback.database.contains(&Method::Restore) {
            actions.push(Action::BackUp { release, point: names::point(&world.name, release) });
        }
        actions.push(Action::Migrate { release, migrations: pending });
    }
    actions.push(Action::Deploy { release });
    // A failed rollback may have left the fence up.
    if let Some(workloads) = journal::open_fence(&world.status) {
        actions.push(Action::Unfence { workloads });
    }
    actions.push(Action::Verify { within: world.spec.verify.timeout });
    if let Some(bake) = &world.spec.verify.bake {
        actions.push(Action::Bake { hold: bake.hold, every: bake.every, failure_threshold: bake.failure_threshold });
    }

    Decision::Begin(Box::new(Operation {
        id: world.status.operations + 1,
        kind: Kind::Deploy,
        state: OperationState::Running,
        cause: desired.cause.clone(),
        remediates: None,
        from: world.status.release,
        to: release,
        version: desired.content.version.clone(),
        digest: desired.digest.clone(),
        revision: desired.revision.clone(),
        wanted: asked_digest(world),
        generation: world.generation,
        started_at: world.now,
        finished_at: None,
        steps: journal::pending_steps(actions),
    }))
}
