//! Where the faults are played: one Release with an operator of its own, clients at work, and three things that can be asked
//! of it. Each begins and ends at rest, so that one scene serves many faults.

use std::time::{Duration, Instant};

use backout::api::{
    Release, names,
    operation::{Kind, Operation, OperationState, StepName, StepState},
    status::ReleaseStatus,
};
use serde_json::{Value, json};

use super::whole::Account;
use crate::support::{
    bed::{column, eventually, execute, variable},
    clients::Clients,
    place::{NAME, Place, condition, not_ready, ready},
    process::{ALONE, Process},
    trap::{Held, Sprung, Then, Trap, When, Write},
};

/// No fault takes longer to be survived, and no operator longer to come to a trap.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// Rows before the first client comes.
const ROWS: u32 = 3_000;
/// Rows that make a dump and a load last longer than the test may take to look.
const BULK: u32 = 60_000;

/// What the source asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Release 1: version 1.0.0 with its first tables.
    Base,
    /// Version 1.1.0 with an index and a data migration, both with down scripts.
    Next,
    /// Version 1.2.0, which ruins data without a way back and fails its health check. Each number is another release.
    Ruin(u32),
}

/// What an operator is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// [`Content::Next`] is pushed onto [`Content::Base`].
    Deploy,
    /// That commit is reverted.
    Revert,
    /// [`Content::Ruin`] is pushed onto [`Content::Base`], fails, and is answered by a restore.
    Restore,
}

impl Play {
    /// The operation that the faults are played in.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Deploy => Kind::Deploy,
            Self::Revert | Self::Restore => Kind::Rollback,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Revert => "git revert",
            Self::Restore => "restore",
        }
    }

    /// What runs once it has been played.
    const fn leads_to(self) -> Content {
        match self {
            Self::Deploy => Content::Next,
            Self::Revert | Self::Restore => Content::Base,
        }
    }
}

pub struct Scene {
    pub place: Place,
    pub operator: Process,
    pub clients: Clients,
    pub account: Account,
    /// What runs, at rest.
    pub runs: Content,
    ruins: u32,
}

impl Scene {
    /// The first release runs, and clients are at work.
    pub async fn new(name: &str) -> Self {
        let place = Place::alone(name).await;
        let operator = Process::start(&place, &ALONE).await;
        write(&place, Content::Base);
        place.repository.push("liqui 1.0.0");
        place.create(spec(&place, &operator).await).await.expect("the Release is accepted");
        place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
        execute(format!(
            "INSERT INTO {0}.binance_liqs (symbol, side, price, original_quantity, usd_size, order_trade_time) \
             SELECT 'BTCUSDT', 'BUY', seq, seq, seq, seq FROM {0}.seq_1_to_{ROWS}",
            place.database
        ))
        .await;
        let clients = Clients::start(&place.service().await).expect("clients can be made");
        eventually("rows are acknowledged", PATIENCE, async || (clients.acknowledged().len() > 20).then_some(())).await;
        let account = Account::new(&place).await;
        Self { place, operator, clients, account, runs: Content::Base, ruins: 0 }
    }

    pub async fn close(self) {
        self.operator.kill().await;
        self.clients.stop().await;
    }

    /// Brings the Release to where the play can begin, without a fault.
    pub async fn ready_for(&mut self, play: Play) {
        let wanted = match play {
            Play::Deploy | Play::Restore => Content::Base,
            Play::Revert => Content::Next,
        };
        if self.runs != wanted {
            let way = if wanted == Content::Next { Play::Deploy } else { Play::Revert };
            self.ask(way).await;
            self.rest(way).await;
        }
    }

    /// Brings much or little to move, outside of what is acknowledged to clients.
    pub async fn fill(&self, bulky: bool) {
        let database = &self.place.database;
        let mut sql = format!("TRUNCATE TABLE {database}.bulk");
        if bulky {
            sql.push_str(&format!("; INSERT INTO {database}.bulk SELECT seq, REPEAT('x', 200) FROM {database}.seq_1_to_{BULK}"));
        }
        execute(sql).await;
    }

