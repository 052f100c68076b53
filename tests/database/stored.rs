//! Views, routines, triggers and events: carried, tried, swapped in with their tables, and no row without its triggers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backout::error::Class;
use backout::mysql::{Error, Marker, Swap, capture, inspect, load, swap};
use object_store::path::Path;
use sqlx::mysql::MySqlConnection;

use super::{Bed, ask, query, run, until, what};

/// A shop with every kind of stored object. A trigger's table has a foreign key that was given a name, and one that was not.
const SHOP: &str = "CREATE TABLE people (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20)); \
    CREATE TABLE orders (id BIGINT PRIMARY KEY AUTO_INCREMENT, who INT, friend INT, total INT NOT NULL DEFAULT 0, \
      CONSTRAINT by_person FOREIGN KEY (who) REFERENCES people (id) ON DELETE CASCADE, FOREIGN KEY (friend) REFERENCES people (id)); \
    CREATE TABLE audit (id BIGINT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(20), order_id BIGINT); \
    INSERT INTO people VALUES (1, 'Zoë 🎉'); \
    CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2; \
    SET sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT'; \
    CREATE PROCEDURE greet(IN who VARCHAR(20)) BEGIN SELECT 'hey ' || who AS \"greeting\"; END; \
    SET sql_mode='ORACLE'; CREATE PACKAGE tools AS FUNCTION one RETURN INT; END; \
    CREATE PACKAGE BODY tools AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END; \
    SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'; \
    CREATE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW z_orders AS SELECT * FROM orders; \
    CREATE VIEW a_doubled AS SELECT id, twice(total) AS total, '🎉' AS party FROM z_orders WITH CHECK OPTION";
const TRIGGERS: &str = "CREATE TRIGGER second AFTER INSERT ON orders FOR EACH ROW INSERT INTO audit (what, order_id) VALUES ('second 🎉', NEW.id); \
    CREATE /* odd */ TRIGGER  first\nAFTER  INSERT ON `orders` FOR EACH ROW PRECEDES second BEGIN IF NEW.id IS NOT NULL THEN INSERT INTO audit (what, order_id) VALUES ('first', NEW.id); END IF; END; \
    SET time_zone='+05:30'; CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 03:00:00' COMMENT 'PRESERVE ENABLE' DO DELETE FROM audit WHERE id < 0; \
    CREATE EVENT idle ON SCHEDULE EVERY 1 HOUR STARTS '2030-01-01 03:00:00' ON COMPLETION PRESERVE DISABLE DO SELECT 1; SET time_zone=DEFAULT";

async fn shop() -> Bed {
    Bed::new(&format!("{SHOP}; {TRIGGERS}")).await
}

/// Everything that the catalogue says of stored objects and of foreign keys, but when they were made.
async fn objects(root: &mut MySqlConnection, schema: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (table, schema_column, order) in [
        ("VIEWS", "TABLE_SCHEMA", "TABLE_NAME"),
        ("ROUTINES", "ROUTINE_SCHEMA", "ROUTINE_TYPE, ROUTINE_NAME"),
        ("TRIGGERS", "EVENT_OBJECT_SCHEMA", "TRIGGER_NAME"),
        ("EVENTS", "EVENT_SCHEMA", "EVENT_NAME"),
        ("REFERENTIAL_CONSTRAINTS", "CONSTRAINT_SCHEMA", "CONSTRAINT_NAME"),
    ] {
        for mut row in
            query(root, &format!("SELECT * FROM information_schema.{table} WHERE {schema_column} = '{schema}' ORDER BY {order}")).await
        {
            row.retain(|column, _| !matches!(column.as_str(), "CREATED" | "LAST_ALTERED"));
            found.push(format!("{row:?}"));
        }
    }
    found
}

async fn loaded() -> (Bed, MySqlConnection) {
    let bed = shop().await;
    bed.capture("p1").await;
    load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    let root = bed.root().await;
    (bed, root)
}

/// What a release may do to them: one of each is gone, other, or new; a view is where a table was, and the other way round.
const RELEASE: &str = "DROP VIEW a_doubled; DROP VIEW z_orders; CREATE TABLE a_doubled (id INT PRIMARY KEY); CREATE VIEW latest AS SELECT MAX(id) AS id FROM orders; \
    DROP FUNCTION twice; CREATE FUNCTION thrice(n INT) RETURNS INT DETERMINISTIC RETURN n * 3; DROP PROCEDURE greet; CREATE PROCEDURE greet() SELECT 'what?'; SET sql_mode='ORACLE'; DROP PACKAGE tools; SET sql_mode='NO_AUTO_VALUE_ON_ZERO'; \
    DROP TRIGGER second; CREATE TRIGGER third BEFORE INSERT ON people FOR EACH ROW SET NEW.name = UPPER(NEW.name); \
    DROP EVENT idle; ALTER EVENT nightly DISABLE; CREATE EVENT hourly ON SCHEDULE EVERY 1 HOUR STARTS '2030-01-01 03:00:00' DO SELECT 2";

