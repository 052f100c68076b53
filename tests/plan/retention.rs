//! Backup points whose time has passed are deleted at rest; the last good one, and what a rollback could need, never.

use backout::{
    api::{
        Span,
        backup_point::{RehearsalOutcome, Rehearsed},
        database::Retention,
        operation::{Kind, OperationState, StepName},
        release::RollbackTo,
        status::{Aside, AsideState, ReleaseState},
    },
    plan::input::{Life, PointSeen, Seen},
};
use insta::assert_snapshot;

use super::{
    table,
    world::{Given, Progress, at, content, operation, unseen},
};

fn keeps(given: Given, keep_for: u64, keep_last: u32) -> Given {
    given.spec(|spec| {
        let database = spec.database.as_mut().expect("the fixture has a database");
        database.backup.retention = Some(Retention { keep_for: Span::seconds(keep_for), keep_last });
    })
}

/// Points from before releases 1 and 2, 999 and 998 s old, and one that was taken 100 s ago; keeps 300 s and the newest one.
fn aged() -> Given {
    keeps(Given::two_releases(), 300, 1).with(|world| {
        let newest = PointSeen { taken_at: Some(at(900)), ..world.points["shop-2-predeploy"].clone() };
        world.points.insert("extra".to_owned(), newest);
    })
}

fn undone() -> Given {
    aged()
        .entry(2, |entry| {
            entry.state = ReleaseState::Undone;
            entry.undone_at = Some(at(500));
        })
        .deployed(1)
        .applied(&[1])
        .asks(content(1, &[1]))
}

fn point(given: Given, name: &str, change: impl FnOnce(&mut PointSeen)) -> Given {
    given.with(|world| change(world.points.get_mut(name).expect("the row names a point that is there")))
}

