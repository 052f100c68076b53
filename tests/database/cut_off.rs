//! The connection lost or gone silent at every single statement of every call: the error says that it passes, and the same call again
//! ends in the right state.

use std::time::Instant;

use backout::error::Class;
use backout::mysql::{
    Database, Endpoint, Marker, Migration, Result, Standing, Swap, Tls, apply, capture, discard, inspect, load, revert, script_loss, swap,
};
use object_store::path::Path;
use sqlx::MySqlConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::proxy::{FAULTS, Fault, HANGING, Proxy, READING};
use super::{Bed, PATIENCE, ask, owner, run, until, what};

const SHOP: &str = "CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, who VARCHAR(20)); \
    CREATE TABLE items (id INT PRIMARY KEY, order_id INT, FOREIGN KEY (order_id) REFERENCES orders (id)); \
    INSERT INTO orders (who) VALUES ('a'), ('b'); INSERT INTO items VALUES (1, 1), (2, 2)";

/// Runs `call` with each fault at each of its statements, until there is no such statement any more. Every time `begin` makes the state
/// from which it starts, the call is repeated without a fault, and `check` looks at what came of it.
async fn at_every_statement<T: std::fmt::Debug>(
    bed: &Bed,
    faults: &[Fault],
    begin: impl AsyncFn(usize),
    call: impl AsyncFn(Database, usize) -> Result<T>,
    check: impl AsyncFn(usize, String),
) {
    let mut round = 0;
    for &fault in faults {
        let mut at = 1;
        loop {
            round += 1;
            let name = format!("{fault:?} at statement {at}");
            begin(round).await;
            let proxy = Proxy::start(&bed.endpoint(), fault, at).await;
            let first = tokio::time::timeout(PATIENCE, call(proxy.database(bed.endpoint()), round)).await;
            let result = first.unwrap_or_else(|_| panic!("{name}: it never ends"));
            if proxy.struck() {
                let Err(error) = &result else { panic!("{name}: {result:?}") };
                assert_eq!(error.class(), Class::Transient, "{name}: {error}");
            }
            let begun = Instant::now();
            while let Err(error) = call(bed.database(), round).await {
                assert_eq!(error.class(), Class::Transient, "{name}, repeated: {error}");
                assert!(begun.elapsed() < PATIENCE, "{name}, repeated: {error}");
            }
            check(round, name).await;
            if proxy.struck() {
                at += 1;
            } else if at > 5 && (result.is_ok() || fault == Fault::CutBefore || fault == Fault::CutAfter) {
                // Without a fault the call ends well; one that hangs may also have been slow.
                assert!(result.is_ok(), "{fault:?}, past the last statement: {result:?}");
                break;
            }
        }
    }
}

async fn schemas(bed: &Bed) -> Vec<(String, Standing)> {
    let inventory = inspect(&bed.database()).await.expect("the database can be read");
    inventory.beside.into_iter().map(|beside| (beside.schema, beside.state)).collect()
}

