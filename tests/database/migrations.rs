//! Migrations: forwards, back, refused, failed clean, failed half-way, killed.

use backout::error::Class;
use backout::mysql::{Applied, Error, Migration, Outcome, SchemaState, State, apply, inspect, revert};
use sha2::{Digest, Sha256};

use super::{Bed, ask, owner, run, until};

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT); INSERT INTO t (v) SELECT seq FROM seq_1_to_1000";

fn migration(version: u64, sql: &str) -> Migration {
    Migration { version, name: format!("m{version}"), sql: sql.to_owned(), checksum: format!("sum of {sql}").chars().take(60).collect() }
}

async fn recorded(bed: &Bed) -> Vec<Applied> {
    inspect(&bed.database()).await.expect("the database can be read").migrations
}

async fn expect_failure(bed: &Bed, migration: &Migration) -> (usize, usize, SchemaState, Class) {
    let result = apply(&bed.database(), migration, 3, &owner()).await;
    let Err(error) = result else { panic!("{result:?}") };
    let Error::Migration { statement, of, state, class, .. } = error else { panic!("{error}") };
    (statement, of, state, class)
}

#[tokio::test]
async fn a_migration_is_applied_once_and_taken_back_once() {
    let bed = Bed::new(TABLE).await;
    let up = migration(
        1,
        "SET @twice = 2;\nALTER TABLE t ADD COLUMN w INT; -- one; two\nUPDATE t SET w = v * @twice;\nCREATE TABLE u (id INT PRIMARY KEY);\nINSERT INTO u VALUES (1), (2);",
    );
    assert_eq!(apply(&bed.database(), &up, 3, &owner()).await.expect("it applies"), Outcome::Done);
    assert_eq!(apply(&bed.database(), &up, 3, &owner()).await.expect("it is applied"), Outcome::AlreadyDone);
    let mut root = bed.root().await;
    assert_eq!(ask(&mut root, "SELECT SUM(w) = 2 * SUM(v) FROM t").await, "1");
    let rows = recorded(&bed).await;
    assert_eq!(
        rows.iter().map(|row| (row.version, row.name.as_str(), row.state, row.release)).collect::<Vec<_>>(),
        [(1, "m1", State::Applied, 3)]
    );
    assert_eq!(bed.capture("p1").await.head.schema_version, Some(1));

    let down = "DROP TABLE u; ALTER TABLE t DROP COLUMN w";
    assert_eq!(revert(&bed.database(), 1, down, &owner()).await.expect("it is taken back"), Outcome::Done);
    assert_eq!(revert(&bed.database(), 1, down, &owner()).await.expect("it is gone"), Outcome::AlreadyDone);
    assert_eq!(recorded(&bed).await, []);
    assert_eq!(
        ask(&mut root, "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 't'").await,
        "2"
    );
}