#[test]
fn a_backup_point_is_deleted_once_its_time_has_passed_and_nothing_needs_it() {
    let rows = vec![
        (
            "no retention: all are kept",
            aged().spec(|spec| spec.database.as_mut().expect("the fixture has a database").backup.retention = None),
        ),
        ("old, and not among the newest; release 1 may be gone back to with the second", aged()),
        ("not old enough", keeps(aged(), 3600, 1)),
        ("among the newest", keeps(aged(), 300, 3)),
        ("release 2 was undone", undone()),
        (
            "release 2 was undone, and what was replaced is kept",
            undone().with(|world| {
                world.status.asides.push(Aside {
                    schema: "aside".to_owned(),
                    operation: 7,
                    from: Some(2),
                    to: 1,
                    at: at(500),
                    until: at(2000),
                    state: AsideState::Kept,
                });
            }),
        ),
        ("release 2 was undone, says the history, but its migration is applied", undone().applied(&[1, 2])),
        ("the newer ones are not verified: the last good one stays", {
            let given = point(aged(), "extra", |point| point.verified = false);
            point(given, "shop-2-predeploy", |point| point.verified = false)
        }),
        ("the newer ones failed their rehearsals: the last good one stays", {
            let failed = Rehearsed { at: at(950), outcome: RehearsalOutcome::Failed, took: None, message: "other values".to_owned() };
            let given = point(aged(), "extra", |point| point.rehearsed = Some(failed.clone()));
            point(given, "shop-2-predeploy", |point| point.rehearsed = Some(failed))
        }),
        ("the last good one of a database that is not used any more stays", {
            point(aged(), "shop-1-predeploy", |point| point.database = Some("old:3306/shop".to_owned()))
        }),
        ("its deletion was begun before", point(aged(), "shop-1-predeploy", |point| point.verified = false)),
        ("it does not say how old it is", point(aged(), "shop-1-predeploy", |point| point.taken_at = None)),
        ("somebody deletes it already", point(aged(), "shop-1-predeploy", |point| point.life = Life::Leaving)),
        (
            "its files lie in another store",
            point(aged(), "shop-1-predeploy", |point| point.location = Some("file:///elsewhere/shop-1-predeploy".to_owned())),
        ),
        (
            "spec.rollbackTo names it",
            aged().with(|world| {
                let name = "shop-1-predeploy".to_owned();
                world.spec.rollback_to = Some(RollbackTo { release: None, version: None, backup_point: Some(name.clone()) });
                world.status.restored_point = Some(name);
            }),
        ),
        ("nobody has looked at the database yet", aged().with(|world| world.database = None)),
        ("the database can't be seen", aged().with(|world| world.database = Some(Seen::Unknown(unseen("DatabaseUnavailable"))))),
        ("a clean-up failed just now", {
            let given = aged();
            let cleanup = operation(&given.0, Kind::Cleanup, 2, &[StepName::Expire]).failed_at(StepName::Expire);
            given.running(cleanup).closed(OperationState::Failed)
        }),
        ("a shadow is dropped first", aged().with(|world| world.status.shadows.push("shadow".to_owned()))),
        (
            "a workload is put right first",
            aged().workload(|workload| workload.containers.values_mut().for_each(|container| container.env.clear())),
        ),
        ("something else is to be done", aged().asks(content(3, &[1, 2]))),
        ("suspended", aged().spec(|spec| spec.suspend = true)),
    ];
    assert_snapshot!(table(rows), @r"
    no retention: all are kept
      Ready ReconciliationSucceeded
    old, and not among the newest; release 1 may be gone back to with the second
      Cleanup 2 → 2: Expire shop-1-predeploy
    not old enough
      Ready ReconciliationSucceeded
    among the newest
      Ready ReconciliationSucceeded
    release 2 was undone
      Cleanup 1 → 1: Expire shop-1-predeploy shop-2-predeploy
    release 2 was undone, and what was replaced is kept
      Cleanup 1 → 1: Expire shop-1-predeploy
    release 2 was undone, says the history, but its migration is applied
      Cleanup 1 → 1: Expire shop-1-predeploy
    the newer ones are not verified: the last good one stays
      Ready ReconciliationSucceeded
    the newer ones failed their rehearsals: the last good one stays
      Ready ReconciliationSucceeded
    the last good one of a database that is not used any more stays
      Ready ReconciliationSucceeded
    its deletion was begun before
      Cleanup 2 → 2: Expire shop-1-predeploy
    it does not say how old it is
      Ready ReconciliationSucceeded
    somebody deletes it already
      Ready ReconciliationSucceeded
    its files lie in another store
      Ready ReconciliationSucceeded
    spec.rollbackTo names it
      Ready PinnedByRollbackTo
    nobody has looked at the database yet
      LookAtDatabase
    the database can't be seen
      Ready ReconciliationSucceeded
    a clean-up failed just now
      Ready ReconciliationSucceeded
    a shadow is dropped first
      Cleanup 2 → 2: Discard shadow
    a workload is put right first
      Repair 2 → 2: Deploy 2, Verify 1m
    something else is to be done
      Deploy 2 → 3: Keep 3, Preflight 3 [] database=Untouched cache=Untouched, Deploy 3, Verify 1m
    suspended
      Resting Suspended
    ");
}

#[test]
fn a_deletion_gives_way_to_something_new_and_says_why_it_was_begun() {
    let given = aged();
    let backout::plan::Decision::Begin(begun) = given.decision() else { panic!("a point is to be deleted") };
    assert_eq!(
        begun.plan.steps,
        ["Expire: delete BackupPoint shop-1-predeploy (taken at 2023-11-14T22:13:21Z, 16m39s ago; retention keeps 5m and the newest 1)"]
    );
    let running = given.running(*begun);
    assert_eq!(running.decides(), "Run 0");
    assert_eq!(running.clone().asks(content(3, &[1, 2])).decides(), "Close Superseded");
    let alone = running.with(|world| world.points.retain(|name, _| name == "shop-1-predeploy"));
    assert_eq!(alone.decides(), "Close Superseded", "it has become the last good one since");
}
