//! System-versioned tables: the rows of the past are carried with those of the present.

use backout::mysql::{Carried, Kind, carry_forward, checksum, inspect, load, loss, script_loss, swap};
use object_store::path::Path;
use sqlx::mysql::MySqlConnection;

use super::{Bed, ask, query, run};

/// With columns for the period and without, without a key, in partitions, with a column that has no history, and with long rows.
const TABLES: &str = "CREATE TABLE plain (id INT PRIMARY KEY, v VARCHAR(20), twice INT AS (id * 2) STORED) WITH SYSTEM VERSIONING; \
    CREATE TABLE named (a INT, b VARCHAR(9), v FLOAT, since TIMESTAMP(6) GENERATED ALWAYS AS ROW START, `un``til` TIMESTAMP(6) GENERATED ALWAYS AS ROW END, \
      PERIOD FOR SYSTEM_TIME (since, `un``til`), PRIMARY KEY (a, b)) WITH SYSTEM VERSIONING; \
    CREATE TABLE keyless (v INT, calm INT WITHOUT SYSTEM VERSIONING) WITH SYSTEM VERSIONING; \
    CREATE TABLE parted (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME (PARTITION past HISTORY, PARTITION present CURRENT); \
    CREATE TABLE long_ones (id INT PRIMARY KEY, t LONGTEXT) WITH SYSTEM VERSIONING; \
    INSERT INTO plain (id, v) VALUES (1, 'one'), (2, 'two'), (3, 'three'); UPDATE plain SET v = 'zwei' WHERE id = 2; UPDATE plain SET v = 'deux' WHERE id = 2; DELETE FROM plain WHERE id = 3; \
    INSERT INTO named (a, b, v) VALUES (1, 'x', 0.1), (1, 'y', 0.2); UPDATE named SET v = 3.4028234663852886e38; DELETE FROM named WHERE b = 'y'; \
    INSERT INTO keyless VALUES (1, 1), (1, 1), (2, 2); UPDATE keyless SET v = 3 WHERE v = 1; UPDATE keyless SET calm = 9; \
    INSERT INTO parted VALUES (1, 1), (2, 2); UPDATE parted SET v = v + 1; \
    INSERT INTO long_ones VALUES (1, REPEAT('a', 300000)), (2, REPEAT('b', 300000)); UPDATE long_ones SET t = REPEAT('c', 400000); UPDATE long_ones SET t = REPEAT('d', 500000); \
    ANALYZE TABLE plain, named, keyless, parted, long_ones";

async fn history(root: &mut MySqlConnection, schema: &str) -> Vec<Vec<Option<String>>> {
    let mut found = Vec::new();
    for (table, columns) in [
        ("plain", "id, v, twice, row_start, row_end"),
        ("named", "a, b, v + 0e0, since, `un``til`"),
        ("keyless", "v, calm, row_start, row_end"),
        ("parted", "id, v, row_start, row_end"),
        ("long_ones", "id, LENGTH(t), MD5(t), row_start, row_end"),
    ] {
        let sql = format!("SELECT '{table}', {columns} FROM `{schema}`.{table} FOR SYSTEM_TIME ALL ORDER BY {columns}");
        found.extend(query(root, &sql).await.into_iter().map(|row| row.into_values().collect()));
    }
    found
}

#[tokio::test]
async fn the_past_is_carried_whatever_the_chunks() {
    let bed = Bed::new(TABLES).await;
    let mut root = bed.root().await;
    let before = history(&mut root, &bed.name).await;
    assert_eq!(before.len(), 5 + 4 + 5 + 4 + 6, "{before:?}");
    for (point, database) in [("whole", bed.database()), ("tiny", bed.database().with_chunk(1).with_connections(3))] {
        let manifest = bed.capture_with(&database, point).await;
        let shadow = bed.beside(point);
        let loaded = load(&database, &bed.store, &Path::from(point), &shadow).await.expect("the backup loads");
        assert_eq!((loaded.tables, loaded.rows), (5, before.len() as u64));
        let text = bed.text(&manifest).await;
        // Servers have another latest time each: one of them written out would make a row of the past on the other.
        assert!(text.contains(",DEFAULT)") && !text.contains("2038-01-19") && !text.contains("2106-02-07"), "the present has no last time");
        assert_eq!(history(&mut root, &shadow).await, before, "{point}");
        for table in &manifest.tables {
            assert_eq!(checksum(&bed.database(), &shadow, &table.name).await.expect("it can be summed"), table.sum(), "{}", table.name);
        }
    }
}

