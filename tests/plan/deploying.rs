//! Deploy: what is planned, and what is refused before anything is begun.

use backout::{
    api::{
        database::{RehearseMigrations, StagePolicy},
        operation::{Kind, OperationState, StepName},
        release::{Bake, Method},
        status::ReleaseState,
    },
    plan::input::Seen,
};
use insta::assert_snapshot;

use super::{
    table,
    world::{Given, Progress, content, operation, unseen},
};

fn next_release() -> Given {
    Given::two_releases().asks(content(3, &[1, 2, 3]))
}

fn staging(given: Given) -> Given {
    given.spec(|spec| spec.database.as_mut().expect("the fixture has a database").backup.stage = StagePolicy::WhileBaking)
}

fn trying(given: Given) -> Given {
    let rehearsal = RehearseMigrations { within: "5m".parse().expect("a span"), at_most: None };
    given.spec(|spec| spec.database.as_mut().expect("the fixture has a database").rehearse_migrations = Some(rehearsal))
}

#[test]
fn a_deploy_has_the_steps_that_its_release_needs() {
    let bake = |spec: &mut backout::api::ReleaseSpec| {
        spec.verify.bake = Some(Bake { hold: "5m".parse().expect("a span"), every: "10s".parse().expect("a span"), failure_threshold: 3 });
    };
    let rows = vec![
        ("first deploy with a database", Given::new()),
        ("first deploy without one", Given::new().asks(content(1, &[])).spec(|spec| spec.database = None)),
        ("pending migrations", next_release()),
        (
            "pending migrations, and Restore is not among the ways back",
            next_release().spec(|spec| spec.rollback.database = vec![Method::RevertSchema]),
        ),
        ("pending migrations, and the database is never taken back", next_release().spec(|spec| spec.rollback.database = Vec::new())),
        ("pending migrations, and they are tried on a copy", trying(next_release())),
        (
            "they would be tried, and there is no copy",
            trying(next_release()).spec(|spec| spec.rollback.database = vec![Method::RevertSchema]),
        ),
        ("config only", Given::two_releases().asks(content(3, &[1, 2]))),
        ("a bake time", Given::two_releases().asks(content(3, &[1, 2])).spec(bake)),
        ("a bake time, and the point is staged meanwhile", staging(next_release().spec(bake))),
        ("the point would be staged, and nothing is migrated", staging(Given::two_releases().asks(content(3, &[1, 2])).spec(bake))),
        (
            "an undone release is deployed anew",
            Given::two_releases()
                .entry(2, |entry| entry.state = ReleaseState::Undone)
                .entry(2, |entry| entry.undone_at = Some(entry.started_at))
                .deployed(1),
        ),
        ("the database was not looked at yet", next_release().with(|world| world.database = None)),
    ];
    assert_snapshot!(table(rows), @r"
    first deploy with a database
      Deploy nothing → 1: Keep 1, Preflight 1 [1] database=Needed cache=Untouched, BackUp shop-1-predeploy, Migrate [1] of 1, Deploy 1, Verify 1m
    first deploy without one
      Deploy nothing → 1: Keep 1, Preflight 1 [] database=Untouched cache=Untouched, Deploy 1, Verify 1m
    pending migrations
      Deploy 2 → 3: Keep 3, Preflight 3 [3] database=Needed cache=Untouched, BackUp shop-3-predeploy, Migrate [3] of 3, Deploy 3, Verify 1m
    pending migrations, and Restore is not among the ways back
      Deploy 2 → 3: Keep 3, Preflight 3 [3] database=Needed cache=Untouched, Migrate [3] of 3, Deploy 3, Verify 1m
    pending migrations, and the database is never taken back
      Deploy 2 → 3: Keep 3, Preflight 3 [3] database=Needed cache=Untouched, Migrate [3] of 3, Deploy 3, Verify 1m
    pending migrations, and they are tried on a copy
      Deploy 2 → 3: Keep 3, Preflight 3 [3] database=Needed cache=Untouched, BackUp shop-3-predeploy, RehearseMigrations [3] of 3, Migrate [3] of 3, Deploy 3, Verify 1m
    they would be tried, and there is no copy
      Deploy 2 → 3: Keep 3, Preflight 3 [3] database=Needed cache=Untouched, Migrate [3] of 3, Deploy 3, Verify 1m
    config only
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m
    a bake time
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m, Bake 5m/10s/3
    a bake time, and the point is staged meanwhile
      Deploy 2 → 3: Keep 3, Preflight 3 [3] database=Needed cache=Untouched, BackUp shop-3-predeploy, Migrate [3] of 3, Deploy 3, Verify 1m, Bake 5m/10s/3 beside shop-3-predeploy
    the point would be staged, and nothing is migrated
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m, Bake 5m/10s/3
    an undone release is deployed anew
      Deploy 1 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m
    the database was not looked at yet
      LookAtDatabase
    ");
}

#[test]
fn a_deploy_is_refused_with_the_object_and_the_remedy() {
    let rows = vec![
        ("the database can't be seen", next_release().with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable"))))),
        ("the source can't be seen", next_release().asks_unseen()),
        ("migrations, but no database", next_release().spec(|spec| spec.database = None)),
        ("the schema is ahead of the release", next_release().applied(&[1, 2, 9])),
        (
            "an applied migration was edited",
            next_release().database(|database| "other".clone_into(&mut database.applied.get_mut(0).expect("one is applied").checksum)),
        ),
        ("a migration stands half way", next_release().half_way(2)),
        (
            "privileges are missing",
            next_release().database(|database| database.missing_grants.push("GRANT SELECT ON shop.* TO a".to_owned())),
        ),
        (
            "privileges are missing, but no migration is pending",
            Given::two_releases().asks(content(3, &[1, 2])).database(|database| database.missing_grants.push("GRANT SELECT".to_owned())),
        ),
        (
            "an object that a backup point can't carry",
            next_release().database(|database| database.uncarried.push("sequence nightly".to_owned())),
        ),
        (
            "the same, but Restore is not among the ways back",
            next_release()
                .database(|database| database.uncarried.push("sequence nightly".to_owned()))
                .spec(|spec| spec.rollback.database = vec![Method::RevertSchema]),
        ),
        ("no down script, and Restore is not among the ways back", {
            let mut wanted = content(3, &[1, 2, 3]);
            wanted.migrations.iter_mut().for_each(|migration| migration.down = None);
            next_release().asks(wanted).spec(|spec| spec.rollback.database = vec![Method::RevertSchema])
        }),
        ("an image without a container", {
            let mut wanted = content(3, &[1, 2]);
            wanted.images.insert("sidecar".to_owned(), "proxy:1".to_owned());
            next_release().asks(wanted)
        }),
        ("no image for a container that has one from the release that runs", {
            let mut wanted = content(3, &[1, 2]);
            wanted.images.clear();
            next_release().asks(wanted)
        }),
        ("no image, and none was ever given", {
            let mut wanted = content(1, &[]);
            wanted.images.clear();
            Given::new().asks(wanted).spec(|spec| spec.database = None)
        }),
    ];
    assert_snapshot!(table(rows), @r"
    the database can't be seen
      Waiting DatabaseUnavailable
    the source can't be seen
      Waiting GitOperationFailed
    migrations, but no database
      Waiting PreflightFailed
    the schema is ahead of the release
      Waiting PreflightFailed
    an applied migration was edited
      Waiting PreflightFailed
    a migration stands half way
      Waiting PreflightFailed
    privileges are missing
      Waiting PreflightFailed
    privileges are missing, but no migration is pending
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m
    an object that a backup point can't carry
      Waiting PreflightFailed
    the same, but Restore is not among the ways back
      Deploy 2 → 3: Keep 3, Preflight 3 [3] database=Needed cache=Untouched, Migrate [3] of 3, Deploy 3, Verify 1m
    no down script, and Restore is not among the ways back
      Waiting PreflightFailed
    an image without a container
      Waiting PreflightFailed
    no image for a container that has one from the release that runs
      Waiting PreflightFailed
    no image, and none was ever given
      Deploy nothing → 1: Keep 1, Preflight 1 [] database=Untouched cache=Untouched, Deploy 1, Verify 1m
    ");
}

#[test]
fn a_fence_that_was_left_up_is_taken_down_by_the_next_operation() {
    let steps = [StepName::Preflight, StepName::Fence, StepName::RevertSchema, StepName::Deploy, StepName::Unfence, StepName::Verify];
    let fenced = || {
        let given = Given::two_releases().asks(content(1, &[1])).workload(|workload| workload.replicas = 0);
        let failed = operation(&given.0, Kind::Rollback, 1, &steps).failed_at(StepName::RevertSchema);
        given.running(failed).closed(OperationState::Failed).spec(|spec| spec.rollback.database = vec![Method::RevertSchema])
    };
    let rows = vec![
        ("nothing new is asked for", fenced().half_way(2)),
        ("nothing new is asked for, but the database fits what is deployed again", fenced()),
        (
            "nothing new is asked for, and the database can't be seen",
            fenced().with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable")))),
        ),
        ("the database was not looked at", fenced().with(|world| world.database = None)),
        ("taking the fence down failed already", {
            let given = Given::two_releases().asks(content(1, &[1])).workload(|workload| workload.replicas = 0);
            let failed = operation(&given.0, Kind::Rollback, 1, &steps).failed_at(StepName::Unfence);
            given.running(failed).closed(OperationState::Failed)
        }),
        ("a release that goes forward", fenced().asks(content(3, &[1, 2]))),
        ("what is deployed is asked for again", fenced().asks(content(2, &[1, 2]))),
        ("what is asked for can't be begun: what is deployed comes back", fenced().asks(content(3, &[1]))),
        ("nor can what is deployed come back", fenced().asks(content(3, &[1])).half_way(2)),
        ("the rollback is tried again after a change of the spec: the fence comes first", fenced().with(|world| world.generation = 2)),
        (
            "a restore after it takes the fence over first",
            fenced().spec(|spec| spec.rollback.database = vec![Method::RevertSchema, Method::Restore]),
        ),
    ];
    assert_snapshot!(table(rows), @r"
    nothing new is asked for
      Stalled RollbackFailed
    nothing new is asked for, but the database fits what is deployed again
      Repair 2 → 2: Deploy 2, Unfence shop=3, Verify 1m
    nothing new is asked for, and the database can't be seen
      Waiting DatabaseUnavailable
    the database was not looked at
      LookAtDatabase
    taking the fence down failed already
      Stalled RollbackFailed
    a release that goes forward
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Unfence shop=3, Verify 1m
    what is deployed is asked for again
      Rollback 2 → 2: Preflight 2 [] database=Untouched cache=Needed, FlushCache shop:, Unfence shop=3, Verify 1m
    what is asked for can't be begun: what is deployed comes back
      Rollback 2 → 2: Preflight 2 [] database=Untouched cache=Needed, FlushCache shop:, Unfence shop=3, Verify 1m
    nor can what is deployed come back
      Stalled PreflightFailed
    the rollback is tried again after a change of the spec: the fence comes first
      Rollback 2 → 1: Fence shop=3, Preflight 1 [] database=Needed cache=Needed, Approve Never, RevertSchema 2 of 2, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    a restore after it takes the fence over first
      Rollback 2 → 1: Fence shop=3, Preflight 1 [] database=Needed cache=Needed, Stage shop-2-predeploy, Approve Never, Restore shop-2-predeploy, Deploy 1, FlushCache shop:, Unfence shop=3, Verify 1m
    ");
}
