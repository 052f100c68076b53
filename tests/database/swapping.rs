//! The cut-over: nothing lost, nothing twice, nothing half; what it would take away; and back again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backout::error::Class;
use backout::mysql::{Basis, Error, Swap, TableLoss, inspect, load, loss, swap};
use object_store::path::Path;

use super::{Bed, ask, run, try_run, until};

const SHOP: &str = "CREATE TABLE orders (id BIGINT PRIMARY KEY AUTO_INCREMENT, who VARCHAR(20)); \
    CREATE TABLE items (id INT PRIMARY KEY, order_id BIGINT, CONSTRAINT of_order FOREIGN KEY (order_id) REFERENCES orders (id)); \
    INSERT INTO orders VALUES (1, 'a'), (2, 'b'); INSERT INTO items VALUES (1, 1), (2, 2)";

/// A bed with a loaded shadow of what `sql` makes.
async fn loaded(sql: &str) -> Bed {
    let bed = Bed::new(sql).await;
    bed.capture("p1").await;
    load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    bed
}

#[tokio::test]
async fn a_cut_over_under_readers_and_writers_loses_nothing_and_breaks_nobody() {
    let bed = loaded(SHOP).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for writer in 0..2 {
        let mut connection = bed.root().await;
        let stop = Arc::clone(&stop);
        tasks.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                run(&mut connection, &format!("INSERT INTO orders (who) VALUES ('writer {writer}')")).await;
                ids.push(ask(&mut connection, "SELECT LAST_INSERT_ID()").await);
            }
            ids
        }));
    }
    for _ in 0..2 {
        let mut connection = bed.root().await;
        let stop = Arc::clone(&stop);
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                ask(&mut connection, "SELECT COUNT(*) FROM orders o LEFT JOIN items i ON i.order_id = o.id").await;
            }
            Vec::new()
        }));
    }
    let mut root = bed.root().await;
    until(&mut root, "SELECT COUNT(*) > 50 FROM orders", "1").await;
    let swapped = swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
    assert_eq!(swapped.tables, 4, "two tables, the marker and the owner");
    // Writers went on in the new tables.
    until(&mut root, "SELECT COUNT(*) > 50 FROM orders", "1").await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.expect("nobody saw an error"));
    }
    let aside = bed.beside("aside");
    let kept =
        format!("SELECT COUNT(*) FROM (SELECT id FROM orders WHERE id > 2 UNION ALL SELECT id FROM `{aside}`.orders WHERE id > 2) u");
    assert_eq!(ask(&mut root, &kept).await, acknowledged.len().to_string(), "every acknowledged row is live or aside");
    let mut unique = acknowledged.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), acknowledged.len(), "no id was given out twice");
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM items").await, "2");
    // The foreign keys point into their own schema.
    for schema in [&bed.name, &aside] {
        let sql = format!(
            "SELECT REFERENCED_TABLE_SCHEMA FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = '{schema}' AND CONSTRAINT_NAME = 'of_order'"
        );
        assert_eq!(&ask(&mut root, &sql).await, schema);
    }
    let inventory = inspect(&bed.database()).await.expect("the database can be read");
    assert_eq!(inventory.marker, Some(bed.swap("p1").marker));
    assert_eq!(inventory.beside.iter().map(|b| b.schema.clone()).collect::<Vec<_>>(), [aside], "the shadow is gone");
}

#[tokio::test]
async fn swapping_twice_is_swapping_once() {
    let bed = loaded(SHOP).await;
    swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
    let mut root = bed.root().await;
    run(&mut root, "INSERT INTO orders (id, who) VALUES (900000, 'after')").await;
    let again = swap(&bed.database(), &bed.swap("p1")).await.expect("it is done already");
    assert_eq!((again.tables, again.attempts), (0, 0));
    assert_eq!(ask(&mut root, "SELECT who FROM orders WHERE id = 900000").await, "after");
}

#[tokio::test]
async fn a_crash_right_after_the_rename_is_finished_by_the_next_call() {
    let bed = loaded(SHOP).await;
    // What the engine does up to and including the rename, and no further.
    let (shadow, aside, live) = (bed.beside("shadow"), bed.beside("aside"), &bed.name);
    let mut root = bed.root().await;
    run(
        &mut root,
        &format!(
            "CREATE DATABASE `{aside}`; CREATE TABLE `{shadow}`._backout (id TINYINT UNSIGNED PRIMARY KEY, point VARCHAR(255), operation VARCHAR(255), `release` BIGINT UNSIGNED); \
             INSERT INTO `{shadow}`._backout VALUES (1, 'p1', 'rollback-p1', 7); INSERT INTO orders VALUES (5000, 'late'); \
             RENAME TABLE `{live}`.orders TO `{aside}`.orders, `{live}`.items TO `{aside}`.items, \
               `{shadow}`.orders TO `{live}`.orders, `{shadow}`.items TO `{live}`.items, `{shadow}`._backout TO `{live}`._backout"
        ),
    )
    .await;
    swap(&bed.database(), &bed.swap("p1")).await.expect("it is finished");
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{shadow}'")).await, "0");
    run(&mut root, "INSERT INTO orders (who) VALUES ('next')").await;
    assert_eq!(ask(&mut root, "SELECT MAX(id) > 5000 FROM orders").await, "1", "the id of the row aside is not given out again");
}

