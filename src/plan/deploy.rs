//! Deploy: bring up a release that is not known good. Only what differs from the one that runs is done.

use super::{
    Decision, Verdict, drift,
    input::{Desired, Seen, World},
    journal,
    report::{self, Aim, Draft},
    safety,
    target::{refuse, rest},
};
use crate::api::{
    backup_point::PointReason,
    database::{DatabaseSpec, RehearseMigrations, StagePolicy},
    names,
    operation::{Action, Kind, Staged, Use},
    release::{Bake, Method},
};

/// What is loaded while the release bakes: the point that is taken before it.
fn staged(world: &World, actions: &[Action]) -> Option<Staged> {
    let DatabaseSpec { mysql, backup, rehearse_migrations: _ } = world.spec.database.as_ref()?;
    let point = actions.iter().find_map(|action| match action {
        Action::BackUp { point, .. } => Some(point.clone()),
        _ => None,
    })?;
    (backup.stage == StagePolicy::WhileBaking).then(|| Staged { shadow: names::shadow(&mysql.name, &world.uid, &point), point })
}

/// The migrations on a copy of what the point before them holds, where that is asked for.
fn rehearsal(world: &World, release: u64, migrations: &[u64]) -> Option<Action> {
    let DatabaseSpec { mysql, backup: _, rehearse_migrations } = world.spec.database.as_ref()?;
    let RehearseMigrations { within, at_most } = rehearse_migrations.clone()?;
    let point = names::point(&world.name, release);
    let scratch = names::shadow(&mysql.name, &world.uid, &format!("migrations after {point}"));
    Some(Action::RehearseMigrations { release, migrations: migrations.to_vec(), point, scratch, within, at_most })
}

/// Plans the deploy of `desired`, or says why it can't be begun.
pub fn plan(world: &World, desired: &Desired) -> Decision {
    if let Seen::Unknown(unseen) = &world.workloads {
        return rest(world, Verdict::unseen(unseen));
    }
    let current = world.current().and_then(|current| world.kept.get(&current.release)).map(|kept| &kept.content);
    let problems = safety::containers(&world.spec, &desired.content, current);
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
            Ok(pending) if pending.is_empty() => pending,
            // Before anything else that is wrong with it: the schema is not its to put right.
            found => match (&database.other_owner, found) {
                (Some(owner), _) => return rest(world, Verdict::shared(world, owner)),
                (None, Ok(pending)) => pending,
                (None, Err(problems)) => return refuse(world, &problems),
            },
        },
    };

    let release = world.status.releases + 1;
    let mut why = Vec::new();
    let mut actions = vec![
        Action::Keep { release, digest: desired.digest.clone(), revision: desired.revision.clone() },
        Action::Preflight {
            release,
            migrations: pending.clone(),
            reverts: Vec::new(),
            database: if pending.is_empty() { Use::Untouched } else { Use::Needed },
            cache: Use::Untouched,
        },
    ];
    if pending.is_empty() {
        why.push("it has no migration that is not applied: the database stays as it is");
    } else {
        if world.spec.rollback.database.contains(&Method::Restore) {
            actions.push(Action::BackUp {
                release,
                point: names::point(&world.name, release),
                reason: PointReason::PreDeploy,
                token: None,
            });
            actions.extend(rehearsal(world, release, &pending));
        } else {
            why.push("spec.rollback.database has no Restore: no backup point is taken");
        }
        actions.push(Action::Migrate { release, migrations: pending });
    }
    if drift::application_stays(world, &desired.content) {
        why.push("images, configuration and Secrets are those that run: the pods stay");
    } else {
        actions.push(Action::Deploy { release });
    }
    // A failed rollback may have left the fence up.
    if let Some(workloads) = journal::open_fence(&world.status) {
        actions.push(Action::Unfence { workloads });
    }
    actions.push(Action::Verify { within: world.spec.verify.timeout });
    if let Some(bake) = &world.spec.verify.bake {
        let Bake { hold, every, failure_threshold } = bake.clone();
        actions.push(Action::Bake { hold, every, failure_threshold, stage: staged(world, &actions) });
    }

    let aim = Aim { release, version: desired.content.version.clone(), digest: desired.digest.clone(), revision: desired.revision.clone() };
    let why = std::iter::once("it is not known good").chain(why).collect::<Vec<_>>().join("; ");
    report::begin(
        world,
        Draft {
            kind: Kind::Deploy,
            aim,
            cause: desired.cause.clone(),
            remediates: None,
            undoes: None,
            why,
            not_chosen: Vec::new(),
            actions,
        },
    )
}