#[tokio::test]
async fn stored_objects_go_back_and_forth_with_the_tables_they_belong_to() {
    let (bed, mut root) = loaded().await;
    let shadow = bed.beside("shadow");
    let left: Vec<String> = objects(&mut root, &shadow).await.into_iter().filter(|row| !row.contains("CONSTRAINT_SCHEMA")).collect();
    assert_eq!(left, Vec::<String>::new(), "they were only tried");
    let before = objects(&mut root, &bed.name).await;
    assert_eq!(before.len(), 2 + 4 + 2 + 2 + 2);
    run(&mut root, RELEASE).await;
    let released = objects(&mut root, &bed.name).await;

    let swapped = swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
    assert_eq!(swapped.tables, 5, "three tables, the marker and the owner");
    assert_eq!(objects(&mut root, &bed.name).await, before);
    assert_eq!(ask(&mut root, "CALL greet('you')").await, "hey you");
    run(&mut root, "SET sql_mode='ORACLE'").await;
    assert_eq!(ask(&mut root, "SELECT tools.one()").await, "1");
    run(&mut root, "SET sql_mode='NO_AUTO_VALUE_ON_ZERO'").await;
    run(&mut root, "INSERT INTO orders (who, total) VALUES (1, 21)").await;
    assert_eq!(ask(&mut root, "SELECT CONCAT(total, party) FROM a_doubled").await, "42🎉");
    assert_eq!(ask(&mut root, "SELECT GROUP_CONCAT(what ORDER BY id) FROM audit").await, "first,second 🎉");

    let undo = |source: &str, aside: &str| Swap {
        shadow: bed.beside(source),
        aside: bed.beside(aside),
        marker: Marker { point: bed.beside(source), operation: format!("undo to {source}"), release: 8 },
        ..bed.swap("p1")
    };
    swap(&bed.database(), &undo("aside", "undone")).await.expect("it is undone");
    assert_eq!(objects(&mut root, &bed.name).await, released);
    swap(&bed.database(), &undo("undone", "aside")).await.expect("the undo is undone");
    assert_eq!(objects(&mut root, &bed.name).await, before);
    assert_eq!(inspect(&bed.database()).await.expect("the database can be read").beside.len(), 1, "only the last aside is left");
}

#[tokio::test]
async fn no_row_goes_without_its_triggers_while_tables_are_swapped() {
    let (bed, mut root) = loaded().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for _ in 0..2 {
        let mut connection = bed.root().await;
        let stop = Arc::clone(&stop);
        writers.push(tokio::spawn(async move {
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                run(&mut connection, "INSERT INTO orders (who) VALUES (1)").await;
                written += 1;
            }
            written
        }));
    }
    until(&mut root, "SELECT COUNT(*) > 50 FROM orders", "1").await;
    swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
    until(&mut root, "SELECT COUNT(*) > 50 FROM orders", "1").await;
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.expect("nobody saw an error");
    }
    let aside = bed.beside("aside");
    let all = |table: &str| format!("(SELECT COUNT(*) FROM {table}) + (SELECT COUNT(*) FROM `{aside}`.{table})");
    assert_eq!(ask(&mut root, &format!("SELECT {}", all("orders"))).await, written.to_string());
    assert_eq!(ask(&mut root, &format!("SELECT {}", all("audit"))).await, (2 * written).to_string(), "each row fired both triggers once");
}

/// Nothing with a passing name, in the live schema or in the shadow.
async fn nothing_passes(root: &mut MySqlConnection, bed: &Bed) {
    for (table, column, schema) in
        [("TABLES", "TABLE_NAME", "TABLE"), ("TRIGGERS", "TRIGGER_NAME", "TRIGGER"), ("TABLE_CONSTRAINTS", "CONSTRAINT_NAME", "TABLE")]
    {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.{table} WHERE {schema}_SCHEMA LIKE '{}%' AND {column} LIKE '\\_backout\\_passing\\_%'",
            bed.name
        );
        assert_eq!(ask(root, &sql).await, "0", "{table}");
    }
}

#[tokio::test]
async fn a_cut_over_that_stays_blocked_takes_everything_back() {
    let (bed, mut root) = loaded().await;
    let (live, shadow) = (objects(&mut root, &bed.name).await, objects(&mut root, &bed.beside("shadow")).await);
    let mut holder = bed.root().await;
    run(&mut holder, "START TRANSACTION; SELECT * FROM people").await;
    let blocked = swap(&bed.database(), &Swap { deadline: Duration::from_millis(300), ..bed.swap("p1") }).await;
    assert!(matches!(&blocked, Err(Error::SwapBlocked { .. })), "{blocked:?}");
    nothing_passes(&mut root, &bed).await;
    assert_eq!((objects(&mut root, &bed.name).await, objects(&mut root, &bed.beside("shadow")).await), (live.clone(), shadow));
    run(&mut holder, "COMMIT").await;
    swap(&bed.database(), &bed.swap("p1")).await.expect("nothing blocks any more");
    assert_eq!(objects(&mut root, &bed.name).await, live);
}