#[tokio::test]
async fn an_open_transaction_blocks_the_cut_over_by_name_and_nothing_changes() {
    let bed = loaded(SHOP).await;
    let mut holder = bed.root().await;
    run(&mut holder, "START TRANSACTION; SELECT * FROM orders").await;
    let process = ask(&mut holder, "SELECT CONNECTION_ID()").await;
    let impatient = Swap { deadline: Duration::from_millis(300), ..bed.swap("p1") };
    let result = swap(&bed.database(), &impatient).await;
    let Err(error) = result else { panic!("{result:?}") };
    assert_eq!((error.label(), error.class()), ("swap_blocked", Class::Transient));
    assert!(error.to_string().contains(&format!("process {process} of root@")), "{error}");
    let Error::SwapBlocked { attempts, blockers, .. } = error else { panic!("the label says so") };
    assert!(attempts > 1);
    assert!(blockers.iter().any(|blocker| blocker.process.to_string() == process), "{blockers:?}");

    let mut root = bed.root().await;
    let tables = |schema: &str| format!("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{schema}'");
    assert_eq!(ask(&mut root, &tables(&bed.name)).await, "2");
    assert_eq!(ask(&mut root, &tables(&bed.beside("aside"))).await, "0");
    assert!(try_run(&mut root, "INSERT INTO orders (who) VALUES ('goes on')").await.is_ok());
    run(&mut holder, "COMMIT").await;
    swap(&bed.database(), &impatient).await.expect("nothing blocks any more");
}