#[tokio::test]
async fn what_happened_since_is_told_by_the_present_and_the_past_comes_back() {
    let bed = Bed::new(TABLES).await;
    let mut root = bed.root().await;
    let before = history(&mut root, &bed.name).await;
    bed.capture("p1").await;
    run(
        &mut root,
        "INSERT INTO plain (id, v) VALUES (4, 'new'); UPDATE plain SET v = 'uno' WHERE id = 1; DELETE FROM plain WHERE id = 2; \
         UPDATE parted SET v = 7 WHERE id = 1; UPDATE parted SET v = 2 WHERE id = 1; INSERT INTO named (a, b) VALUES (9, 'z'); \
         UPDATE keyless SET v = 8 WHERE v = 2; UPDATE keyless SET v = 2 WHERE v = 8; \
         CREATE TABLE younger (id INT PRIMARY KEY) WITH SYSTEM VERSIONING; INSERT INTO younger VALUES (1); DELETE FROM younger",
    )
    .await;
    let shadow = bed.beside("shadow");
    load(&bed.database(), &bed.store, &Path::from("p1"), &shadow).await.expect("the backup loads");
    let lost: Vec<String> = loss(&bed.database(), &shadow).await.expect("they can be compared").iter().map(ToString::to_string).collect();
    let expected = [
        "keyless: 0 inserted, 0 changed, 0 deleted, by number only; rows were changed and changed back, or the history was",
        "named: 1 inserted, 0 changed, 0 deleted",
        "parted: 0 inserted, 0 changed, 0 deleted; rows were changed and changed back, or the history was",
        "plain: 1 inserted, 1 changed, 1 deleted",
        "younger: 1 inserted, 0 changed, 0 deleted",
    ];
    assert_eq!(lost, expected);
    swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
    assert_eq!(history(&mut root, &bed.name).await, before);

    let carried = carry_forward(&bed.database(), &bed.beside("aside")).await.expect("it is done");
    let row = |table: &str| Carried { table: table.into(), carried: 1, kept: 0, why: Vec::new() };
    assert_eq!(carried, [row("named"), row("plain")]);
    run(&mut root, "UPDATE plain SET v = 'newer' WHERE id = 4").await;
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM plain FOR SYSTEM_TIME ALL WHERE id = 4").await, "2", "history goes on");
}

#[tokio::test]
async fn down_scripts_take_the_past_along() {
    let bed = Bed::new(
        "CREATE TABLE emptied (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING; INSERT INTO emptied VALUES (1, 1), (2, NULL); DELETE FROM emptied",
    )
    .await;
    for (script, expected) in [
        ("DROP TABLE emptied", Some("table emptied: 2 rows")),
        ("ALTER TABLE emptied DROP COLUMN v", Some("column emptied.v: 1 values")),
        ("DELETE FROM emptied", None),
    ] {
        let found = script_loss(&bed.database(), &[("m".to_owned(), script.to_owned())]).await.expect("it can be measured");
        assert_eq!(found.first().map(|loss| loss.what.as_str()), expected, "{script}");
    }
}

/// Numbers of transactions mean something on the server alone that gave them out, and partitions that the server adds make another table.
#[tokio::test]
async fn a_history_that_can_not_be_written_is_refused_by_name() {
    let bed = Bed::new(
        "CREATE TABLE numbered (id INT, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, \
         PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING; CREATE TABLE h (id INT) WITH SYSTEM VERSIONING; \
         CREATE TABLE growing (id INT) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME INTERVAL 1 HOUR AUTO PARTITIONS 3; \
         CREATE TABLE hourly (id INT) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME INTERVAL 1 HOUR PARTITIONS 3",
    )
    .await;
    let inventory = inspect(&bed.database()).await.expect("the database can be read");
    let found: Vec<(Kind, &str)> = inventory.unsupported.iter().map(|object| (object.kind, object.name.as_str())).collect();
    assert_eq!(found, [(Kind::SystemVersionedTable, "growing"), (Kind::SystemVersionedTable, "numbered")]);
}
