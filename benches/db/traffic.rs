//! Two writers and two readers, as an application has them, and what they meet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Executor as _, mysql::MySqlConnection};
use tokio::task::JoinHandle;

use super::server::Server;

/// So that there is something to compare with before and after.
pub const WARM: Duration = Duration::from_secs(1);
const WRITER_PAUSE: Duration = Duration::from_millis(1);

pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Report>>,
}

#[derive(Default)]
pub struct Report {
    pub longest_write: Duration,
    longest_read: Duration,
    pub errors: usize,
    acknowledged: Vec<u64>,
    writes: Vec<Duration>,
}

impl Traffic {
    pub async fn start(server: &Server) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for number in 0..4 {
            let (connection, stop) = (server.connect("shop").await, Arc::clone(&stop));
            clients.push(if number < 2 { tokio::spawn(write(connection, stop)) } else { tokio::spawn(read(connection, stop)) });
        }
        Self { stop, clients }
    }

    pub async fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for client in self.clients {
            let one = client.await.expect("it ran to its end");
            all.longest_write = all.longest_write.max(one.longest_write);
            all.longest_read = all.longest_read.max(one.longest_read);
            all.errors += one.errors;
            all.acknowledged.extend(one.acknowledged);
            all.writes.extend(one.writes);
        }
        all
    }
}

impl Report {
    pub fn longest(&self) -> Duration {
        self.longest_write.max(self.longest_read)
    }

    /// 99 of 100 writes took no longer.
    pub fn usual_write(&mut self) -> Duration {
        self.writes.sort_unstable();
        self.writes.get(self.writes.len() * 99 / 100).copied().unwrap_or_default()
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Acknowledged rows that none of the schemas has.
    pub async fn lost(&self, server: &Server, schemas: &[&str]) -> usize {
        let (Some(first), Some(last)) = (self.acknowledged.iter().min(), self.acknowledged.iter().max()) else { return 0 };
        let mut found = std::collections::BTreeSet::new();
        for schema in schemas {
            // One text, so that it comes as one row.
            server.run("SET GLOBAL group_concat_max_len = 1000000000").await;
            let sql = format!(
                "SELECT COALESCE(GROUP_CONCAT(order_trade_time), '') FROM `{schema}`.binance_liqs WHERE order_trade_time BETWEEN {first} AND {last}"
            );
            found.extend(server.ask(&sql).await.split(',').filter_map(|mark| mark.parse::<u64>().ok()));
        }
        self.acknowledged.iter().filter(|mark| !found.contains(mark)).count()
    }
}

/// Rows one by one, each with a mark of its own that no other row has.
async fn write(mut connection: MySqlConnection, stop: Arc<AtomicBool>) -> Report {
    let mut report = Report::default();
    while !stop.load(Ordering::Relaxed) {
        let mark = mark();
        let begun = Instant::now();
        let sql = format!(
            "INSERT INTO binance_liqs (symbol, side, order_type, time_in_force, original_quantity, price, average_price, order_status, \
             order_last_filled_quantity, order_filled_accumulated_quantity, usd_size, order_trade_time) \
             VALUES ('SYM1USDT', 'BUY', 'LIMIT', 'IOC', 1, 2, 3, 'FILLED', 4, 5, 6, {mark})"
        );
        match connection.execute(AssertSqlSafe(sql)).await {
            Ok(_) => report.acknowledged.push(mark),
            Err(_) => report.errors += 1,
        }
        report.longest_write = report.longest_write.max(begun.elapsed());
        report.writes.push(begun.elapsed());
        tokio::time::sleep(WRITER_PAUSE).await;
    }
    report
}

async fn read(mut connection: MySqlConnection, stop: Arc<AtomicBool>) -> Report {
    let mut report = Report::default();
    let sql = "SELECT symbol, SUM(usd_size) FROM binance_liqs WHERE symbol = 'SYM1USDT' AND order_trade_time BETWEEN 1700000000000 AND 1700000100000 GROUP BY symbol";
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        report.errors += usize::from(connection.execute(sql).await.is_err());
        report.longest_read = report.longest_read.max(begun.elapsed());
        tokio::time::sleep(WRITER_PAUSE).await;
    }
    report
}

/// Above every time in the data, and given once.
fn mark() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(9_000_000_000_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
