//! What is backed up: the runbook's table with its five indexes, and tables with every kind of value that tools have been seen to change.

use super::{say, server::Server};

const TABLES: &str = "
CREATE TABLE binance_liqs (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, symbol VARCHAR(255), side VARCHAR(255), order_type VARCHAR(255),
  time_in_force VARCHAR(255), original_quantity DECIMAL(30,8), price DECIMAL(30,8), average_price DECIMAL(30,8), order_status VARCHAR(255),
  order_last_filled_quantity DECIMAL(30,8), order_filled_accumulated_quantity DECIMAL(30,8), usd_size DECIMAL(30,8), order_trade_time BIGINT,
  KEY idx_symbol_order_trade_time (symbol, order_trade_time), KEY idx_order_trade_time (order_trade_time), KEY idx_side_time (side, order_trade_time),
  KEY idx_symbol_side (symbol, side), KEY idx_symbol_time_usd (symbol, order_trade_time, usd_size));
CREATE TABLE accounts (id INT PRIMARY KEY, name VARCHAR(100), note TEXT);
CREATE TABLE orders (id INT PRIMARY KEY, account INT NOT NULL, total DECIMAL(12,2), at DATETIME(3), net DECIMAL(12,2) AS (total * 0.81) STORED,
  tax DECIMAL(12,2) AS (total * 0.19) VIRTUAL, FOREIGN KEY (account) REFERENCES accounts (id));
CREATE TABLE order_items (id INT PRIMARY KEY, order_id INT NOT NULL, attributes JSON, raw BLOB, f FLOAT, d DOUBLE, bits BIT(10),
  size ENUM('klein','groß','ü'), flags SET('a','b','c'), y YEAR, t TIME(6), FOREIGN KEY (order_id) REFERENCES orders (id));
CREATE TABLE audit_log (who VARCHAR(50), what VARCHAR(200), at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6))";

const VARIED: &str = "
INSERT INTO accounts SELECT seq, IF(seq % 7, CONCAT('Kunde 🎉 ', seq), NULL), IF(seq % 3, '', REPEAT('漢字', seq % 20)) FROM seq_1_to_20000;
INSERT INTO orders (id, account, total, at) SELECT seq, 1 + seq % 20000, seq / 7, '2024-01-01' + INTERVAL seq SECOND FROM seq_1_to_100000;
INSERT INTO order_items SELECT seq, 1 + seq % 100000, CONCAT('{\"n\": ', seq, ', \"t\": \"\\\\u00fc\"}'), CONCAT('a\\0b\\n\\\\c\\t\\'\"', seq), seq / 7.3, SQRT(seq),
  seq % 1024, 1 + seq % 3, seq % 8, 1970 + seq % 100, SEC_TO_TIME(seq % 80000 + 0.000001 * seq) FROM seq_1_to_199999;
INSERT INTO audit_log (who, what) SELECT CONCAT('user', seq % 9), REPEAT('x', seq % 200) FROM seq_1_to_5000";

/// A schema `shop` with `rows` rows in its large table.
pub async fn fill(server: &Server, rows: u64) {
    say(&format!("{rows} rows are made"));
    server.run(&format!("RESET MASTER; DROP DATABASE IF EXISTS shop; CREATE DATABASE shop; USE shop; {TABLES}; {VARIED}")).await;
    // Unlike each other and in no order of their indexes, as trades are; in transactions of a bearable size.
    let portion = 250_000;
    for first in (1..=rows).step_by(portion) {
        let last = rows.min(first + portion as u64 - 1);
        server
            .run(&format!(
                "USE shop; INSERT INTO binance_liqs SELECT seq, ELT(1 + CRC32(seq) % 40, {symbols}), IF(CRC32(seq + 1) % 2, 'BUY', 'SELL'), 'LIMIT', 'IOC', \
                 CRC32(seq) / 7919, CRC32(seq + 2) / 104729, CRC32(seq + 3) / 104729, 'FILLED', CRC32(seq) / 7919, CRC32(seq) / 7919, CRC32(seq + 4) / 1299709, \
                 1700000000000 + seq * 37 + CRC32(seq) % 1000000 FROM seq_{first}_to_{last}",
                symbols = (0..40).map(|n| format!("'SYM{n}USDT'")).collect::<Vec<_>>().join(",")
            ))
            .await;
    }
    server.run("USE shop; ANALYZE TABLE binance_liqs, accounts, orders, order_items, audit_log").await;
}

/// Forty rows of 16 MB, half of them text.
pub async fn fill_long(server: &Server) {
    say("long rows are made");
    server
        .run("DROP DATABASE IF EXISTS shop; CREATE DATABASE shop; CREATE TABLE shop.big (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT)")
        .await;
    for id in 0..40 {
        let column = if id % 2 == 0 { "b" } else { "t" };
        server.run(&format!("INSERT INTO shop.big (id, {column}) VALUES ({id}, REPEAT(MD5({id}), 500000))")).await;
    }
}

/// How many rows of all tables differ in any column between `shop` and another schema. Of the large table only the first `rows` count: what
/// the benchmark's own clients have inserted since the backup can't be in it.
pub async fn differences(server: &Server, other: &str, rows: u64) -> u64 {
    let mut wrong = 0;
    for (table, last) in [("binance_liqs", rows), ("accounts", u64::MAX), ("orders", u64::MAX), ("order_items", u64::MAX)] {
        let columns = server
            .ask(&format!(
                "SELECT GROUP_CONCAT(CONCAT('l.`', COLUMN_NAME, '` <=> r.`', COLUMN_NAME, '`') SEPARATOR ' AND ') FROM information_schema.COLUMNS \
                 WHERE TABLE_SCHEMA = 'shop' AND TABLE_NAME = '{table}'"
            ))
            .await;
        let sql = format!(
            "SELECT COUNT(*) FROM shop.{table} l LEFT JOIN {other}.{table} r ON r.id = l.id WHERE l.id <= {last} AND NOT ({columns})"
        );
        wrong += server.ask(&sql).await.parse::<u64>().expect("it is a number");
    }
    wrong
}