#[tokio::test]
async fn a_capture_can_be_cut_off_anywhere() {
    let bed = Bed::new(SHOP).await;
    let expected = bed.capture("p").await;
    at_every_statement(
        &bed,
        READING,
        async |_| {},
        async |database, round| {
            let point = format!("p{round}");
            capture(&database, &bed.store, &Path::from(point.as_str()), &what(&point)).await
        },
        async |round, name| {
            let manifest = bed.capture(&format!("p{round}")).await;
            let sums = |manifest: &backout::mysql::Manifest| manifest.tables.iter().map(|table| table.sum()).collect::<Vec<_>>();
            assert_eq!(sums(&manifest), sums(&expected), "{name}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_load_can_be_cut_off_anywhere() {
    let bed = Bed::new(SHOP).await;
    bed.capture("p1").await;
    let shadow = bed.beside("shadow");
    at_every_statement(
        &bed,
        FAULTS,
        async |_| discard(&bed.database(), &shadow).await.expect("it can be dropped"),
        async |database, _| load(&database, &bed.store, &Path::from("p1"), &shadow).await,
        async |_, name| {
            assert_eq!(schemas(&bed).await, [(shadow.clone(), Standing::Complete)], "{name}");
            let mut root = bed.root().await;
            for (table, rows) in [("orders", "2"), ("items", "2")] {
                assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM `{shadow}`.{table}")).await, rows, "{name}");
            }
        },
    )
    .await;
}

/// Each round takes the round before it back, so that cut-overs and undos are cut off alike.
#[tokio::test]
async fn a_cut_over_and_its_undo_can_be_cut_off_anywhere() {
    let stored =
        "CREATE TRIGGER noted AFTER INSERT ON orders FOR EACH ROW SET @noted = NEW.id; CREATE VIEW newest AS SELECT MAX(id) FROM orders";
    let bed = Bed::new(&format!("{SHOP}; {stored}")).await;
    let root = tokio::sync::Mutex::new(bed.root().await);
    bed.capture("p1").await;
    load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("a0")).await.expect("the backup loads");
    let wanted = |round: usize| {
        let source = bed.beside(&format!("a{}", round - 1));
        Swap {
            aside: bed.beside(&format!("a{round}")),
            marker: Marker { point: if round == 1 { "p1".into() } else { source.clone() }, operation: format!("swap-{round}"), release: 8 },
            shadow: source,
            owner: Some(owner()),
            deadline: PATIENCE,
        }
    };
    let names = async |root: &mut MySqlConnection, schema: &str| {
        ask(root, &format!("SELECT GROUP_CONCAT(who ORDER BY id) FROM `{schema}`.orders")).await
    };
    let before = tokio::sync::Mutex::new((String::new(), String::new()));
    at_every_statement(
        &bed,
        FAULTS,
        async |round| {
            let mut root = root.lock().await;
            run(&mut root, &format!("INSERT INTO orders (who) VALUES ('{round}')")).await;
            let (live, source) = (names(&mut root, &bed.name).await, names(&mut root, &bed.beside(&format!("a{}", round - 1))).await);
            *before.lock().await = (live, source);
        },
        async |database, round| swap(&database, &wanted(round)).await,
        async |round, name| {
            let mut root = root.lock().await;
            let (live, source) = before.lock().await.clone();
            assert_eq!(names(&mut root, &bed.name).await, source, "{name}: what was beside is live");
            assert_eq!(names(&mut root, &bed.beside(&format!("a{round}"))).await, live, "{name}: what was live is kept");
            let inventory = inspect(&bed.database()).await.expect("the database can be read");
            let beside = inventory.beside.iter().map(|beside| (beside.schema.clone(), beside.state)).collect::<Vec<_>>();
            assert_eq!(beside, [(bed.beside(&format!("a{round}")), Standing::Aside)], "{name}");
            assert_eq!(inventory.marker, Some(wanted(round).marker), "{name}");
            assert_eq!(inventory.owner, Some(owner()), "{name}");
            let left = format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '{}%'", bed.name);
            assert_eq!(ask(&mut root, &left).await, "2", "{name}: live and aside, nothing else");
            let objects = format!(
                "SELECT GROUP_CONCAT(CONCAT(TRIGGER_SCHEMA, ' ', TRIGGER_NAME, ' ', EVENT_OBJECT_TABLE)) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA LIKE '{}%'",
                bed.name
            );
            assert_eq!(ask(&mut root, &objects).await, format!("{} noted orders", bed.name), "{name}: its trigger, and no passing one");
            assert_eq!(inventory.tables.iter().filter(|table| table.name == "orders").count(), 1, "{name}");
            ask(&mut root, "SELECT * FROM newest").await;
            run(&mut root, &format!("INSERT INTO orders (who) VALUES ('{round} after')")).await;
            let twice = format!(
                "SELECT COUNT(*) FROM orders l JOIN `{}`.orders a ON a.id = l.id WHERE l.who = '{round} after'",
                bed.beside(&format!("a{round}"))
            );
            assert_eq!(ask(&mut root, &twice).await, "0", "{name}: no id is given out twice");
        },
    )
    .await;
}

const MIGRATED: &str = "CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 0), (2, 0)";

fn up() -> Migration {
    Migration {
        version: 1,
        name: "one".into(),
        sql: "SET @one = 1; CREATE TABLE u (id INT); CREATE TABLE w (id INT); UPDATE t SET v = v + @one; ALTER TABLE t ADD x INT; INSERT INTO u SELECT id FROM t; ALTER TABLE t ADD y INT".into(),
        checksum: "sum".into(),
    }
}

const DOWN: &str = "ALTER TABLE t DROP x, DROP y; UPDATE t SET v = v - 1; DROP TABLE u, w";

#[tokio::test]
async fn a_migration_can_be_cut_off_anywhere() {
    let bed = Bed::new(MIGRATED).await;
    let root = tokio::sync::Mutex::new(bed.root().await);
    at_every_statement(
        &bed,
        FAULTS,
        async |_| {
            // From the very beginning, with the engine's own tables still to be made.
            let tables = "DROP TABLE IF EXISTS _backout_migrations, _backout_owner, t, u, w";
            run(&mut *root.lock().await, &format!("{tables}; {MIGRATED}")).await;
        },
        async |database, _| apply(&database, &up(), 3, &owner()).await,
        async |_, name| {
            let mut root = root.lock().await;
            assert_eq!(ask(&mut root, "SELECT GROUP_CONCAT(v) FROM t").await, "1,1", "{name}: raised once");
            assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM u").await, "2", "{name}: inserted once");
            assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM t WHERE x IS NULL AND y IS NULL").await, "2", "{name}");
            let inventory = inspect(&bed.database()).await.expect("the database can be read");
            assert_eq!(inventory.migrations.iter().map(|row| row.version).collect::<Vec<_>>(), [1], "{name}");
            assert_eq!(inventory.owner, Some(owner()), "{name}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_revert_can_be_cut_off_anywhere() {
    let bed = Bed::new(MIGRATED).await;
    let root = tokio::sync::Mutex::new(bed.root().await);
    at_every_statement(
        &bed,
        FAULTS,
        async |_| {
            apply(&bed.database(), &up(), 3, &owner()).await.expect("it applies");
        },
        async |database, _| revert(&database, 1, DOWN, &owner()).await,
        async |_, name| {
            let mut root = root.lock().await;
            assert_eq!(ask(&mut root, "SELECT GROUP_CONCAT(v) FROM t").await, "0,0", "{name}: lowered once");
            let inventory = inspect(&bed.database()).await.expect("the database can be read");
            assert_eq!(inventory.migrations, [], "{name}");
            let tables: Vec<&str> = inventory.tables.iter().map(|table| table.name.as_str()).collect();
            assert_eq!(tables, ["_backout_migrations", "_backout_owner", "t"], "{name}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_measurement_can_be_cut_off_anywhere() {
    let bed = Bed::new(SHOP).await;
    let scripts = [("m".to_owned(), "DELETE FROM orders WHERE id = 1; ALTER TABLE items DROP order_id".to_owned())];
    at_every_statement(&bed, READING, async |_| {}, async |database, _| script_loss(&database, &scripts).await, async |_, _| {}).await;
}

/// A server that goes away before anybody is logged in, at different places of the handshake.
#[tokio::test]
async fn a_handshake_can_be_cut_off_anywhere() {
    let bed = Bed::new("").await;
    let mut reached = 0;
    for bytes in [0, 1, 50, 100, 200, 500, 1000, 1500, 2000] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let server = bed.endpoint();
        let cut = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.expect("the engine connects");
            let mut server = TcpStream::connect((server.host.as_str(), server.port)).await.expect("the server takes connections");
            let (mut from_server, mut to_server) = server.split();
            let (mut from_client, mut to_client) = client.split();
            let down = async {
                for _ in 0..bytes {
                    let Ok(byte) = from_server.read_u8().await else { return };
                    if to_client.write_u8(byte).await.is_err() {
                        return;
                    }
                }
            };
            let up = async {
                let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            };
            tokio::select! { () = down => {}, () = up => {} }
        });
        let endpoint = Endpoint { host: "127.0.0.1".into(), port, tls: Tls::VerifyCa { ca_pem: super::ca() }, ..bed.endpoint() };
        match inspect(&Database::new(endpoint)).await {
            Err(error) => {
                assert_eq!(error.class(), Class::Transient, "after {bytes} bytes: {error}");
                reached += 1;
            }
            Ok(inventory) => panic!("after {bytes} bytes: {inventory:?}"),
        }
        cut.await.expect("the task ran");
    }
    assert_eq!(reached, 9);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let bed = Bed::new("").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = silent.local_addr().expect("it is bound").port();
    let database = Database::new(Endpoint { host: "127.0.0.1".into(), port, ..bed.endpoint() }).with_statement_timeout(HANGING);
    let begun = Instant::now();
    let error = inspect(&database).await.expect_err("nobody answers");
    assert_eq!((error.label(), error.class()), ("unreachable", Class::Transient));
    assert!(begun.elapsed() < HANGING * 10, "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn the_lock_is_free_again_once_its_holder_is_gone() {
    let bed = Bed::new(SHOP).await;
    let mut root = bed.root().await;
    let mut holder = bed.root().await;
    let process = ask(&mut holder, "SELECT CONNECTION_ID()").await;
    assert_eq!(ask(&mut holder, &format!("SELECT GET_LOCK('backout:{}', 0)", bed.name)).await, "1");
    // Without a goodbye: the socket is closed.
    drop(holder);
    until(&mut root, &format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {process}"), "0").await;
    bed.capture("p1").await;
}

#[tokio::test]
async fn ddl_of_the_engine_gives_up_a_lock_that_others_hold() {
    let bed = Bed::new(SHOP).await;
    let shadow = bed.beside("shadow");
    bed.capture("p1").await;
    load(&bed.database(), &bed.store, &Path::from("p1"), &shadow).await.expect("the backup loads");
    let mut holder = bed.root().await;
    run(&mut holder, &format!("START TRANSACTION; SELECT * FROM `{shadow}`.orders")).await;
    let begun = Instant::now();
    let error = discard(&bed.database(), &shadow).await.expect_err("a table of it is in use");
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
    run(&mut holder, "COMMIT").await;
    discard(&bed.database(), &shadow).await.expect("nobody uses it any more");
    assert_eq!(schemas(&bed).await, []);
}
