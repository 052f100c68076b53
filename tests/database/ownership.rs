//! One schema, one Release: recorded, refused, handed over, restored.

use backout::error::Class;
use backout::mysql::{Error, Migration, Outcome, Owner, Swap, apply, inspect, load, release_ownership, revert, swap, take_ownership};
use object_store::path::Path;

use super::{Bed, owner, run};

fn other() -> Owner {
    Owner { uid: "uid-2".into(), cluster: "here".into(), namespace: "shop".into(), name: "copy".into(), operation: 1 }
}

fn migration(version: u64) -> Migration {
    Migration {
        version,
        name: format!("m{version}"),
        sql: format!("CREATE TABLE t{version} (id INT PRIMARY KEY)"),
        checksum: version.to_string(),
    }
}

async fn recorded(bed: &Bed) -> Option<Owner> {
    inspect(&bed.database()).await.expect("the database can be read").owner
}

#[tokio::test]
async fn the_first_migration_records_its_release_and_no_other_may_write() {
    let bed = Bed::new("").await;
    let database = bed.database();
    assert_eq!(recorded(&bed).await, None);
    assert_eq!(apply(&database, &migration(1), 1, &owner()).await.expect("it applies"), Outcome::Done);
    assert_eq!(recorded(&bed).await, Some(owner()));
    assert_eq!(apply(&database, &migration(2), 1, &owner()).await.expect("it applies"), Outcome::Done);

    bed.capture("p1").await;
    load(&database, &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    let foreign = Swap { owner: Some(other()), ..bed.swap("p1") };
    for error in [
        apply(&database, &migration(3), 1, &other()).await.err(),
        apply(&database, &migration(1), 1, &other()).await.err(),
        revert(&database, 2, "DROP TABLE t2", &other()).await.err(),
        swap(&database, &foreign).await.err(),
    ] {
        let error = error.expect("another Release is refused");
        assert_eq!((error.label(), error.class()), ("owned_by_another", Class::Permanent));
        assert!(error.to_string().contains("belongs to Release shop/till"), "{error}");
    }
    let inventory = inspect(&database).await.expect("the database can be read");
    assert_eq!(inventory.migrations.iter().map(|row| row.version).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn an_operation_that_a_newer_one_has_overtaken_changes_nothing_any_more() {
    let bed = Bed::new("").await;
    let database = bed.database();
    let by = |operation| Owner { operation, ..owner() };
    apply(&database, &migration(1), 1, &by(4)).await.expect("it applies");
    bed.capture("p1").await;
    load(&database, &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    apply(&database, &migration(2), 1, &by(4)).await.expect("the same operation goes on");
    // Another process went on and took it back; the first wakes.
    revert(&database, 2, "DROP TABLE t2", &by(5)).await.expect("it reverts");
    for error in [
        apply(&database, &migration(2), 1, &by(4)).await.err(),
        revert(&database, 1, "DROP TABLE t1", &by(4)).await.err(),
        swap(&database, &Swap { owner: Some(by(4)), ..bed.swap("p1") }).await.err(),
    ] {
        let error = error.expect("an older operation is refused");
        assert_eq!((error.label(), error.class()), ("outdated", Class::Permanent));
        assert!(error.to_string().contains("operation 5 of the same Release has written"), "{error}");
    }
    assert_eq!(inspect(&database).await.expect("the database can be read").migrations.len(), 1);
    // A cut-over brings back the tables of its point, but not the operation that had written then.
    swap(&database, &Swap { owner: Some(by(6)), ..bed.swap("p1") }).await.expect("it swaps");
    assert!(matches!(apply(&database, &migration(2), 1, &by(5)).await, Err(Error::Outdated { newest: 6, .. })));
}

#[tokio::test]
async fn ownership_is_given_up_only_by_its_owner_and_taken_by_whoever_decides() {
    let bed = Bed::new("").await;
    let database = bed.database();
    release_ownership(&database, "uid-1").await.expect("there is nothing to forget");
    apply(&database, &migration(1), 1, &owner()).await.expect("it applies");
    release_ownership(&database, "uid-2").await.expect("it is not that one's");
    assert_eq!(recorded(&bed).await, Some(owner()));
    take_ownership(&database, &other()).await.expect("the caller has decided");
    assert_eq!(recorded(&bed).await, Some(other()));
    let result = apply(&database, &migration(2), 1, &owner()).await;
    assert!(matches!(&result, Err(Error::Owned { owner, .. }) if **owner == other()), "{result:?}");
    release_ownership(&database, "uid-2").await.expect("it is that one's");
    release_ownership(&database, "uid-2").await.expect("it is forgotten already");
    assert_eq!(recorded(&bed).await, None);
    apply(&database, &migration(2), 1, &owner()).await.expect("nobody owns it");
    assert_eq!(recorded(&bed).await, Some(owner()));
}

#[tokio::test]
async fn bookkeeping_from_before_owners_belongs_to_nobody() {
    let bed = Bed::new("").await;
    let database = bed.database();
    apply(&database, &migration(1), 1, &owner()).await.expect("it applies");
    run(&mut bed.root().await, "DROP TABLE _backout_owner").await;
    assert_eq!(recorded(&bed).await, None);
    assert_eq!(apply(&database, &migration(1), 1, &other()).await.expect("it is applied"), Outcome::AlreadyDone);
    assert_eq!(recorded(&bed).await, None, "nothing was recorded, so nobody became the owner");
    apply(&database, &migration(2), 1, &other()).await.expect("it applies");
    assert_eq!(recorded(&bed).await, Some(other()));
}

#[tokio::test]
async fn after_a_cut_over_the_owner_is_the_release_that_did_it() {
    let bed = Bed::new("").await;
    let database = bed.database();
    apply(&database, &migration(1), 1, &other()).await.expect("it applies");
    bed.capture("p1").await;
    take_ownership(&database, &owner()).await.expect("the caller has decided");
    load(&database, &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    swap(&database, &bed.swap("p1")).await.expect("the cut-over succeeds");
    assert_eq!(recorded(&bed).await, Some(owner()), "not the one from the time of the backup");

    // The same for a backup from before owners, and for a schema that has none.
    let bed = Bed::new("CREATE TABLE t (id INT)").await;
    bed.capture("p1").await;
    load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
    assert_eq!(recorded(&bed).await, Some(owner()));
}