    /// Asks for it, by a push.
    pub async fn ask(&mut self, play: Play) {
        self.account.open(&self.place).await;
        match play {
            Play::Deploy => {
                write(&self.place, Content::Next);
                self.place.repository.push("liqui 1.1.0");
            }
            Play::Revert => drop(self.place.repository.revert()),
            Play::Restore => {
                self.ruins += 1;
                write(&self.place, Content::Ruin(self.ruins));
                self.place.repository.push("liqui 1.2.0");
            }
        }
    }

    /// Waits until the play has come to its end and looks at everything that it must have left, and must not have left.
    /// Returns how many acknowledged rows are lost.
    pub async fn rest(&mut self, play: Play) -> usize {
        let status = match play {
            Play::Deploy => self.place.until("1.1.0 is ready", PATIENCE, ready("1.1.0")).await,
            Play::Revert => self.place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await,
            Play::Restore => self.place.until("1.2.0 is rolled back", PATIENCE, not_ready("RolledBack")).await,
        };
        self.runs = play.leads_to();
        succeeded(&status, play.kind());
        let lost = self.account.close(&self.place, &self.clients, play, &status).await;
        if play == Play::Restore {
            // Git comes round to what runs, so that the next play finds no failed release.
            self.place.repository.revert();
            self.place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
        }
        lost
    }

    /// The steps of the last operation.
    pub async fn steps(&self) -> Vec<StepName> {
        let status = self.status().await;
        status.operation.iter().flat_map(|operation| operation.steps.iter().map(|step| step.name)).collect()
    }

    /// Name of the backup point from before the release that is played.
    pub fn point(&self) -> String {
        names::point(NAME, self.account.releases + 1)
    }

    /// Files of the backup that the running operation takes.
    pub fn dumps(&self) -> Vec<String> {
        let folder = self.operator.backups().join(&self.place.namespace).join(&self.account.uid).join(self.point());
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
    }

    pub async fn status(&self) -> ReleaseStatus {
        let release = self.place.api::<Release>().get(NAME).await.expect("the Release is there");
        release.status.unwrap_or_default()
    }

    /// Sets a trap in the operation that is asked for next, or in the one that runs.
    pub fn trap(&self, play: Play, write: Write, when: When, then: Then) -> Sprung {
        self.operator.trap(self.at(play, write, when), then)
    }

    /// An instant of the operation that is asked for next, or of the one that runs.
    pub fn at(&self, play: Play, write: Write, when: When) -> Trap {
        Trap { after: self.account.operations, kind: play.kind(), write, when }
    }

    /// Plays until the operator has come to a trap at which its request waits.
    pub async fn hold(&mut self, play: Play, write: Write, when: When) -> Held {
        self.ready_for(play).await;
        let trap = self.trap(play, write, when, Then::Hold);
        self.ask(play).await;
        trap.wait(PATIENCE).await
    }

    /// Waits until the step says that it will be tried again, or refuses.
    pub async fn hindered(&self, name: StepName) {
        self.place
            .until(&format!("{} is tried again", name.as_str()), PATIENCE, |status| {
                let step = status.operation.iter().flat_map(|operation| &operation.steps).find(|step| step.name == name);
                step.is_some_and(|step| step.state == StepState::Started && step.retry_at.is_some())
            })
            .await;
    }
}

/// A stretch of time, from the fault to rest.
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn stop(&self, lost: usize) -> Survived {
        Survived { took: self.0.elapsed(), lost }
    }
}

/// How a fault was survived.
pub struct Survived {
    pub took: Duration,
    pub lost: usize,
}

