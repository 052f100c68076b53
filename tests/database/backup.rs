//! Consistency of a backup under writers, and what is made of a damaged one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backout::error::Class;
use backout::mysql::{Agreement, Chunk, Error, Kind, Standing, capture, checksum, discard, inspect, load, read_manifest, rehearse, swap};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde_json::json;

use super::{Bed, ask, run, try_run, until, what};

const ORDERS: &str = "CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, total INT NOT NULL) ENGINE=InnoDB; \
    CREATE TABLE items (id INT PRIMARY KEY AUTO_INCREMENT, order_id INT NOT NULL, price INT NOT NULL, \
      CONSTRAINT of_order FOREIGN KEY (order_id) REFERENCES orders (id)); \
    INSERT INTO orders (total) SELECT 0 FROM seq_1_to_2000";

/// Four sessions and many chunks, for an account that may hold back commits and for one that may not.
#[tokio::test]
async fn linked_tables_are_consistent_while_others_write() {
    let bed = Bed::new(ORDERS).await;
    let mut root = bed.root().await;
    let (name, pattern) = (&bed.name, bed.name.replace('_', "\\_"));
    run(
        &mut root,
        &format!(
            "CREATE USER '{name}'@'%' IDENTIFIED BY 'pw'; GRANT ALL ON `{pattern}`.* TO '{name}'@'%'; \
             GRANT ALL ON `{pattern}\\_backout\\_%`.* TO '{name}'@'%'"
        ),
    )
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for _ in 0..3 {
        let mut connection = bed.root().await;
        let stop = Arc::clone(&stop);
        writers.push(tokio::spawn(async move {
            let mut orders = 0;
            // One transaction: an order, its two items, and a total that equals their prices.
            while !stop.load(Ordering::Relaxed) {
                run(
                    &mut connection,
                    "START TRANSACTION; INSERT INTO orders (total) VALUES (0); SET @id = LAST_INSERT_ID(); \
                     INSERT INTO items (order_id, price) VALUES (@id, 3), (@id, 4); UPDATE orders SET total = 7 WHERE id = @id; COMMIT",
                )
                .await;
                orders += 1;
            }
            orders
        }));
    }
    until(&mut root, "SELECT COUNT(*) > 20 FROM items", "1").await;
    run(&mut root, "ANALYZE TABLE orders, items").await;
    for (point, account, agreement) in
        [("p1", bed.database(), Agreement::BackupStage), ("p2", bed.database_as(name, "pw"), Agreement::EqualPositions)]
    {
        let database = account.with_connections(4).with_chunk(8 * 1024);
        let (prefix, shadow) = (Path::from(point), bed.beside(point));
        // Where the views were not of one instant at once, they begin again: often enough to be seen here.
        for number in 0..8 {
            let further = format!("{point}-{number}");
            let database = database.clone().with_connections(12);
            let manifest = capture(&database, &bed.store, &Path::from(further.as_str()), &what(&further)).await;
            assert_eq!(manifest.expect("the backup succeeds").head.agreement, agreement);
        }
        let manifest = bed.capture_with(&database, point).await;
        load(&database, &bed.store, &prefix, &shadow).await.expect("the backup loads");
        assert!(manifest.rows() > 2000);
        assert!(manifest.tables.iter().any(|table| table.chunks.len() > 4), "{manifest:?}");
        assert_eq!(manifest.head.agreement, agreement);
        let orphans =
            format!("SELECT COUNT(*) FROM `{shadow}`.items i LEFT JOIN `{shadow}`.orders o ON o.id = i.order_id WHERE o.id IS NULL");
        assert_eq!(ask(&mut root, &orphans).await, "0", "{point}");
        let equal = format!("SELECT (SELECT SUM(total) FROM `{shadow}`.orders) = (SELECT SUM(price) FROM `{shadow}`.items)");
        assert_eq!(ask(&mut root, &equal).await, "1", "{point}");
        let position = manifest.head.position.expect("the server writes a binary log");
        assert!(!position.file.is_empty() && position.offset > 0, "{position:?}");
        // Without a look at the server while commits are held back, it depends on the log whether the server finds it.
        assert!(position.gtid.is_some() || agreement == Agreement::EqualPositions, "{position:?}");
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.expect("the writer ran without error") > 0);
    }
}