#[tokio::test]
async fn a_blocking_statement_is_named_by_its_kind_and_never_quoted() {
    let bed = loaded(SHOP).await;
    let mut holder = bed.root().await;
    let process = ask(&mut holder, "SELECT CONNECTION_ID()").await;
    let reader = tokio::spawn(async move { try_run(&mut holder, "SELECT /* marker-1 */ 'marker-2', SLEEP(20) FROM orders").await });
    let mut root = bed.root().await;
    until(&mut root, &format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {process} AND STATE = 'User sleep'"), "1")
        .await;
    let result = swap(&bed.database(), &Swap { deadline: Duration::from_millis(300), ..bed.swap("p1") }).await;
    let Err(error) = result else { panic!("{result:?}") };
    let message = error.to_string();
    assert!(message.contains(&format!("process {process} of root@")) && message.contains("(SELECT, User sleep)"), "{message}");
    assert!(!format!("{message} {error:?}").contains("marker"), "{error:?}");
    run(&mut root, &format!("KILL {process}")).await;
    assert!(reader.await.expect("the task ran").is_err());
}

#[tokio::test]
async fn ids_are_not_given_out_again() {
    let bed = loaded("CREATE TABLE wide (id INT PRIMARY KEY AUTO_INCREMENT); CREATE TABLE narrow (id TINYINT UNSIGNED PRIMARY KEY AUTO_INCREMENT); INSERT INTO wide VALUES (1); INSERT INTO narrow VALUES (1)").await;
    let mut root = bed.root().await;
    run(&mut root, "INSERT INTO wide VALUES (500); INSERT INTO narrow VALUES (250)").await;
    swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
    run(&mut root, "INSERT INTO wide VALUES (NULL); INSERT INTO narrow VALUES (NULL)").await;
    assert_eq!(ask(&mut root, "SELECT MAX(id) > 500 FROM wide").await, "1");
    assert_eq!(ask(&mut root, "SELECT MAX(id) FROM narrow").await, "251", "a narrow column gets no headroom");
}

#[tokio::test]
async fn tables_that_came_go_aside_and_tables_that_went_come_back() {
    let bed = loaded(&format!("{SHOP}; CREATE TABLE dropped (id INT); INSERT INTO dropped VALUES (4)")).await;
    let mut root = bed.root().await;
    run(&mut root, "DROP TABLE dropped; CREATE TABLE added (id INT); INSERT INTO added VALUES (1), (2)").await;
    swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
    assert_eq!(ask(&mut root, "SELECT id FROM dropped").await, "4");
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM `{}`.added", bed.beside("aside"))).await, "2");
    assert!(try_run(&mut root, "SELECT 1 FROM added").await.is_err());
}

#[tokio::test]
async fn only_a_complete_shadow_of_the_right_point_is_swapped_in() {
    let bed = loaded(SHOP).await;
    let mut root = bed.root().await;
    let refused = async |swap_: Swap, part: &str| {
        let result = swap(&bed.database(), &swap_).await;
        let Err(error @ Error::Schema { .. }) = result else { panic!("{part}: {result:?}") };
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(bed.swap("p2"), "it holds p1, not p2").await;
    refused(Swap { shadow: bed.beside("none"), ..bed.swap("p1") }, "load it first").await;
    refused(Swap { aside: bed.name.clone(), ..bed.swap("p1") }, "its name must begin with").await;
    run(&mut root, &format!("CREATE DATABASE `{0}`; CREATE TABLE `{0}`.x (id INT)", bed.beside("aside"))).await;
    refused(bed.swap("p1"), "it holds tables").await;
    run(
        &mut root,
        &format!("DROP DATABASE `{}`; UPDATE `{}`._backout_beside SET state = 'loading'", bed.beside("aside"), bed.beside("shadow")),
    )
    .await;
    refused(bed.swap("p1"), "not completely loaded").await;
    let engine = "CREATE TABLE m (id INT) ENGINE=MyISAM";
    run(
        &mut root,
        &format!("UPDATE `{0}`._backout_beside SET state = 'complete'; CREATE VIEW `{0}`.v AS SELECT 1; {engine}", bed.beside("shadow")),
    )
    .await;
    let result = swap(&bed.database(), &bed.swap("p1")).await;
    assert!(matches!(&result, Err(Error::Unsupported { .. })), "{result:?}");
    run(&mut root, "DROP TABLE m").await;
    refused(bed.swap("p1"), "view v is in it, which Backout did not put there; drop it").await;
}

#[tokio::test]
async fn the_loss_names_what_a_cut_over_would_take() {
    let bed = loaded(
        "CREATE TABLE same (id INT PRIMARY KEY, v INT); INSERT INTO same VALUES (1, 1); \
         CREATE TABLE by_key (a VARCHAR(9), b INT, v VARCHAR(9), extra INT, PRIMARY KEY (a, b)); INSERT INTO by_key VALUES ('x', 1, 'one', 1), ('x', 2, 'two', 2), ('y', 1, NULL, 3), ('z', 1, 'z', 4); \
         CREATE TABLE keyless (v INT); INSERT INTO keyless VALUES (1), (1), (2); \
         CREATE TABLE unlike (v INT); INSERT INTO unlike VALUES (1), (2); CREATE TABLE widened (id INT PRIMARY KEY, v INT); INSERT INTO widened VALUES (1, 1); \
         CREATE TABLE filled (id INT PRIMARY KEY); INSERT INTO filled VALUES (1), (2), (3); CREATE TABLE dropped (id INT PRIMARY KEY); INSERT INTO dropped VALUES (1), (2)",
    )
    .await;
    let mut root = bed.root().await;
    assert_eq!(loss(&bed.database(), &bed.beside("shadow")).await.expect("both can be read"), []);
    run(
        &mut root,
        "ALTER TABLE by_key DROP extra, ADD another INT DEFAULT 5; INSERT INTO by_key (a, b, v) VALUES ('n', 1, 'new'), ('n', 2, 'new'); \
         UPDATE by_key SET v = 'changed' WHERE a = 'y'; UPDATE by_key SET a = 'X' WHERE a = 'x' AND b = 2; DELETE FROM by_key WHERE a = 'z'; \
         INSERT INTO keyless VALUES (3), (4); UPDATE unlike SET v = 3 WHERE v = 2; ALTER TABLE widened MODIFY v BIGINT; \
         ALTER TABLE filled ADD note VARCHAR(9), ADD state INT NOT NULL DEFAULT 7; UPDATE filled SET note = 'n' WHERE id = 1; UPDATE filled SET state = 8 WHERE id = 2; \
         DROP TABLE dropped; CREATE TABLE added (id INT); INSERT INTO added VALUES (1)",
    )
    .await;
    let row = |table: &str, inserted, changed, deleted, basis, untold: &[&str]| {
        let untold = untold.iter().map(|text| (*text).to_owned()).collect();
        TableLoss { table: table.into(), inserted, changed, deleted, basis, untold }
    };
    let keyless = "without a common key, rows that changed can't be counted";
    let expected = [
        row("added", 1, 0, 0, Basis::Key, &[]),
        row("by_key", 2, 2, 1, Basis::Key, &[]),
        row("dropped", 0, 0, 2, Basis::Key, &[]),
        row("filled", 0, 2, 0, Basis::Key, &[]),
        row("keyless", 2, 0, 0, Basis::Count, &[keyless]),
        row("unlike", 0, 0, 0, Basis::Count, &[keyless]),
        row("widened", 0, 0, 0, Basis::Key, &["column v is of another type"]),
    ];
    // The same as a whole and row by row.
    run(&mut root, "ANALYZE TABLE by_key, widened, filled").await;
    for database in [bed.database(), bed.database().with_chunk(1).with_connections(3)] {
        assert_eq!(loss(&database, &bed.beside("shadow")).await.expect("both can be read"), expected);
    }
    assert!(matches!(loss(&bed.database(), &bed.beside("none")).await, Err(Error::Schema { .. })));
}