#[tokio::test]
async fn an_applied_migration_must_not_change() {
    let bed = Bed::new(TABLE).await;
    apply(&bed.database(), &migration(1, "ALTER TABLE t ADD w INT"), 3, &owner()).await.expect("it applies");
    let result = apply(&bed.database(), &migration(1, "ALTER TABLE t ADD x INT"), 4, &owner()).await;
    let Err(error) = result else { panic!("{result:?}") };
    assert_eq!((error.label(), error.class()), ("migration_changed", Class::Permanent));
    assert!(error.to_string().starts_with("migration 1 m1 is recorded with another content"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_exact_is_refused_before_anything_runs() {
    let bed = Bed::new(TABLE).await;
    let result = apply(&bed.database(), &migration(1, "ALTER TABLE t ADD w INT;\nDELIMITER //\nCREATE TRIGGER x//"), 3, &owner()).await;
    let Err(error) = result else { panic!("{result:?}") };
    assert_eq!(error.label(), "migration_refused");
    assert!(error.to_string().contains("line 2: DELIMITER"), "{error}");
    assert_eq!(recorded(&bed).await, []);
}

#[tokio::test]
async fn a_failure_of_the_first_statement_leaves_nothing_behind() {
    let bed = Bed::new(TABLE).await;
    for sql in [
        "SET @a = 1; ALTER TABLE none ADD w INT; DROP TABLE t",
        "INSERT INTO t (id) VALUES (5000), (1); DROP TABLE t",
        "SELEC",
        "INSERT INTO t (v) VALUES ('not a number')",
    ] {
        let broken = migration(1, sql);
        let result = apply(&bed.database(), &broken, 3, &owner()).await;
        match result {
            Err(Error::Migration { state, class, .. }) => assert_eq!((state, class), (SchemaState::Untouched, Class::Permanent), "{sql}"),
            Err(Error::MigrationRefused { .. }) => assert_eq!(sql, "SELEC"),
            other => panic!("{sql}: {other:?}"),
        }
        assert_eq!(recorded(&bed).await, [], "{sql}");
        assert_eq!(ask(&mut bed.root().await, "SELECT COUNT(*) FROM t").await, "1000", "{sql}");
    }
    apply(&bed.database(), &migration(1, "ALTER TABLE t ADD w INT"), 3, &owner()).await.expect("the corrected file applies");
}

#[tokio::test]
async fn a_failure_half_way_says_so_and_stays_said() {
    let bed = Bed::new(TABLE).await;
    let broken = migration(1, "ALTER TABLE t ADD w INT; UPDATE t SET w = 1; ALTER TABLE none ADD x INT; DROP TABLE t");
    let expected = (3, 4, SchemaState::HalfMigrated, Class::Permanent);
    assert_eq!(expect_failure(&bed, &broken).await, expected);
    assert_eq!(expect_failure(&bed, &broken).await, expected, "calling again does not go on");
    let rows = recorded(&bed).await;
    assert_eq!((rows[0].state, rows[0].statements_done), (State::Failed, 2));
    assert!(rows[0].message.as_deref().is_some_and(|message| message.contains("none")), "{rows:?}");
    assert_eq!(expect_revert(&bed, "SELECT 1").await, SchemaState::HalfMigrated);
}

#[tokio::test]
async fn a_drop_of_several_tables_that_did_half_is_half_migrated() {
    let bed = Bed::new(TABLE).await;
    assert_eq!(expect_failure(&bed, &migration(1, "DROP TABLE t, none")).await, (1, 1, SchemaState::HalfMigrated, Class::Permanent));
}

async fn expect_revert(bed: &Bed, sql: &str) -> SchemaState {
    let result = revert(&bed.database(), 1, sql, &owner()).await;
    match result {
        Err(Error::Migration { state, .. }) => state,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_revert_that_fails_at_once_leaves_the_migration_applied() {
    let bed = Bed::new(TABLE).await;
    apply(&bed.database(), &migration(1, "ALTER TABLE t ADD w INT"), 3, &owner()).await.expect("it applies");
    assert_eq!(expect_revert(&bed, "ALTER TABLE t DROP COLUMN none; DROP TABLE t").await, SchemaState::Untouched);
    assert_eq!(recorded(&bed).await[0].state, State::Applied);
    revert(&bed.database(), 1, "ALTER TABLE t DROP COLUMN w", &owner()).await.expect("the corrected script takes it back");
}

#[tokio::test]
async fn a_lock_that_is_held_is_waited_for_by_calling_again() {
    let bed = Bed::new(TABLE).await;
    let mut holder = bed.root().await;
    run(&mut holder, "START TRANSACTION; SELECT * FROM t LIMIT 1").await;
    let up = migration(1, "UPDATE t SET v = v + 1; ALTER TABLE t ADD w INT");
    assert_eq!(expect_failure(&bed, &up).await, (2, 2, SchemaState::Resumable, Class::Transient));
    run(&mut holder, "COMMIT").await;
    assert_eq!(apply(&bed.database(), &up, 3, &owner()).await.expect("it goes on"), Outcome::Done);
    assert_eq!(ask(&mut holder, "SELECT SUM(v) FROM t").await, "501500", "the update ran once");
}

/// Kills the connection, or only drops the caller, while statement `running` runs; then calls again and compares.
async fn killed_in(sql: &str, running: &str, how: Killed) {
    let bed = Bed::new(TABLE).await;
    let mut root = bed.root().await;
    let up = migration(1, sql);
    let (database, first) = (bed.database(), up.clone());
    let call = tokio::spawn(async move { apply(&database, &first, 3, &owner()).await });
    let found = format!("FROM information_schema.PROCESSLIST WHERE DB = '{}' AND INFO LIKE '{running}%'", bed.name);
    until(&mut root, &format!("SELECT COUNT(*) {found}"), "1").await;
    match how {
        Killed::Connection => {
            let process = ask(&mut root, &format!("SELECT ID {found}")).await;
            run(&mut root, &format!("KILL {process}")).await;
            let result = call.await.expect("the task ran");
            assert!(matches!(&result, Err(error) if error.class() == Class::Transient), "{result:?}");
        }
        Killed::Caller => call.abort(),
    }
    // The lock of the killed one's statement may still be held: busy is an answer, not a failure.
    let outcome = loop {
        match apply(&bed.database(), &up, 3, &owner()).await {
            Ok(outcome) => break outcome,
            Err(error) => assert_eq!(error.class(), Class::Transient, "{error}"),
        }
    };
    assert_eq!(outcome, Outcome::Done, "{sql}");
    assert_eq!(ask(&mut root, "SELECT SUM(v) FROM t").await, "501500", "each row was raised once: {sql}");
    assert_eq!(ask(&mut root, "SELECT COUNT(w) FROM t").await, "1000", "{sql}");
    assert_eq!(recorded(&bed).await[0].state, State::Applied);
}

#[derive(Clone, Copy)]
enum Killed {
    Connection,
    Caller,
}

const SLOW_DATA: &str = "ALTER TABLE t ADD w INT; SET @one = 1; UPDATE t SET v = v + @one, w = SLEEP(0.001); ALTER TABLE t ADD x INT";
const SLOW_DDL: &str =
    "UPDATE t SET v = v + 1; ALTER TABLE t ADD w INT AS (LENGTH(MD5(REPEAT(v, 100000)))) STORED; ALTER TABLE t ADD x INT";

#[tokio::test]
async fn killed_in_a_data_statement_it_goes_on() {
    killed_in(SLOW_DATA, "UPDATE t SET v", Killed::Connection).await;
    killed_in(SLOW_DATA, "UPDATE t SET v", Killed::Caller).await;
}

#[tokio::test]
async fn killed_in_a_ddl_statement_it_goes_on() {
    killed_in(SLOW_DDL, "ALTER TABLE t ADD w", Killed::Connection).await;
    killed_in(SLOW_DDL, "ALTER TABLE t ADD w", Killed::Caller).await;
}

#[tokio::test]
async fn ddl_found_in_flight_is_decided_by_the_schema() {
    // As a crash leaves it: the first statement recorded in flight, done or not.
    for (done, sql) in [(true, "ALTER TABLE t ADD w INT"), (false, "")] {
        let bed = Bed::new(TABLE).await;
        let up = migration(1, "ALTER TABLE t ADD w INT; UPDATE t SET w = 1");
        let mut root = bed.root().await;
        // A migration that fails transiently leaves its record; the fingerprint is put back by hand below.
        run(&mut root, "START TRANSACTION; SELECT * FROM t LIMIT 1").await;
        assert_eq!(expect_failure(&bed, &up).await.2, SchemaState::Resumable);
        run(&mut root, "COMMIT").await;
        let fingerprint = fingerprint(&mut root).await;
        run(&mut root, &format!("UPDATE _backout_migrations SET fingerprint = '{fingerprint}'")).await;
        run(&mut root, sql).await;
        assert_eq!(apply(&bed.database(), &up, 3, &owner()).await.expect("it goes on"), Outcome::Done, "done before: {done}");
        assert_eq!(ask(&mut root, "SELECT SUM(w) FROM t").await, "1000");
    }
}

/// Of a schema that holds table t alone.
async fn fingerprint(root: &mut sqlx::MySqlConnection) -> String {
    let row = super::query(root, "SHOW CREATE TABLE t").await;
    let definition = row[0]["Create Table"].clone().expect("a table has a definition");
    let definition = definition.replace(" AUTO_INCREMENT=1024", "").replace(" AUTO_INCREMENT=1001", "");
    let mut hash = Sha256::new();
    hash.update((definition.len() as u64).to_be_bytes());
    hash.update(&definition);
    hex::encode(hash.finalize())
}

async fn state(bed: &Bed) -> State {
    recorded(bed).await[0].state
}

/// A bed in which a migration is recorded, and its first statement did not get the table's lock.
async fn only_recorded(sql: &str) -> Bed {
    let bed = Bed::new(TABLE).await;
    let mut root = bed.root().await;
    run(&mut root, "START TRANSACTION; SELECT * FROM t LIMIT 1").await;
    assert_eq!(expect_failure(&bed, &migration(1, sql)).await.2, SchemaState::Resumable);
    run(&mut root, "COMMIT").await;
    bed
}

#[tokio::test]
async fn a_record_of_which_nothing_took_effect_is_told_from_a_migration_that_stands_half_way() {
    let bed = only_recorded("SET @a = 1; ALTER TABLE t ADD w INT; UPDATE t SET w = 1").await;
    let mut root = bed.root().await;
    assert_eq!(state(&bed).await, State::Intended, "no statement was under way");
    assert_eq!(bed.capture("p1").await.head.schema_version, None);
    let fingerprint = fingerprint(&mut root).await;
    run(&mut root, &format!("UPDATE _backout_migrations SET fingerprint = '{fingerprint}'")).await;
    assert_eq!(state(&bed).await, State::Intended, "the one that was left no trace");
    run(&mut root, &format!("DO GET_LOCK('backout:{}', 0)", bed.name)).await;
    assert_eq!(state(&bed).await, State::Applying, "somebody is at work");
    run(&mut root, "DO RELEASE_ALL_LOCKS()").await;
    run(&mut root, "ALTER TABLE t ADD w INT").await;
    assert_eq!(state(&bed).await, State::Applying, "the schema has changed");
    run(&mut root, "ALTER TABLE t DROP w; UPDATE _backout_migrations SET statements_done = 2").await;
    assert_eq!(state(&bed).await, State::Applying, "a statement is done");
}

#[tokio::test]
async fn a_record_of_which_nothing_took_effect_does_not_bind_the_next_release() {
    let bed = only_recorded("ALTER TABLE t ADD w INT").await;
    assert_eq!(apply(&bed.database(), &migration(1, "ALTER TABLE t ADD x INT"), 4, &owner()).await.expect("it applies"), Outcome::Done);
    let rows = recorded(&bed).await;
    assert_eq!((rows.len(), rows[0].state, rows[0].release), (1, State::Applied, 4));
    assert_eq!(ask(&mut bed.root().await, "SELECT COUNT(*) - COUNT(x) FROM t").await, "1000");
}

#[tokio::test]
async fn what_empties_a_table_without_a_trace_in_the_schema_is_not_taken_for_nothing() {
    let bed = Bed::new(TABLE).await;
    let (mut root, mut holder) = (bed.root().await, bed.root().await);
    run(&mut holder, "START TRANSACTION; SELECT * FROM t LIMIT 1").await;
    let (database, up) = (bed.database(), migration(1, "TRUNCATE TABLE t; ALTER TABLE t ADD w INT"));
    let first = up.clone();
    let call = tokio::spawn(async move { apply(&database, &first, 3, &owner()).await });
    let sessions = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = '{}' AND INFO LIKE 'TRUNCATE%'", bed.name);
    until(&mut root, &sessions, "1").await;
    call.abort();
    // The server has the statement and goes on with it.
    run(&mut holder, "COMMIT").await;
    until(&mut root, &format!("SELECT IS_FREE_LOCK('backout:{}')", bed.name), "1").await;
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM t").await, "0");
    let rows = recorded(&bed).await;
    assert_eq!(rows[0].state, State::Applying);
    assert!(rows[0].message.as_deref().is_some_and(|message| message.contains("statement 1 is under way")), "{rows:?}");
    assert_eq!(apply(&bed.database(), &up, 3, &owner()).await.expect("it goes on"), Outcome::Done);
    let rows = recorded(&bed).await;
    assert_eq!((rows[0].state, rows[0].message.as_deref()), (State::Applied, None));
}
