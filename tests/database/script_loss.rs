//! What down scripts take away, counted in the database.

use backout::mysql::{Error, ScriptLoss, script_loss};

use super::{Bed, ask, run};

const SHOP: &str = "CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, who VARCHAR(20), note VARCHAR(50), price DECIMAL(30,8), twice INT AS (id * 2)); \
    CREATE TABLE items (id INT PRIMARY KEY, order_id INT, FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE); \
    CREATE TABLE parts (id INT PRIMARY KEY, item_id INT, FOREIGN KEY (item_id) REFERENCES items (id) ON DELETE SET NULL); \
    CREATE TABLE empty_one (id INT); CREATE TABLE `odd ``name` (`a b` INT); \
    INSERT INTO orders (who, note, price) VALUES ('a', 'n', 1), ('a', NULL, 2), ('b', 'it''s', NULL); \
    INSERT INTO items VALUES (1, 1), (2, 1), (3, 3); INSERT INTO parts VALUES (1, 1); INSERT INTO `odd ``name` VALUES (1), (2)";

async fn losses(bed: &Bed, scripts: &[&str]) -> Vec<(String, String, Option<u64>)> {
    let scripts: Vec<(String, String)> = scripts.iter().enumerate().map(|(index, sql)| (format!("m{index}"), (*sql).to_owned())).collect();
    let found = script_loss(&bed.database(), &scripts).await.expect("it can be measured");
    found.into_iter().map(|ScriptLoss { migration, what, rows }| (migration, what, rows)).collect()
}

#[tokio::test]
async fn what_a_script_takes_is_counted() {
    let bed = Bed::new(SHOP).await;
    for (script, expected) in [
        ("DROP TABLE items", &[("table items: 3 rows", Some(3))][..]),
        ("DROP TABLE IF EXISTS empty_one, none, `odd ``name`", &[("table odd `name: 2 rows", Some(2))]),
        ("TRUNCATE parts", &[("table parts: 1 rows deleted", Some(1))]),
        ("ALTER TABLE orders DROP COLUMN note", &[("column orders.note: 2 values", Some(2))]),
        ("ALTER TABLE orders DROP NOTE, DROP twice, DROP COLUMN IF EXISTS none", &[("column orders.note: 2 values", Some(2))]),
        (
            "ALTER TABLE orders MODIFY price DECIMAL(30,2)",
            &[("column orders.price: 2 values, changed from decimal(30,8) to DECIMAL ( 30 , 2 )", Some(2))],
        ),
        ("ALTER TABLE orders MODIFY price DECIMAL(40,8) NOT NULL DEFAULT 0, CHANGE note remark VARCHAR(60)", &[]),
        (
            "ALTER TABLE orders MODIFY note VARCHAR(60) CHARACTER SET latin1",
            &[("column orders.note: 2 values, changed from varchar(50) to VARCHAR ( 60 ) CHARACTER SET latin1", Some(2))],
        ),
        ("UPDATE orders SET who = 'z' WHERE who = 'a'", &[("table orders: 2 rows changed", Some(2))]),
        ("UPDATE orders SET who = 'z' WHERE who = 'nobody'", &[]),
        ("UPDATE orders SET who = 'z' WHERE later = 1", &[("table orders: up to 3 rows changed", Some(3))]),
        ("UPDATE orders SET who = 'z' WHERE id IN (SELECT order_id FROM items)", &[("table orders: up to 3 rows changed", Some(3))]),
        ("REPLACE INTO parts VALUES (1, 1)", &[("table parts: up to 1 rows replaced", Some(1))]),
        ("DELETE FROM `odd ``name` AS o WHERE o.`a b` > 1", &[("table odd `name: 1 rows deleted", Some(1))]),
        (
            "DELETE FROM orders WHERE id = 1",
            &[
                ("table orders: 1 rows deleted", Some(1)),
                ("table items: up to 3 rows that follow those of orders", Some(3)),
                ("table parts: up to 1 rows that follow those of orders", Some(1)),
            ],
        ),
        ("DELETE FROM orders WHERE id = 99", &[]),
        ("INSERT INTO items VALUES (9, 1); CREATE TABLE n (id INT); ALTER TABLE n ADD x INT; DROP TABLE n", &[]),
        ("RENAME TABLE items TO old; DROP TABLE old", &[("table items: 3 rows", Some(3))]),
        (
            "DROP TABLE mysql.user",
            &[("mysql.user is no InnoDB table of this schema, so what DROP TABLE mysql.user takes is not counted", None)],
        ),
    ] {
        let expected: Vec<(String, String, Option<u64>)> =
            expected.iter().map(|(what, rows)| ("m0".to_owned(), (*what).to_owned(), *rows)).collect();
        let found = losses(&bed, &[script]).await;
        assert_eq!(found, expected, "{script}");
    }
    let qualified = format!("DROP TABLE `{}`.items", bed.name);
    assert_eq!(losses(&bed, &[&qualified]).await, [("m0".to_owned(), "table items: 3 rows".to_owned(), Some(3))]);
    assert_eq!(ask(&mut bed.root().await, "SELECT COUNT(*) FROM orders").await, "3", "nothing was touched");
}

#[tokio::test]
async fn scripts_are_measured_one_after_another() {
    let bed = Bed::new(SHOP).await;
    let found =
        losses(&bed, &["ALTER TABLE orders RENAME COLUMN note TO remark", "CREATE TABLE x (id INT)", "ALTER TABLE orders DROP remark"])
            .await;
    assert_eq!(found, [("m2".to_owned(), "column orders.note: 2 values".to_owned(), Some(2))]);
}

#[tokio::test]
async fn what_cannot_be_told_has_no_number() {
    let bed = Bed::new(&format!("{SHOP}; CREATE TABLE m (id INT) ENGINE=MyISAM")).await;
    for script in ["CALL p()", "DROP TABLE m", "DROP DATABASE x", "SELECT 'never closed"] {
        let found = losses(&bed, &[script]).await;
        assert!(matches!(found.as_slice(), [(_, _, None)]), "{script}: {found:?}");
    }
    assert_eq!(losses(&bed, &["INSERT INTO m VALUES (1)"]).await, []);
    run(&mut bed.root().await, "CREATE TRIGGER tr AFTER INSERT ON m FOR EACH ROW DELETE FROM parts").await;
    let found = losses(&bed, &["INSERT INTO m VALUES (1)"]).await;
    assert!(matches!(found.as_slice(), [(_, what, None)] if what.starts_with("trigger tr on m may run")), "{found:?}");
}

#[tokio::test]
async fn harmless_scripts_need_no_database() {
    let bed = Bed::new("").await;
    let nowhere = bed.database_as("nobody", "wrong");
    let script = |sql: &str| vec![("m".to_owned(), sql.to_owned())];
    assert_eq!(script_loss(&nowhere, &script("CREATE TABLE x (id INT)")).await.expect("nobody is asked"), []);
    let result = script_loss(&nowhere, &script("DROP TABLE x")).await;
    assert!(matches!(&result, Err(Error::AccessDenied { .. })), "{result:?}");
}
