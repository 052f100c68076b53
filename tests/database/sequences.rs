//! Sequences: in a backup, in its shadow, and across a cut-over and back, with no value given out twice.

use backout::mysql::{Error, Marker, Swap, capture, load, swap};
use object_store::path::Path;
use sqlx::MySqlConnection;

use super::{Bed, ask, owner, run, what};

const NUMBERED: &str = "CREATE SEQUENCE numbers START WITH 100 INCREMENT BY 5 NOCACHE; \
    CREATE SEQUENCE down START WITH -1 INCREMENT BY -1 MINVALUE -1000000 MAXVALUE -1 CACHE 10; \
    CREATE SEQUENCE used_up START WITH 1 MINVALUE 1 MAXVALUE 2 NOCACHE NOCYCLE; \
    CREATE TABLE invoices (id BIGINT PRIMARY KEY DEFAULT NEXT VALUE FOR numbers, who VARCHAR(9)); \
    INSERT INTO invoices (who) VALUES ('a'), ('b'); \
    DO NEXT VALUE FOR down; DO NEXT VALUE FOR used_up; DO NEXT VALUE FOR used_up";

async fn next(root: &mut MySqlConnection, sequence: &str) -> i64 {
    ask(root, &format!("SELECT NEXT VALUE FOR {sequence}")).await.parse().expect("a sequence gives numbers")
}

#[tokio::test]
async fn a_sequence_goes_back_with_its_tables_and_gives_nothing_out_twice() {
    let bed = Bed::new(NUMBERED).await;
    let mut root = bed.root().await;
    let manifest = bed.capture("p1").await;
    let names: Vec<&str> = manifest.sequences.iter().map(|sequence| sequence.name.as_str()).collect();
    assert_eq!(names, ["down", "numbers", "used_up"]);
    load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");

    // Since the backup: more values, and a sequence that came with a migration.
    run(&mut root, "INSERT INTO invoices (who) VALUES ('c'); CREATE SEQUENCE newer").await;
    let (last, last_down) =
        (ask(&mut root, "SELECT MAX(id) FROM invoices").await.parse::<i64>().expect("a number"), next(&mut root, "down").await);
    swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM invoices").await, "2");
    let sequences = format!(
        "SELECT GROUP_CONCAT(TABLE_NAME ORDER BY TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_TYPE = 'SEQUENCE' AND TABLE_SCHEMA = '{}'",
        bed.name
    );
    assert_eq!(ask(&mut root, &sequences).await, "down,numbers,used_up");
    run(&mut root, "INSERT INTO invoices (who) VALUES ('d')").await;
    let restored = ask(&mut root, "SELECT MAX(id) FROM invoices").await.parse::<i64>().expect("a number");
    assert!(restored > last && restored % 5 == 0, "{restored} after {last}");
    assert!(next(&mut root, "down").await < last_down);
    assert!(sqlx::raw_sql("SELECT NEXT VALUE FOR used_up").execute(&mut root).await.is_err(), "none is left of it");

    // And back: what was live before is live again, and goes on behind both.
    let back = Swap {
        shadow: bed.beside("aside"),
        aside: bed.beside("undone"),
        marker: Marker { point: bed.beside("aside"), operation: "undo".to_owned(), release: 8 },
        owner: Some(owner()),
        ..bed.swap("p1")
    };
    swap(&bed.database(), &back).await.expect("the way back succeeds");
    assert_eq!(ask(&mut root, &sequences).await, "down,newer,numbers,used_up");
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM invoices").await, "3");
    assert!(next(&mut root, "numbers").await > restored);
    assert!(sqlx::raw_sql("SELECT NEXT VALUE FOR used_up").execute(&mut root).await.is_err(), "none is left of it");
}

#[tokio::test]
async fn a_sequence_that_is_altered_in_between_fails_the_load_only_where_it_is_not_the_backups() {
    let bed = Bed::new("CREATE SEQUENCE s; CREATE TABLE t (id BIGINT PRIMARY KEY)").await;
    capture(&bed.database(), &bed.store, &Path::from("p1"), &what("p1")).await.expect("the backup succeeds");
    let mut root = bed.root().await;
    // A shadow that somebody meddled with while it was loaded: its sign says that it is not complete.
    let shadow = bed.beside("shadow");
    load(&bed.database(), &bed.store, &Path::from("p1"), &shadow).await.expect("the backup loads");
    run(&mut root, &format!("UPDATE `{shadow}`._backout_beside SET state = 'loading'; CREATE SEQUENCE `{shadow}`.stranger")).await;
    let again = load(&bed.database(), &bed.store, &Path::from("p1"), &shadow).await;
    assert!(matches!(&again, Err(Error::Mismatch { table, .. }) if table == "sequence stranger"), "{again:?}");
    load(&bed.database(), &bed.store, &Path::from("p1"), &shadow).await.expect("the next one begins anew");
}