#[tokio::test]
async fn a_load_that_was_interrupted_goes_on_at_the_chunks_that_are_missing() {
    let bed = Bed::new("CREATE TABLE a (id INT PRIMARY KEY); INSERT INTO a SELECT seq FROM seq_1_to_1000; ANALYZE TABLE a").await;
    let database = bed.database().with_chunk(10_000);
    let (prefix, shadow) = (Path::from("p1"), bed.beside("shadow"));
    let manifest = bed.capture_with(&database, "p1").await;
    let [first, second, ..] = manifest.tables[0].chunks.as_slice() else { panic!("{manifest:?}") };
    load(&database, &bed.store, &prefix, &shadow).await.expect("the backup loads");
    let mut root = bed.root().await;
    let end = |chunk: &Chunk| chunk.range.upto.clone().expect("it has an end").join("");
    let interrupt = format!(
        "UPDATE `{shadow}`._backout_beside SET state = 'loading'; DELETE FROM `{shadow}`._backout_chunks WHERE file = '{}'; \
         DELETE FROM `{shadow}`.a WHERE id <= {}",
        first.file.name,
        end(first)
    );
    run(&mut root, &interrupt).await;
    load(&database, &bed.store, &prefix, &shadow).await.expect("it goes on");
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM `{shadow}`.a")).await, "1000");

    // What was noted is not loaded again: where it is not what was noted, that is found, and then all is.
    run(&mut root, &format!("{interrupt}; DELETE FROM `{shadow}`.a WHERE id = {}", end(second))).await;
    let refused = load(&database, &bed.store, &prefix, &shadow).await;
    let Err(Error::Mismatch { reason, .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!(
        *reason,
        format!(
            "{} rows where `a`.`id` > {} AND `a`.`id` <= {} instead of {}",
            second.sum.rows - 1,
            end(first),
            end(second),
            second.sum.rows
        )
    );
    load(&database, &bed.store, &prefix, &shadow).await.expect("it begins anew");
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM `{shadow}`.a")).await, "1000");

    // A session that an earlier load left may still be at work.
    discard(&database, &shadow).await.expect("it can be dropped");
    assert_eq!(ask(&mut root, &format!("SELECT GET_LOCK('backout-helper-1:{}', 0)", bed.name)).await, "1");
    let refused = load(&database, &bed.store, &prefix, &shadow).await;
    assert!(matches!(&refused, Err(Error::Busy { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_large_table_becomes_several_files_also_where_its_rows_are_longer_than_was_thought() {
    let bed = Bed::new(
        "CREATE TABLE a (id INT PRIMARY KEY, v LONGTEXT) ENGINE=InnoDB STATS_AUTO_RECALC=0; INSERT INTO a VALUES (0, 'short'); ANALYZE TABLE a; \
         INSERT INTO a SELECT seq, REPEAT('x', 100000) FROM seq_1_to_100; INSERT INTO a SELECT seq, 'short' FROM seq_101_to_1000",
    )
    .await;
    let database = bed.database().with_chunk(1_000_000);
    let manifest = bed.capture_with(&database, "p1").await;
    let chunks = &manifest.tables[0].chunks;
    assert!((4..=6).contains(&chunks.len()), "{chunks:?}");
    let rows: Vec<u64> = chunks.iter().map(|chunk| chunk.sum.rows).collect();
    assert!(rows.iter().take(4).all(|rows| (20..=27).contains(rows)), "{rows:?}");
    assert_eq!(chunks[0].range.after, None);
    assert!(chunks.windows(2).all(|pair| pair[0].range.upto == pair[1].range.after && pair[0].range.upto.is_some()), "{chunks:?}");
    assert_eq!(chunks.last().and_then(|chunk| chunk.range.upto.clone()), None);
    let loaded = load(&database, &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    assert_eq!(loaded.rows, 1001);
}

#[tokio::test]
async fn a_complete_backup_is_returned_and_a_half_written_one_is_overwritten() {
    let bed = Bed::new(ORDERS).await;
    let beside = ["p1/notes.txt", "p1/another/0001-000001-0001.sql.zst"].map(Path::from);
    for file in &beside {
        bed.store.put(file, PutPayload::from_static(b"not of this backup")).await.expect("the store takes it");
    }
    for half in ["p1/0001-000001-0001.sql.zst", "p1/0001-000009-0001.sql.zst"] {
        bed.store.put(&Path::from(half), PutPayload::from_static(b"half")).await.expect("the store takes it");
    }
    let first = bed.capture("p1").await;
    // Whoever restores by hand runs every file that is there.
    let there: Vec<_> = bed.store.list(None).map_ok(|file| file.location).try_collect().await.expect("the store lists");
    assert_eq!(there.len(), first.files().count() + 1 + beside.len(), "and the manifest: {there:?}");
    assert!(beside.iter().all(|file| there.contains(file)), "{there:?}");
    run(&mut bed.root().await, "DELETE FROM orders").await;
    assert_eq!(bed.capture("p1").await, first);
    let other = capture(&bed.database(), &bed.store, &Path::from("p1"), &what("p2")).await;
    assert!(matches!(other, Err(Error::Corrupt { .. })), "{other:?}");
    assert_eq!(read_manifest(&bed.store, &Path::from("p1")).await.expect("it can be read"), Some(first));
    assert_eq!(read_manifest(&bed.store, &Path::from("p3")).await.expect("the store answers"), None);
}

#[tokio::test]
async fn loading_twice_is_loading_once_and_another_point_replaces_it() {
    let bed = Bed::new(ORDERS).await;
    let first = bed.capture("p1").await;
    let mut root = bed.root().await;
    run(&mut root, "DELETE FROM orders WHERE id > 5").await;
    bed.capture("p2").await;
    let shadow = bed.beside("shadow");
    let loaded = load(&bed.database(), &bed.store, &Path::from("p1"), &shadow).await.expect("the backup loads");
    assert_eq!((loaded.rows, loaded.digest), (2000, first.head.digest));
    let created = format!("SELECT CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{shadow}' AND TABLE_NAME = 'orders'");
    run(&mut root, &format!("CREATE TABLE `{shadow}`.witness (id INT)")).await;
    load(&bed.database(), &bed.store, &Path::from("p1"), &shadow).await.expect("it is there already");
    assert_ne!(ask(&mut root, &created).await, "NULL");
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM `{shadow}`.witness")).await, "0", "it was not built again");
    let loaded = load(&bed.database(), &bed.store, &Path::from("p2"), &shadow).await.expect("the other backup loads");
    assert_eq!(loaded.rows, 5);
    let beside = inspect(&bed.database()).await.expect("the database can be read").beside;
    assert_eq!(
        beside.iter().map(|b| (b.schema.as_str(), b.state, b.point.as_str())).collect::<Vec<_>>(),
        [(shadow.as_str(), Standing::Complete, "p2")]
    );
    discard(&bed.database(), &shadow).await.expect("it can be dropped");
    discard(&bed.database(), &shadow).await.expect("it is gone already");
    assert_eq!(inspect(&bed.database()).await.expect("the database can be read").beside, []);
}

#[tokio::test]
async fn a_damaged_backup_is_refused_before_anything_is_executed() {
    let bed = Bed::new(ORDERS).await;
    bed.capture("p1").await;
    let files: Vec<Path> = bed.store.list(None).map_ok(|meta| meta.location).try_collect().await.expect("the store lists");
    assert_eq!(files.len(), 4, "schema, two tables, manifest: {files:?}");
    let shadow = bed.beside("shadow");
    for file in files {
        let content = bed.store.get(&file).await.expect("it is there").bytes().await.expect("it can be read").to_vec();
        let middle = content.len() / 2;
        let mut flipped = content.clone();
        flipped[middle] ^= 1;
        let cut = content[..content.len() - 1].to_vec();
        for damaged in [flipped, cut] {
            bed.store.put(&file, PutPayload::from(damaged)).await.expect("the store takes it");
            let result = load(&bed.database(), &bed.store, &Path::from("p1"), &shadow).await;
            assert!(matches!(&result, Err(Error::Corrupt { .. })), "{file}: {result:?}");
        }
        bed.store.delete(&file).await.expect("it can be deleted");
        let result = load(&bed.database(), &bed.store, &Path::from("p1"), &shadow).await;
        assert!(matches!(&result, Err(Error::Corrupt { .. } | Error::NoBackup { .. })), "{file}: {result:?}");
        bed.store.put(&file, PutPayload::from(content)).await.expect("the store takes it");
    }
    let mut root = bed.root().await;
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{shadow}'")).await, "0");
    load(&bed.database(), &bed.store, &Path::from("p1"), &shadow).await.expect("the mended backup loads");
}

#[tokio::test]
async fn checksums_see_what_counts_cannot() {
    let bed = Bed::new(
        "CREATE TABLE a (x VARCHAR(20), y VARCHAR(20), n INT); INSERT INTO a VALUES ('a', '#b', 1), ('a', '#b', 1), ('c', 'd', 2); \
         CREATE TABLE order_free LIKE a; INSERT INTO order_free VALUES ('c', 'd', 2), ('a', '#b', 1), ('a', '#b', 1); \
         CREATE TABLE divider LIKE a; INSERT INTO divider VALUES ('a#', 'b', 1), ('a#', 'b', 1), ('c', 'd', 2); \
         CREATE TABLE duplicates LIKE a; INSERT INTO duplicates VALUES ('c', 'd', 2), ('a', '#b', 1), ('c', 'd', 2); \
         CREATE TABLE swapped LIKE a; INSERT INTO swapped VALUES ('c', '#b', 1), ('a', '#b', 1), ('a', 'd', 2); \
         CREATE TABLE nulls LIKE a; INSERT INTO nulls VALUES ('a', '#b', 1), ('a', '#b', 1), ('c', 'd', NULL); \
         CREATE TABLE letter LIKE a; INSERT INTO letter VALUES ('A', '#b', 1), ('a', '#b', 1), ('c', 'd', 2); \
         CREATE TABLE long_rows (b LONGBLOB, c LONGBLOB); INSERT INTO long_rows VALUES (REPEAT('x', 16000000), 'y'); \
         CREATE TABLE long_other LIKE long_rows; INSERT INTO long_other VALUES (CONCAT(REPEAT('x', 15999999), 'z'), 'y'); \
         CREATE TABLE f1 (f FLOAT); INSERT INTO f1 VALUES (16777216); CREATE TABLE f2 (f FLOAT); INSERT INTO f2 VALUES (16777218)",
    )
    .await;
    let sum = async |table: &str| checksum(&bed.database(), &bed.name, table).await.expect("the table can be summed");
    let expected = sum("a").await;
    assert_eq!(sum("order_free").await, expected);
    for table in ["divider", "duplicates", "swapped", "nulls", "letter"] {
        let found = sum(table).await;
        assert_eq!(found.rows, expected.rows, "{table}");
        assert_ne!(found, expected, "{table}");
    }
    assert_ne!(sum("long_rows").await, sum("long_other").await);
    assert_ne!(sum("f1").await, sum("f2").await);
    assert!(matches!(checksum(&bed.database(), &bed.name, "none").await, Err(Error::Schema { .. })));
}

#[tokio::test]
async fn a_shadow_that_is_not_the_backup_is_refused() {
    let bed = Bed::new("CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(10)); INSERT INTO a VALUES (1, 'x'), (2, 'y')").await;
    let manifest = bed.capture("p1").await;
    // A row changed, with every digest made to fit: only the database's own sum can tell.
    let table = Path::from(format!("p1/{}", manifest.tables[0].chunks[0].file.name));
    let packed = bed.store.get(&table).await.expect("it is there").bytes().await.expect("it can be read");
    let text = String::from_utf8(zstd::decode_all(&packed[..]).expect("it can be unpacked")).expect("it is text");
    assert!(text.contains("(1,'x'),(2,'y')"), "{text}");
    let forged = zstd::encode_all(text.replace("'y'", "'z'").as_bytes(), 1).expect("it can be packed");
    let sha256 = {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(&forged))
    };
    bed.store.put(&table, PutPayload::from(forged)).await.expect("the store takes it");
    let path = Path::from("p1/manifest.json");
    let content = bed.store.get(&path).await.expect("it is there").bytes().await.expect("it can be read");
    let text = String::from_utf8(content.to_vec()).expect("it is text").replace(&manifest.tables[0].chunks[0].file.sha256, &sha256);
    bed.store.put(&path, PutPayload::from(text.clone())).await.expect("the store takes it");
    let refused = read_manifest(&bed.store, &Path::from("p1")).await;
    let Err(Error::Corrupt { reason, .. }) = refused else { panic!("{refused:?}") };
    let digest = reason.split(' ').nth(3).expect("the reason names the digest").trim_end_matches(',').to_owned();
    bed.store.put(&path, PutPayload::from(text.replace(&manifest.head.digest, &digest))).await.expect("the store takes it");

    let result = load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await;
    assert!(matches!(&result, Err(Error::Mismatch { table, .. }) if table == "a"), "{result:?}");
    let beside = inspect(&bed.database()).await.expect("the database can be read").beside;
    assert_eq!(beside[0].state, Standing::Loading);
}

#[tokio::test]
async fn only_schemas_of_its_own_are_dropped() {
    let bed = Bed::new("CREATE TABLE a (id INT PRIMARY KEY)").await;
    bed.capture("p1").await;
    let mut root = bed.root().await;
    let foreign = bed.beside("foreign");
    run(&mut root, &format!("CREATE DATABASE `{foreign}`; CREATE TABLE `{foreign}`.precious (id INT)")).await;
    for schema in [bed.name.as_str(), foreign.as_str(), "mysql"] {
        let result = load(&bed.database(), &bed.store, &Path::from("p1"), schema).await;
        assert!(matches!(&result, Err(Error::Schema { .. })), "{schema}: {result:?}");
        let result = discard(&bed.database(), schema).await;
        assert!(matches!(&result, Err(Error::Schema { .. })), "{schema}: {result:?}");
    }
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM `{foreign}`.precious")).await, "0");
}

#[tokio::test]
async fn a_table_that_changes_during_the_backup_fails_it() {
    let bed = Bed::new("CREATE TABLE a (id INT PRIMARY KEY); CREATE TABLE b (id INT PRIMARY KEY); INSERT INTO b VALUES (1)").await;
    let mut root = bed.root().await;
    // The backup has its snapshot and waits for the first table while the second one is altered.
    run(&mut root, "LOCK TABLES a WRITE, b WRITE").await;
    let database = bed.database();
    let (store, prefix, point) = (bed.store.clone(), Path::from("p1"), what("p1"));
    let backup = tokio::spawn(async move { capture(&database, &store, &prefix, &point).await });
    let mut other = bed.root().await;
    until(
        &mut other,
        &format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = '{}' AND INFO LIKE 'SELECT 1 FROM `a`%'", bed.name),
        "1",
    )
    .await;
    run(&mut root, "ALTER TABLE b ADD COLUMN v INT; UNLOCK TABLES").await;
    let result = backup.await.expect("the task ran");
    assert!(matches!(&result, Err(Error::Moved { what }) if what == "table b"), "{result:?}");
    assert_eq!(read_manifest(&bed.store, &Path::from("p1")).await.expect("the store answers"), None);
    assert_eq!(bed.capture("p1").await.tables.len(), 2);
}

#[tokio::test]
async fn what_a_backup_cannot_carry_is_refused_by_name() {
    let bed = Bed::new(
        "CREATE TABLE t (id INT PRIMARY KEY); CREATE TABLE m (id INT) ENGINE=MyISAM; CREATE TABLE h (id INT) WITH SYSTEM VERSIONING ENGINE=Aria; \
         CREATE TABLE d (x VARCHAR(9) DEFAULT '🎉', e ENUM('🎉'))",
    )
    .await;
    let mut root = bed.root().await;
    let other = bed.beside("other");
    run(
        &mut root,
        &format!(
            "CREATE DATABASE `{other}`; CREATE TABLE `{other}`.c (id INT, CONSTRAINT far FOREIGN KEY (id) REFERENCES `{}`.t (id))",
            bed.name
        ),
    )
    .await;
    let inventory = inspect(&bed.database()).await.expect("the database can be read");
    let found: Vec<(Kind, &str)> = inventory.unsupported.iter().map(|object| (object.kind, object.name.as_str())).collect();
    let far = format!("far from {other}.c to {}.t", bed.name);
    let expected = [
        (Kind::ForeignEngine, "h"),
        (Kind::ForeignEngine, "m"),
        (Kind::ForeignKeyAcrossSchemas, far.as_str()),
        (Kind::ColumnDefinition, "d.e (enum('?'))"),
        (Kind::ColumnDefinition, "d.x (varchar(9))"),
    ];
    assert_eq!(found, expected);
    let result = capture(&bed.database(), &bed.store, &Path::from("p1"), &what("p1")).await;
    let Err(error) = result else { panic!("{result:?}") };
    assert_eq!((error.label(), error.class()), ("unsupported_objects", Class::Permanent));
    assert!(error.to_string().contains("table of another engine than InnoDB m"), "{error}");
}

#[tokio::test]
async fn one_database_has_one_writer() {
    let bed = Bed::new(ORDERS).await;
    let mut root = bed.root().await;
    assert_eq!(ask(&mut root, &format!("SELECT GET_LOCK('backout:{}', 0)", bed.name)).await, "1");
    let result = capture(&bed.database(), &bed.store, &Path::from("p1"), &what("p1")).await;
    let Err(error) = result else { panic!("{result:?}") };
    assert_eq!((error.label(), error.class()), ("busy", Class::Transient));
    assert!(try_run(&mut root, "DO RELEASE_ALL_LOCKS()").await.is_ok());
    bed.capture("p1").await;
}

#[tokio::test]
async fn a_backup_can_be_restored_by_hand() {
    let bed = Bed::new("CREATE TABLE parent (id INT PRIMARY KEY); CREATE TABLE a_child (id INT PRIMARY KEY, p INT, v LONGTEXT, FOREIGN KEY (p) REFERENCES parent (id)); \
        INSERT INTO parent VALUES (1); INSERT INTO a_child VALUES (0, 1, 'ü\\0\\n;'), (1, 1, REPEAT('long', 200000))").await;
    let manifest = bed.capture("p1").await;
    let script = bed.text(&manifest).await;
    let hand = bed.beside("hand");
    let mut root = bed.root().await;
    run(&mut root, &format!("CREATE DATABASE `{hand}`; USE `{hand}`")).await;
    run(&mut root, &script).await;
    for table in &manifest.tables {
        assert_eq!(checksum(&bed.database(), &hand, &table.name).await.expect("the table can be summed"), table.sum());
    }
}

#[tokio::test]
async fn a_load_that_yields_is_the_same_load() {
    let bed = Bed::new(ORDERS).await;
    bed.capture("p1").await;
    let (database, shadow) = (bed.database().with_connections(1).yielding(), bed.beside("shadow"));
    let mut root = bed.root().await;
    let pulse = |what: &str| format!("SELECT {what} FROM `{shadow}`.`_backout_notes` WHERE name = 'pulse'");
    let (store, prefix) = (bed.store.clone(), Path::from("p1"));
    let loading = tokio::spawn({
        let shadow = shadow.clone();
        async move { load(&database, &store, &prefix, &shadow).await }
    });
    until(
        &mut root,
        &format!("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{shadow}' AND TABLE_NAME = '_backout_notes'"),
        "1",
    )
    .await;
    until(&mut root, &pulse("COALESCE(MAX(content), 0) > 9"), "1").await;
    loading.await.expect("the task ran").expect("the backup loads");
    assert_eq!(ask(&mut root, &pulse("COUNT(*)")).await, "0", "nothing is left of it");
    swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
}

#[tokio::test]
async fn a_rehearsal_takes_the_whole_time_and_leaves_nothing() {
    let bed = Bed::new(ORDERS).await;
    bed.capture("p1").await;
    let (database, prefix, scratch) = (bed.database(), Path::from("p1"), bed.beside("scratch"));
    // Left by one that was killed: it is not taken for what is to be measured.
    load(&database, &bed.store, &prefix, &scratch).await.expect("the backup loads");
    let mut root = bed.root().await;
    run(&mut root, &format!("CREATE TABLE `{scratch}`.witness (id INT)")).await;
    let questions = ["SELECT COUNT(*) AS n FROM orders", "SELECT COUNT(*) FROM nothing", "DELETE FROM orders"].map(str::to_owned);
    run(&mut root, "DELETE FROM orders LIMIT 1990").await;
    let rehearsal = rehearse(&database, &bed.store, &prefix, &scratch, &questions).await.expect("it can be restored");
    assert_eq!((rehearsal.tables, rehearsal.rows), (2, 2000));
    let answers: Vec<_> = rehearsal.answers.iter().map(|(_, answer)| answer.as_ref().map(|rows| json!(rows))).collect();
    let [Ok(counted), Err(missing), Err(writes)] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(*counted, json!([{"n": 2000}]), "of the copy, not of the live table");
    assert!(missing.contains("nothing") && writes.contains("it must be a SELECT"), "{missing}, {writes}");
    assert_eq!(inspect(&database).await.expect("the database can be read").beside, []);

    // What a cut-over replaced is nobody's scratch schema.
    load(&database, &bed.store, &prefix, &bed.beside("shadow")).await.expect("the backup loads");
    swap(&database, &bed.swap("p1")).await.expect("it swaps");
    let refused = rehearse(&database, &bed.store, &prefix, &bed.beside("aside"), &[]).await;
    assert!(matches!(&refused, Err(Error::Schema { .. })), "{refused:?}");
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM `{}`.orders", bed.beside("aside"))).await, "10");
}