/// The one place where the Release of all faults is described.
async fn spec(place: &Place, operator: &Process) -> Value {
    let mut spec = place.spec();
    // The operator runs on the node, where the cluster's names are not known.
    spec["database"]["mysql"]["host"] = json!(variable("BED_MYSQL_HOST"));
    spec["database"]["backup"] = json!({"store": {"url": operator.store()}});
    spec["cache"]["redis"]["host"] = json!(variable("BED_REDIS_HOST"));
    spec["verify"]["checks"][0]["http"]["url"] = json!(format!("{}/health", place.service().await));
    spec["verify"]["bake"] = json!({"for": "500ms", "every": "250ms", "failureThreshold": 3});
    spec["interval"] = json!("500ms");
    // To go to and fro all the time is what is played here, and no sign of a source that flaps.
    spec["rollback"] = json!({"approval": "Never", "limit": {"count": 20, "within": "1s"}});
    spec
}

/// Writes what the source asks for into the working copy.
fn write(place: &Place, content: Content) {
    let (version, ttl) = match content {
        Content::Base => ("1.0.0", 300),
        Content::Next => ("1.1.0", 600),
        Content::Ruin(number) => ("1.2.0", 1000 + number),
    };
    place.write_manifest(version, ttl);
    place.repository.remove("liqui-api/migrations");
    for migration in migrations(content) {
        let name = format!("liqui-api/migrations/{:04}_{}", migration.version, migration.name);
        place.repository.write(&format!("{name}.up.sql"), &migration.up);
        if let Some(down) = &migration.down {
            place.repository.write(&format!("{name}.down.sql"), down);
        }
    }
}

pub struct Migration {
    pub version: u64,
    name: &'static str,
    pub up: String,
    down: Option<String>,
}

/// The migrations of a release. What counts itself shows when it is run twice.
pub fn migrations(content: Content) -> Vec<Migration> {
    let new = |version, name, up: &str, down: Option<&str>| Migration { version, name, up: up.to_owned(), down: down.map(str::to_owned) };
    let liqui = |file: &str| {
        let path = format!("{}/tests/liqui/migrations/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let mut migrations = vec![
        new(1, "binance_liqs", &liqui("0001_binance_liqs.up.sql"), Some(&liqui("0001_binance_liqs.down.sql"))),
        new(
            2,
            "ledger",
            "CREATE TABLE ledger (id INT NOT NULL PRIMARY KEY, applied INT NOT NULL, reverted INT NOT NULL) ENGINE=InnoDB;\n\
             INSERT INTO ledger VALUES (1, 0, 0);\n\
             CREATE TABLE bulk (id INT NOT NULL PRIMARY KEY, text VARCHAR(255) NOT NULL) ENGINE=InnoDB;\n",
            Some("DROP TABLE bulk;\nDROP TABLE ledger;\n"),
        ),
    ];
    match content {
        Content::Base => {}
        Content::Next => migrations.extend([
            new(
                3,
                "idx_symbol",
                "CREATE INDEX idx_symbol ON binance_liqs (symbol, order_trade_time);\n",
                Some("DROP INDEX idx_symbol ON binance_liqs;\n"),
            ),
            new(4, "count", "UPDATE ledger SET applied = applied + 1;\n", Some("UPDATE ledger SET reverted = reverted + 1;\n")),
        ]),
        Content::Ruin(_) => migrations.extend([
            new(3, "ruin", "UPDATE binance_liqs SET usd_size = NULL, symbol = LOWER(symbol);\n", None),
            new(4, "count", "UPDATE ledger SET applied = applied + 1;\n", None),
        ]),
    }
    migrations
}

fn succeeded(status: &ReleaseStatus, kind: Kind) {
    let operation: &Operation = status.operation.as_ref().expect("an operation ran");
    assert_eq!((operation.kind, operation.state), (kind, OperationState::Succeeded), "{}", operation.cause);
    for step in &operation.steps {
        assert_eq!(step.state, StepState::Done, "{}: {:?}", step.name.as_str(), step.message);
    }
    assert!(condition(status, "Reconciling").is_none() && condition(status, "Stalled").is_none(), "at rest");
}

/// The rows of one column as numbers.
pub async fn numbers(sql: String) -> Vec<u64> {
    column(sql).await.iter().filter_map(|number| number.parse().ok()).collect()
}
