//! Expressions that mean harm, judged as the operator has them judged: by the real program.

use std::time::{Duration, Instant};

use backout::expression::Evaluator;
use serde_json::{Value, json};

/// Longer than the program's own deadline, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Over a list of a thousand it takes years.
const ENDLESS: &str = "body.all(a, body.all(b, body.all(c, body.all(d, a + b + c + d > 0))))";

fn evaluator() -> Evaluator {
    Evaluator::new(env!("CARGO_BIN_EXE_backout").into())
}

/// The largest answers that a check takes: 1 MiB each.
fn largest() -> Vec<(&'static str, Value)> {
    vec![
        ("one number in half a million places", Value::Array(vec![json!(1); 500_000])),
        ("one long text", json!("x".repeat(1_000_000))),
        ("many objects", Value::Array((0..20_000).map(|id| json!({"id": id, "name": "a name of some length", "up": true})).collect())),
    ]
}

#[tokio::test]
async fn an_expression_is_judged() {
    let evaluator = evaluator();
    let body = json!({"status": "ok", "rows": [1, 2, 3]});
    for (expression, expected) in [
        ("body.status == 'ok' && status == 200", Ok(())),
        ("body.rows.all(row, row > 0)", Ok(())),
        ("body.status == 'down'", Err("body.status == 'down' is false")),
        ("body.rows", Err("body.rows is neither true nor false")),
    ] {
        let verdict = evaluator.holds(expression, [("body", body.clone()), ("status", json!(200))]).await;
        assert_eq!(verdict, expected.map_err(str::to_owned), "{expression}");
    }
}

#[tokio::test]
async fn the_largest_answer_fits() {
    let evaluator = evaluator();
    for (what, body) in largest() {
        let verdict = evaluator.holds("size(body) > 0", [("body", body)]).await;
        assert_eq!(verdict, Ok(()), "{what}");
    }
}

#[tokio::test]
async fn an_expression_that_takes_too_much_fails_alone() {
    let evaluator = evaluator();
    let thousand = Value::Array(vec![json!(1); 1_000]);
    for (what, expression, parts) in [
        // On a machine that is busy with other things the deadline comes before the second of the processor is used up.
        ("loops in loops", format!("{ENDLESS} || true"), ["1 s of the processor", "was not told within"]),
        ("lists in lists", format!("{}1{} == [2]", "body.map(x, ".repeat(5), ")".repeat(5)), ["takes more than", "was not told within"]),
        ("thousands of terms", format!("{}1 > 0", "1 + ".repeat(50_000)), ["takes more than", "was not told within"]),
        ("a list that doubles", format!("[body]{}.size() > 0", ".map(x, x + x)".repeat(40)), ["MiB of memory", "was not told within"]),
        ("thousands of brackets", format!("{}1{} > 0", "(".repeat(50_000), ")".repeat(50_000)), ["nests too deep"; 2]),
    ] {
        let begun = Instant::now();
        let verdict = evaluator.holds(&expression, [("body", thousand.clone())]).await;
        assert!(begun.elapsed() < PATIENCE, "{what}: {verdict:?}");
        let said = |error: &String| parts.iter().any(|part| error.contains(part)) && error.len() < 1_000;
        assert!(verdict.as_ref().is_err_and(said), "{what}: {verdict:?}");
    }
    assert_eq!(evaluator.holds("body.size() == 1000", [("body", thousand)]).await, Ok(()), "the next one is judged");
}

#[tokio::test]
async fn expressions_that_never_end_delay_another_by_a_moment() {
    let evaluator = evaluator();
    let body = Value::Array(vec![json!(1); 1_000]);
    let begun = Instant::now();
    let (verdict, ..) = tokio::join!(
        async {
            // Only once the others have begun.
            tokio::task::yield_now().await;
            let verdict = evaluator.holds("1 + 1 == 2", []).await;
            (verdict, begun.elapsed())
        },
        evaluator.holds(ENDLESS, [("body", body.clone())]),
        evaluator.holds(ENDLESS, [("body", body.clone())]),
        evaluator.holds(ENDLESS, [("body", body.clone())]),
    );
    assert_eq!(verdict.0, Ok(()));
    assert!(verdict.1 < PATIENCE, "{:?}", verdict.1);
}
