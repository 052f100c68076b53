//! Carrying rows forward that were inserted since the backup point.

use backout::mysql::{Carried, Error, carry_forward, load, swap};
use object_store::path::Path;

use super::{Bed, ask, run};

const SHOP: &str = "CREATE TABLE people (id INT PRIMARY KEY AUTO_INCREMENT, mail VARCHAR(20) UNIQUE, name VARCHAR(5), boss INT, \
      CONSTRAINT under FOREIGN KEY (boss) REFERENCES people (id), CONSTRAINT named CHECK (name <> 'no')); \
    CREATE TABLE a_orders (id BIGINT PRIMARY KEY AUTO_INCREMENT, who INT, total INT, twice INT AS (total * 2) STORED, price FLOAT, \
      CONSTRAINT by_person FOREIGN KEY (who) REFERENCES people (id)); \
    CREATE TABLE keyed (code VARCHAR(9) COLLATE utf8mb4_bin, part DATE, PRIMARY KEY (code, part)); \
    CREATE TABLE listed (e ENUM('a','b','c') PRIMARY KEY); \
    CREATE TABLE keyless (v INT); CREATE TABLE noted (id INT PRIMARY KEY); CREATE TABLE quiet (id INT PRIMARY KEY); \
    CREATE TRIGGER notes BEFORE INSERT ON noted FOR EACH ROW SET @noted = NEW.id; \
    INSERT INTO people VALUES (1, 'a@x', 'Ann', NULL), (2, 'b@x', 'Bob', 1), (3, 'c@x', 'Cid', 1); INSERT INTO a_orders (id, who, total) VALUES (1, 1, 10), (2, 2, 20); \
    INSERT INTO keyed VALUES ('old', '2024-01-01'); INSERT INTO listed VALUES ('a'); INSERT INTO keyless VALUES (1); INSERT INTO noted VALUES (1); INSERT INTO quiet VALUES (1)";

/// Restored to the point of [`SHOP`] after `since` had happened.
async fn restored(since: &str) -> Bed {
    let bed = Bed::new(SHOP).await;
    bed.capture("p1").await;
    run(&mut bed.root().await, since).await;
    load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    swap(&bed.database(), &bed.swap("p1")).await.expect("the cut-over succeeds");
    bed
}

fn row(table: &str, carried: u64, kept: u64, why: &[&str]) -> Carried {
    Carried { table: table.into(), carried, kept, why: why.iter().map(|text| (*text).to_owned()).collect() }
}

#[tokio::test]
async fn rows_that_were_inserted_since_come_along_and_what_does_not_fit_is_kept_and_counted() {
    let bed = restored(
        "ALTER TABLE people MODIFY name VARCHAR(20), ADD note VARCHAR(9), DROP CONSTRAINT named; ALTER TABLE a_orders ADD CONSTRAINT plus CHECK (total > 0); \
         INSERT INTO people (id, mail, name, boss, note) VALUES (12, 'j@x', 'Jo', NULL, 'lost'), (13, 'k@x', 'Kim', NULL, NULL), (14, 'l@x', 'too long', 1, NULL), (15, 'm@x', 'no', NULL, NULL); UPDATE people SET boss = 13 WHERE id = 12; \
         UPDATE people SET mail = 'was-c@x' WHERE id = 3; INSERT INTO people (id, mail, name) VALUES (16, 'c@x', 'Eve'); \
         UPDATE people SET name = 'Changed' WHERE id = 1; DELETE FROM a_orders WHERE id = 2; \
         INSERT INTO a_orders (id, who, total, price) VALUES (100, 12, 7, 0.1), (101, 14, 8, NULL), (102, NULL, 9, 3.4028234663852886e38); \
         INSERT INTO keyed VALUES ('Old', '2024-01-01'), ('old', '2024-01-02'); INSERT INTO listed VALUES ('c'); INSERT INTO keyless VALUES (2), (3); INSERT INTO noted VALUES (5); \
         CREATE TABLE younger (id INT PRIMARY KEY); INSERT INTO younger VALUES (1)",
    )
    .await;
    let mut root = bed.root().await;
    run(&mut root, "INSERT INTO keyed VALUES ('new', '2024-01-01')").await;
    let expected = [
        row("keyed", 2, 0, &[]),
        row("keyless", 0, 2, &["it has no primary key, or another one than before: rows can't be told from each other"]),
        row("listed", 1, 0, &[]),
        row("noted", 0, 1, &["its triggers would do once more what they did"]),
        row(
            "people",
            2,
            3,
            &[
                "a CHECK does not hold",
                "a value does not fit its column",
                "another row has the value of a unique key",
                "without what the restored table has no column for: note",
            ],
        ),
        row("a_orders", 2, 1, &["what a foreign key refers to is not there"]),
    ];
    let aside = bed.beside("aside");
    assert_eq!(carry_forward(&bed.database(), &aside).await.expect("it is done"), expected);
    assert_eq!(
        ask(&mut root, "SELECT GROUP_CONCAT(id, name, COALESCE(boss, '-') ORDER BY id) FROM people").await,
        "1Ann-,2Bob1,3Cid1,12Jo13,13Kim-"
    );
    assert_eq!(
        ask(&mut root, "SELECT GROUP_CONCAT(id, ' ', twice ORDER BY id) FROM a_orders").await,
        "1 20,2 40,100 14,102 18",
        "what was deleted is back"
    );
    assert_eq!(
        ask(&mut root, &format!("SELECT COUNT(*) FROM a_orders l JOIN `{aside}`.a_orders a USING (id) WHERE l.price <=> a.price")).await,
        "3"
    );
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM `{aside}`.people")).await, "8", "nothing is taken from what stands aside");
    // The counter was raised by the cut-over, so that no id is given out twice.
    run(&mut root, "INSERT INTO people (name) VALUES ('next')").await;
    assert_eq!(ask(&mut root, "SELECT MAX(id) > 16 FROM people").await, "1");

    let again = carry_forward(&bed.database(), &aside).await.expect("it is done");
    assert_eq!(again.iter().map(|table| table.carried).sum::<u64>(), 0);
    assert_eq!(again.iter().map(|table| table.kept).sum::<u64>(), 7);
}

#[tokio::test]
async fn many_rows_are_carried_portion_by_portion_and_only_the_misfit_is_kept() {
    let bed = restored("INSERT INTO a_orders (id, who, total) SELECT seq, 1, seq FROM seq_1000_to_60999; UPDATE a_orders SET total = NULL, who = 3 WHERE id = 30000; ANALYZE TABLE a_orders").await;
    let mut root = bed.root().await;
    run(&mut root, "DELETE FROM people WHERE id = 3").await;
    let carried = carry_forward(&bed.database(), &bed.beside("aside")).await.expect("it is done");
    // The person who is not there any more is one that was inserted, as far as can be told.
    let expected = [row("people", 1, 0, &[]), row("a_orders", 60_000, 0, &[])];
    assert_eq!(carried, expected);
}

#[tokio::test]
async fn only_what_a_cut_over_replaced_is_carried() {
    let bed = Bed::new(SHOP).await;
    bed.capture("p1").await;
    load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    for schema in ["shadow", "none"] {
        let refused = carry_forward(&bed.database(), &bed.beside(schema)).await;
        assert!(matches!(&refused, Err(Error::Schema { .. })), "{refused:?}");
    }
}
