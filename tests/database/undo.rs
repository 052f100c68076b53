//! Undoing a cut-over: the aside becomes live again, and nothing that came meanwhile is lost.

use backout::error::Class;
use backout::mysql::{
    Basis, Error, Marker, Migration, Outcome, Standing, Swap, TableLoss, apply, checksum, inspect, load, loss, revert, swap,
};
use object_store::path::Path;

use super::{Bed, PATIENCE, ask, owner, run};

fn migration(version: u64, sql: &str) -> Migration {
    Migration { version, name: format!("m{version}"), sql: sql.to_owned(), checksum: format!("sum {version}") }
}

fn undo(bed: &Bed, source: &str, aside: &str, operation: &str) -> Swap {
    Swap {
        shadow: bed.beside(source),
        aside: bed.beside(aside),
        marker: Marker { point: bed.beside(source), operation: operation.into(), release: 8 },
        owner: Some(owner()),
        deadline: PATIENCE,
    }
}

/// Migrated to 1, backed up as p1, migrated to 2, used, and restored to p1: the aside holds version 2.
async fn restored() -> Bed {
    let bed = Bed::new("CREATE TABLE orders (id BIGINT PRIMARY KEY AUTO_INCREMENT, who VARCHAR(20))").await;
    let database = bed.database();
    apply(&database, &migration(1, "INSERT INTO orders (who) VALUES ('a'), ('b')"), 3, &owner()).await.expect("it applies");
    bed.capture("p1").await;
    apply(&database, &migration(2, "ALTER TABLE orders ADD note VARCHAR(20); CREATE TABLE extra (id INT PRIMARY KEY)"), 4, &owner())
        .await
        .expect("it applies");
    run(&mut bed.root().await, "INSERT INTO orders (id, who, note) VALUES (10, 'since', 'kept'); INSERT INTO extra VALUES (1)").await;
    load(&database, &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    swap(&database, &bed.swap("p1")).await.expect("the cut-over succeeds");
    bed
}

async fn versions(bed: &Bed) -> Vec<u64> {
    inspect(&bed.database()).await.expect("the database can be read").migrations.iter().map(|row| row.version).collect()
}

#[tokio::test]
async fn an_undo_brings_back_what_was_replaced_and_keeps_what_came_since() {
    let bed = restored().await;
    let mut root = bed.root().await;
    assert_eq!(versions(&bed).await, [1]);
    let before = checksum(&bed.database(), &bed.beside("aside"), "orders").await.expect("the table can be summed");
    run(&mut root, "INSERT INTO orders (who) VALUES ('after'); UPDATE orders SET who = 'changed' WHERE id = 1").await;
    let after: u64 = ask(&mut root, "SELECT id FROM orders WHERE who = 'after'").await.parse().expect("ids are numbers");
    assert!(after > 10, "the id of a row that stands aside is not given out again");

    // Told before: what the undo would take away, and what it brings back.
    let row = |table: &str, inserted, changed, deleted| TableLoss {
        table: table.into(),
        inserted,
        changed,
        deleted,
        basis: Basis::Key,
        untold: Vec::new(),
    };
    assert_eq!(
        loss(&bed.database(), &bed.beside("aside")).await.expect("both can be read"),
        [row("extra", 0, 0, 1), row("orders", 1, 1, 1)]
    );

    let wanted = undo(&bed, "aside", "undone", "undo-1");
    let swapped = swap(&bed.database(), &wanted).await.expect("the cut-over is undone");
    assert_eq!(swapped.tables, 5, "orders, extra, migrations, marker, owner");
    assert_eq!(checksum(&bed.database(), &bed.name, "orders").await.expect("the table can be summed"), before);
    assert_eq!(versions(&bed).await, [1, 2], "the migrations are those of the data");
    let inventory = inspect(&bed.database()).await.expect("the database can be read");
    assert_eq!(inventory.marker, Some(wanted.marker.clone()));
    assert_eq!(
        inventory.beside.iter().map(|beside| (beside.schema.clone(), beside.state)).collect::<Vec<_>>(),
        [(bed.beside("undone"), Standing::Aside)],
        "the emptied aside is gone"
    );
    assert_eq!(
        ask(&mut root, &format!("SELECT GROUP_CONCAT(who ORDER BY id) FROM `{}`.orders", bed.beside("undone"))).await,
        "changed,b,after"
    );
    run(&mut root, "INSERT INTO orders (who) VALUES ('next')").await;
    assert_eq!(ask(&mut root, &format!("SELECT MAX(id) > {after} FROM orders")).await, "1", "ids given out meanwhile are not reused");

    // Again, as after a crash: nothing more happens, and rows written since stay.
    let again = swap(&bed.database(), &wanted).await.expect("it is done already");
    assert_eq!((again.tables, again.attempts), (0, 0));
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM orders WHERE who = 'next'").await, "1");

    // The schema that is live now can be migrated on and back.
    assert_eq!(
        revert(&bed.database(), 2, "DROP TABLE extra; ALTER TABLE orders DROP note", &owner()).await.expect("it is taken back"),
        Outcome::Done
    );
}

#[tokio::test]
async fn an_undo_can_be_undone() {
    let bed = restored().await;
    swap(&bed.database(), &undo(&bed, "aside", "undone", "undo-1")).await.expect("the cut-over is undone");
    swap(&bed.database(), &undo(&bed, "undone", "aside", "undo-2")).await.expect("the undo is undone");
    assert_eq!(versions(&bed).await, [1]);
    assert_eq!(ask(&mut bed.root().await, "SELECT COUNT(*) FROM orders").await, "2");
    let inventory = inspect(&bed.database()).await.expect("the database can be read");
    assert_eq!(inventory.marker.map(|marker| marker.operation), Some("undo-2".to_owned()));
}

#[tokio::test]
async fn an_undo_names_the_aside_that_it_means() {
    let bed = restored().await;
    let mistaken =
        Swap { marker: Marker { point: "p1".into(), operation: "undo-1".into(), release: 8 }, ..undo(&bed, "aside", "undone", "") };
    let result = swap(&bed.database(), &mistaken).await;
    assert!(matches!(&result, Err(Error::Schema { .. })), "{result:?}");
    // What could not move would be left behind, so it is refused before anything moves.
    run(&mut bed.root().await, &format!("CREATE VIEW `{}`.v AS SELECT 1", bed.beside("aside"))).await;
    let result = swap(&bed.database(), &undo(&bed, "aside", "undone", "undo-1")).await;
    assert!(matches!(&result, Err(error @ Error::Schema { .. }) if error.class() == Class::Permanent), "{result:?}");
    assert_eq!(versions(&bed).await, [1]);
}
