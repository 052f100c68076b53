//! Migrations on a copy of the data: what they would do is found out, and nothing live changes.

use std::time::Duration;

use backout::mysql::{Database, Migration, Owner, Script, Trial, Tried, inspect, take_ownership, try_migrations};
use object_store::path::Path;

use super::{Bed, ask, owner};

const TABLES: &str = "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT NOT NULL, w VARCHAR(9) NOT NULL DEFAULT 'w'); \
    INSERT INTO t (v) SELECT seq % 999 FROM seq_1_to_1000";

fn script(version: u64, up: &str, down: Option<&str>) -> Script {
    let migration = Migration { version, name: format!("m{version}"), sql: up.to_owned(), checksum: format!("sum of {version}") };
    Script { migration, down: down.map(str::to_owned) }
}

/// Tries them on what is live now, and looks whether that has changed.
async fn tried(bed: &Bed, scripts: &[Script], within: Duration) -> Trial {
    tried_in(bed, &bed.database(), scripts, within).await
}

async fn tried_in(bed: &Bed, database: &Database, scripts: &[Script], within: Duration) -> Trial {
    let before = facts(bed).await;
    bed.capture("p1").await;
    let tried = Tried { scripts, release: 3, owner: &owner(), within };
    let trial = try_migrations(database, &bed.store, &Path::from("p1"), &bed.beside("trial"), &tried).await.expect("it can be tried");
    assert_eq!(facts(bed).await, before, "nothing live has changed");
    let left = format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '{}\\_backout\\_%'", bed.name);
    assert_eq!(ask(&mut bed.root().await, &left).await, "0", "the copy is gone");
    trial
}

async fn facts(bed: &Bed) -> (String, usize) {
    let sum = "SELECT CONCAT_WS(' ', COUNT(*), SUM(id), SUM(v), GROUP_CONCAT(DISTINCT w), (SELECT COUNT(*) FROM information_schema.COLUMNS \
        WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE '\\_backout%')) FROM t";
    (ask(&mut bed.root().await, sum).await, inspect(&bed.database()).await.expect("the database can be read").migrations.len())
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn migrations_that_lead_there_and_back_pass_with_their_times() {
    let bed = Bed::new(TABLES).await;
    let scripts = [
        // With a table that no backup could carry: the copy goes all the same.
        script(1, "DELETE FROM t WHERE v = 1; CREATE TABLE log (id INT) ENGINE=Aria", None),
        script(
            2,
            "ALTER TABLE t ADD UNIQUE KEY once (id, v), ADD x INT AFTER id; UPDATE t SET x = v",
            Some("ALTER TABLE t DROP KEY once, DROP x"),
        ),
        script(3, "CREATE TABLE u (t INT, FOREIGN KEY (t) REFERENCES t (id)); INSERT INTO u SELECT id FROM t", Some("DROP TABLE u")),
    ];
    let Trial::Passed { times, taken_back } = tried(&bed, &scripts, LONG).await else { panic!("they pass") };
    assert_eq!(times.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["0001_m1", "0002_m2", "0003_m3"]);
    assert!(times.iter().all(|(_, took)| !took.is_zero()), "{times:?}");
    assert_eq!(taken_back, 2, "the first has no down script");
}

#[tokio::test]
async fn what_fails_on_the_copy_or_does_not_lead_back_is_named() {
    let bed = Bed::new(TABLES).await;
    for (scripts, parts) in [
        (
            vec![script(1, "ALTER TABLE t ADD x INT; ALTER TABLE t ADD UNIQUE KEY (v)", None)],
            &["m1", "statement 2 of 2", "Duplicate entry"][..],
        ),
        (
            vec![script(1, "ALTER TABLE t ADD x INT", Some("ALTER TABLE t DROP y"))],
            &["the down script of 0001_m1 fails", "statement 1 of 1", "y"],
        ),
        (
            vec![
                script(1, "ALTER TABLE t DROP v", Some("ALTER TABLE t ADD v INT NOT NULL")),
                script(2, "ALTER TABLE t ADD x INT", Some("ALTER TABLE t DROP x")),
            ],
            &["the down script of 0001_m1 does not lead back", "table t", "`v` int(11) NOT NULL"],
        ),
        (vec![script(1, "CREATE TABLE u (id INT)", Some("DELETE FROM u"))], &["does not lead back", "table u is left"]),
    ] {
        let Trial::Failed { reason } = tried(&bed, &scripts, LONG).await else { panic!("{scripts:?} fails") };
        assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
    }
}

#[tokio::test]
async fn what_would_leave_the_copy_is_not_run_there() {
    let bed = Bed::new(TABLES).await;
    let live = format!("UPDATE {}.t SET v = 0", bed.name);
    for (scripts, part) in [
        (vec![script(1, &live, None)], format!("0001_m1: statement 1 names schema {}", bed.name)),
        (vec![script(1, "ALTER TABLE t ADD x INT", Some(&live))], "the down script of 0001_m1: statement 1 names".to_owned()),
    ] {
        let Trial::Untold { reason } = tried(&bed, &scripts, LONG).await else { panic!("{scripts:?} is not run") };
        assert!(reason.contains(&part), "{reason}");
    }
    let Trial::Untold { reason } = tried(&bed, &[script(1, "ALTER TABLE t ADD x INT", None)], Duration::ZERO).await else {
        panic!("no copy is made in no time")
    };
    assert!(reason.contains("takes longer"), "{reason}");
}

#[tokio::test]
async fn a_statement_that_outlasts_what_it_may_take_fails_and_is_not_tried_for_ever() {
    let bed = Bed::new(TABLES).await;
    let database = bed.database().with_statement_timeout(Duration::from_secs(3));
    let Trial::Failed { reason } = tried_in(&bed, &database, &[script(1, "DO SLEEP(5)", None)], LONG).await else { panic!("it fails") };
    assert!(reason.contains("migration 1 m1, statement 1"), "{reason}");
}

#[tokio::test]
async fn a_release_made_again_under_its_name_tries_on_a_copy_of_what_the_former_one_left() {
    let bed = Bed::new(TABLES).await;
    let former = Owner { uid: "former".to_owned(), ..owner() };
    take_ownership(&bed.database(), &former).await.expect("the schema can be given an owner");
    let Trial::Passed { .. } = tried(&bed, &[script(1, "ALTER TABLE t ADD x INT", None)], LONG).await else { panic!("it passes") };
}
