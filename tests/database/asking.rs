//! A check's own query: it reads, it ends, and its answer does not fill the memory.

use std::time::Instant;

use backout::mysql::query;

use super::{Bed, PATIENCE, ask, query as look, until};

/// Sessions of the engine in the schema.
fn sessions(bed: &Bed) -> String {
    format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = '{}' AND ID <> CONNECTION_ID()", bed.name)
}

async fn refused(bed: &Bed, select: &str) -> String {
    match query(&bed.database(), select).await {
        Err(error) => error.to_string(),
        Ok(rows) => panic!("{select} was answered: {rows:?}"),
    }
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_ended_by_the_server() {
    let bed = Bed::new("").await;
    let mut root = bed.root().await;
    let begun = Instant::now();
    let error = refused(&bed, "SELECT COUNT(*) FROM seq_1_to_1000000 a, seq_1_to_1000000 b").await;
    assert!(error.contains("1969"), "{error}");
    assert!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
    until(&mut root, &sessions(&bed), "0").await;
}

#[tokio::test]
async fn a_query_whose_caller_has_gone_does_not_stay_on_the_server() {
    let bed = Bed::new("").await;
    let mut root = bed.root().await;
    let database = bed.database();
    let caller = tokio::spawn(async move { query(&database, "SELECT SLEEP(3600)").await });
    until(&mut root, &format!("{} AND INFO LIKE 'SELECT SLEEP%'", sessions(&bed)), "1").await;
    caller.abort();
    until(&mut root, &sessions(&bed), "0").await;
}

#[tokio::test]
async fn a_query_that_would_write_is_refused() {
    let bed = Bed::new(
        "CREATE TABLE t (id INT); INSERT INTO t VALUES (1); CREATE SEQUENCE s; \
         CREATE FUNCTION writes() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO t VALUES (2); RETURN 1; END",
    )
    .await;
    let file = format!("/tmp/{}", bed.name);
    for (select, part) in [
        ("SELECT writes() AS n".to_owned(), "1792"),
        ("SELECT NEXTVAL(s) AS n".to_owned(), "1792"),
        ("SELECT SETVAL(s, 100) AS n".to_owned(), "1792"),
        (format!("SELECT 1 INTO OUTFILE '{file}'"), "INTO"),
        ("DELETE FROM t".to_owned(), "SELECT"),
        ("COMMIT; DELETE FROM t".to_owned(), "one statement"),
    ] {
        let error = refused(&bed, &select).await;
        assert!(error.contains(part), "{select}: {error}");
    }
    let mut root = bed.root().await;
    assert_eq!(ask(&mut root, "SELECT GROUP_CONCAT(id) FROM t").await, "1");
    assert_eq!(look(&mut root, "SELECT next_not_cached_value FROM s").await[0]["next_not_cached_value"].as_deref(), Some("1"));
}

#[tokio::test]
async fn a_large_answer_is_cut_or_refused() {
    let bed = Bed::new("").await;
    for select in ["SELECT seq FROM seq_1_to_1000000", "SELECT seq FROM seq_1_to_1000000 LIMIT 900000"] {
        let rows = query(&bed.database(), select).await.expect("it is answered");
        assert_eq!((rows.len(), &rows[999]["seq"]), (1_000, &serde_json::json!(1_000)), "{select}");
    }
    let error = refused(&bed, "SELECT REPEAT('x', 10000) AS x FROM seq_1_to_1000").await;
    assert!(error.contains("larger than 1048576 bytes"), "{error}");
    until(&mut bed.root().await, &sessions(&bed), "0").await;
}