#[tokio::test]
async fn whoever_comes_after_a_crash_before_the_rename_takes_back_what_had_passed() {
    let (bed, mut root) = loaded().await;
    let live = objects(&mut root, &bed.name).await;
    let mut holder = bed.root().await;
    run(&mut holder, "START TRANSACTION; SELECT * FROM people").await;
    let (database, wanted) = (bed.database(), bed.swap("p1"));
    let crashing = tokio::spawn(async move { swap(&database, &wanted).await });
    let passing = format!(
        "SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = '{}' AND TRIGGER_NAME = '_backout_passing_trigger_1'",
        bed.name
    );
    until(&mut root, &passing, "1").await;
    crashing.abort();
    assert!(crashing.await.is_err(), "it was cut off");
    assert_eq!(inspect(&bed.database()).await.expect("the database can be read").tables.len(), 3, "what passes is not the application's");
    run(&mut holder, "COMMIT").await;
    // Anything that writes: here the next backup.
    let manifest = bed.capture("p2").await;
    assert_eq!(manifest.tables.len(), 3);
    nothing_passes(&mut root, &bed).await;
    assert_eq!(objects(&mut root, &bed.name).await, live);
    swap(&bed.database(), &bed.swap("p1")).await.expect("the shadow is whole again");
    assert_eq!(objects(&mut root, &bed.name).await, live);
}

#[tokio::test]
async fn whoever_comes_after_a_crash_behind_the_rename_ends_the_cut_over() {
    let (bed, mut root) = loaded().await;
    let live = objects(&mut root, &bed.name).await;
    run(&mut root, "DROP PROCEDURE greet; CREATE PROCEDURE greet() SELECT 'what?'").await;
    // Who is in a procedure keeps it from being replaced, which is the first thing after the rename.
    let mut holder = bed.root().await;
    run(&mut holder, "START TRANSACTION; CALL greet()").await;
    let (database, wanted) = (bed.database(), bed.swap("p1"));
    let crashing = tokio::spawn(async move { swap(&database, &wanted).await });
    let marker = format!("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{}' AND TABLE_NAME = '_backout'", bed.name);
    until(&mut root, &marker, "1").await;
    crashing.abort();
    assert!(crashing.await.is_err(), "it was cut off");
    run(&mut root, "INSERT INTO orders (who) VALUES (1)").await;
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM audit").await, "2", "the triggers are there under other names");
    run(&mut holder, "COMMIT").await;
    bed.capture("p2").await;
    nothing_passes(&mut root, &bed).await;
    assert_eq!(objects(&mut root, &bed.name).await, live);
    assert_eq!(swap(&bed.database(), &bed.swap("p1")).await.expect("it is done").attempts, 0);
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM `{}`.orders", bed.beside("aside"))).await, "0");
}

#[tokio::test]
async fn an_object_whose_definer_is_gone_is_refused_before_anything_live_is_touched() {
    let bed = Bed::new("CREATE TABLE t (id INT PRIMARY KEY)").await;
    let mut root = bed.root().await;
    let name = &bed.name;
    run(&mut root, &format!("CREATE USER '{name}'@'%'; CREATE DEFINER='{name}'@'%' TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET @a = 1"))
        .await;
    bed.capture("p1").await;
    run(&mut root, &format!("DROP USER '{name}'@'%'")).await;
    let refused = load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await;
    let Err(error) = refused else { panic!("{refused:?}") };
    assert_eq!((error.label(), error.class()), ("definer_missing", Class::Permanent));
    assert_eq!(
        error.to_string(),
        format!("trigger tr on t has the definer {name}@%, an account that does not exist: create it; every use of the object would fail")
    );
    run(&mut root, &format!("CREATE USER '{name}'@'%'")).await;
    load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("it goes on");
}

#[tokio::test]
async fn a_change_of_a_stored_object_during_the_backup_is_noticed() {
    let bed = shop().await;
    let mut root = bed.root().await;
    run(&mut root, "INSERT INTO audit (what) VALUES ('x'), ('y')").await;
    // Whoever reads the table waits for this one.
    let mut holder = bed.root().await;
    run(&mut holder, "LOCK TABLES orders WRITE").await;
    let (database, store) = (bed.database(), bed.store.clone());
    let reading = tokio::spawn(async move { capture(&database, &store, &Path::from("p1"), &what("p1")).await });
    let waiting =
        format!("SELECT COUNT(*) > 0 FROM information_schema.PROCESSLIST WHERE DB = '{}' AND STATE LIKE 'Waiting for table%'", bed.name);
    until(&mut root, &waiting, "1").await;
    run(&mut root, "CREATE OR REPLACE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n + n").await;
    run(&mut holder, "UNLOCK TABLES").await;
    let result = reading.await.expect("it ends");
    assert!(matches!(&result, Err(Error::Moved { what }) if what == "function twice"), "{result:?}");
}
