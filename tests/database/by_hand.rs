//! `backout db`, as people run it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::{Bed, ask, run, variable};

/// Runs `backout db …` on the bed's schema with a store in `folder`.
fn db(bed: &Bed, folder: &Path, arguments: &[&str]) -> Output {
    let endpoint = bed.endpoint();
    Command::new(env!("CARGO_BIN_EXE_backout"))
        .arg("db")
        .args(arguments)
        .env_clear()
        .env("BACKOUT_DB_URL", format!("mysql://{}@{}:{}/{}", endpoint.user, endpoint.host, endpoint.port, bed.name))
        .env("BACKOUT_DB_PASSWORD", variable("BED_MYSQL_PASSWORD"))
        .env("BACKOUT_DB_CA", variable("BED_CA"))
        .env("BACKOUT_DB_STORE", folder)
        .env("BACKOUT_DB_CHUNK", "64K")
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// What it prints, where it ends well.
fn done(bed: &Bed, folder: &Path, arguments: &[&str]) -> String {
    let output = db(bed, folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

fn refused(bed: &Bed, folder: &Path, arguments: &[&str]) -> String {
    let output = db(bed, folder, arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("it prints text")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn a_point_is_taken_proven_brought_back_and_undone_by_hand() {
    let bed = Bed::new(
        "CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(100)); INSERT INTO a SELECT seq, REPEAT('x', 100) FROM seq_1_to_3000; ANALYZE TABLE a",
    )
    .await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let store = folder.path();
    let db = |arguments: &[&str]| done(&bed, store, arguments);
    let captured = json(&db(&["capture", "before", "--output", "json"]));
    let taken = &captured["taken"];
    assert_eq!((&taken["rows"], &taken["tables"]), (&3000.into(), &1.into()));
    assert!(taken["files"].as_u64() > Some(3), "{taken}");
    assert_eq!(json(&db(&["list", "--output", "json"]))[0]["digest"], taken["digest"]);
    assert!(db(&["list"]).lines().nth(1).is_some_and(|line| line.starts_with("before ") && line.contains(" 3000 ")));
    assert!(db(&["verify", "before"]).contains("files"));
    assert_eq!(json(&db(&["rehearse", "before", "--output", "json"]))["rows"], 3000);
    let mut root = bed.root().await;
    let beside = format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '{}\\_backout%'", bed.name);
    assert_eq!(ask(&mut root, &beside).await, "0", "the scratch schema is gone");

    // Nobody is there to agree.
    run(&mut root, "INSERT INTO a VALUES (0, 'new'); DELETE FROM a WHERE id = 5").await;
    let message = refused(&bed, store, &["restore", "before"]);
    assert!(message.contains("a: 1 inserted, 0 changed, 1 deleted") && message.contains("nothing was replaced"), "{message}");
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM a WHERE id = 0").await, "1");
    let restored = json(&db(&["restore", "before", "--yes", "--output", "json"]));
    assert_eq!(ask(&mut root, "SELECT CONCAT(COUNT(*), ' ', MIN(id)) FROM a").await, "3000 1");
    let aside = restored["aside"].as_str().expect("it names what it keeps");
    let undone = json(&db(&["undo", aside, "--output", "json"]));
    assert_eq!(ask(&mut root, "SELECT CONCAT(COUNT(*), ' ', MIN(id)) FROM a").await, "3000 0");
    // Nobody owns what nobody owned.
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM _backout_owner").await, "0");
    db(&["discard", undone["aside"].as_str().expect("it names what it keeps")]);
    assert_eq!(ask(&mut root, &beside).await, "0");
    let carried = json(&db(&["restore", "before", "--yes", "--carry-forward", "--output", "json"]));
    assert_eq!(carried["carried"], serde_json::json!([{"table": "a", "carried": 1, "kept": 0, "why": []}]));
    assert_eq!(ask(&mut root, "SELECT CONCAT(COUNT(*), ' ', MIN(id)) FROM a").await, "3001 0");
    db(&["discard", carried["aside"].as_str().expect("it names what it keeps")]);

    // A point that can't be read does not hide the others.
    std::fs::create_dir(store.join("broken")).expect("it can be made");
    std::fs::write(store.join("broken/manifest.json"), "{}").expect("it can be written");
    let output = self::db(&bed, store, &["list"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("before "), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("broken/manifest.json"), "{output:?}");

    // Nobody is left to think that a new one was taken.
    let message = refused(&bed, store, &["capture", "before"]);
    assert!(message.contains("before is there already"), "{message}");
    let message = refused(&bed, store, &["capture", "another", "--password-file", "/nowhere"]);
    assert!(message.contains("/nowhere: No such file"), "{message}");

    let message = refused(&bed, store, &["rehearse", "after"]);
    assert!(message.contains("no complete backup at after"), "{message}");
    let secret = variable("BED_MYSQL_PASSWORD");
    let with_password = bed.endpoint();
    let url = format!("mysql://{}:{secret}@{}/{}", with_password.user, with_password.host, bed.name);
    let message = refused(&bed, store, &["capture", "--url", &url]);
    assert!(message.contains("leave the password out of --url") && !message.contains(&secret), "{message}");
}

/// A file with what the database's own client needs to get in.
fn client_options(bed: &Bed, folder: &Path) -> PathBuf {
    let (endpoint, file) = (bed.endpoint(), folder.join("my.cnf"));
    let config = format!(
        "[client]\nhost={}\nport={}\nuser={}\npassword={}\nssl-ca={}\n",
        endpoint.host,
        endpoint.port,
        endpoint.user,
        variable("BED_MYSQL_PASSWORD"),
        variable("BED_CA")
    );
    std::fs::write(&file, config).expect("it can be written");
    file
}

/// The page on the format says how: this is done as it says, with none of the engine's code.
#[tokio::test]
async fn the_script_restores_a_point_with_ordinary_tools() {
    let bed =
        Bed::new(
            "CREATE SEQUENCE s; DO NEXT VALUE FOR s; CREATE TABLE a (id INT PRIMARY KEY, v TEXT); INSERT INTO a SELECT seq, CONCAT('ü\\\\\\'', seq) FROM seq_1_to_3000; \
             CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW BEGIN SET NEW.v = CONCAT(NEW.v, '🎉;'); END; CREATE VIEW b AS SELECT MAX(v) FROM a"
        ).await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    done(&bed, folder.path(), &["capture", "before"]);
    let script = folder.path().join("restore.sh");
    std::fs::write(&script, done(&bed, folder.path(), &["restore-script", "before"])).expect("it can be written");
    let options = client_options(&bed, folder.path());
    let hand = bed.beside("hand");
    let restore = || {
        let client = format!("mariadb --defaults-file={}", options.display());
        Command::new("sh").arg(&script).arg(&hand).env("CLIENT", client).output().expect("a shell starts")
    };
    let output = restore();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut root = bed.root().await;
    let sum = |schema: &str| format!("SELECT CONCAT(COUNT(*), ' ', SUM(CRC32(CONCAT(id, v)))) FROM `{schema}`.a");
    assert_eq!(ask(&mut root, &sum(&hand)).await, ask(&mut root, &sum(&bed.name)).await);
    run(&mut root, &format!("USE `{hand}`; INSERT INTO a VALUES (0, 'ü\\\\x')")).await;
    assert_eq!(ask(&mut root, "SELECT * FROM b").await, "ü\\x🎉;");
    let next = ask(&mut root, "SELECT NEXT VALUE FOR s").await;
    assert!(next.parse::<u32>().is_ok_and(|next| next > 1), "{next} was given out before");

    let file = folder.path().join("before/0001-000001-0001.sql.zst");
    let mut bytes = std::fs::read(&file).expect("it is there");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    std::fs::write(&file, bytes).expect("it can be written");
    run(&mut root, &format!("DROP DATABASE `{hand}`")).await;
    assert!(!restore().status.success(), "a file that changed is not run");
    let left = format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{hand}'");
    assert_eq!(ask(&mut root, &left).await, "0");
}

#[tokio::test]
async fn migrations_are_tried_on_a_copy_by_hand() {
    let bed = Bed::new("CREATE TABLE a (id INT PRIMARY KEY); INSERT INTO a VALUES (1), (2)").await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (store, scripts) = (folder.path().join("points"), folder.path().join("migrations"));
    std::fs::create_dir(&scripts).expect("it can be made");
    let write = |name: &str, text: &str| std::fs::write(scripts.join(name), text).expect("it can be written");
    let arguments = ["try", "before", scripts.to_str().expect("its path is text"), "--output", "json"];
    done(&bed, &store, &["capture", "before"]);
    let message = refused(&bed, &store, &arguments);
    assert!(message.contains("holds no migration"), "{message}");
    write("0001_more.up.sql", "ALTER TABLE a ADD v INT");
    write("0001_more.down.sql", "ALTER TABLE a DROP COLUMN v");
    let tried = json(&done(&bed, &store, &arguments));
    assert_eq!((&tried["migrations"][0]["migration"], &tried["takenBack"]), (&"0001_more".into(), &1.into()));

    write("0002_worse.up.sql", "ALTER TABLE a ADD CONSTRAINT one CHECK (id = 1)");
    let message = refused(&bed, &store, &arguments);
    assert!(message.contains("migration 2 worse") && message.contains("4025"), "{message}");
    write("notes.md", "");
    write("worst.sql", "");
    let message = refused(&bed, &store, &arguments);
    assert!(message.contains("worst.sql: a migration is named"), "{message}");
    let mut root = bed.root().await;
    let beside = format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '{}\\_backout%'", bed.name);
    assert_eq!(ask(&mut root, &beside).await, "0", "no copy is left");
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()").await, "1");
}

/// With bytes that are text in no character set, triggers, and a table that the live schema does not have any more.
#[tokio::test]
async fn a_dump_of_the_usual_tool_becomes_a_point() {
    let bed = Bed::new(
        "CREATE TABLE a (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100), raw VARBINARY(20)); CREATE TABLE gone (id INT PRIMARY KEY); INSERT INTO gone VALUES (7); \
         CREATE TABLE seen (n INT); CREATE TRIGGER counted AFTER INSERT ON a FOR EACH ROW INSERT INTO seen VALUES (NEW.id); \
         INSERT INTO a SELECT seq, CONCAT('ü🎉', seq), x'00FF27220A5C' FROM seq_1_to_500; CREATE VIEW v AS SELECT COUNT(*) AS n FROM a",
    )
    .await;
    let (folder, mut root) = (tempfile::tempdir().expect("a folder can be made"), bed.root().await);
    let store = folder.path();
    let (endpoint, dump) = (bed.endpoint(), format!("{}_dump", bed.name));
    let tool = |script: &str| {
        let ended = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script, "bash"])
            .args(["--no-defaults", "-h", &endpoint.host, "-P", &endpoint.port.to_string(), "-u", &endpoint.user])
            .env("MYSQL_PWD", variable("BED_MYSQL_PASSWORD"))
            .output()
            .expect("a shell starts");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    run(&mut root, &format!("CREATE DATABASE `{dump}`")).await;
    let message = refused(&bed, store, &["capture", "old", "--from", &dump]);
    assert!(message.contains("it holds no table"), "{message}");
    tool(&format!(
        "mariadb-dump \"$@\" --single-transaction {0} > {1}/old.sql; mariadb \"$@\" {dump} < {1}/old.sql",
        bed.name,
        store.display()
    ));
    run(&mut root, "DROP TABLE gone; UPDATE a SET v = 'changed', raw = NULL; DELETE FROM a WHERE id > 400").await;

    let taken = json(&done(&bed, store, &["capture", "old", "--from", &dump, "--output", "json"]));
    assert_eq!((&taken["taken"]["database"], &taken["taken"]["rows"]), (&bed.name.as_str().into(), &1001.into()));
    let message = refused(&bed, store, &["capture", "other", "--from", &bed.name]);
    assert!(message.contains("it is the live schema itself"), "{message}");
    let message = refused(&bed, store, &["capture", "other", "--from", "no_such_schema"]);
    assert!(message.contains("no_such_schema"), "{message}");
    run(&mut root, &format!("DROP DATABASE `{dump}`")).await;
    done(&bed, store, &["restore", "old", "--yes"]);
    let found = "SELECT CONCAT_WS(' ', COUNT(*), SUM(v = CONCAT('ü🎉', id)), SUM(raw = x'00FF27220A5C'), (SELECT id FROM gone), (SELECT COUNT(*) FROM seen), (SELECT n FROM v)) FROM a";
    assert_eq!(ask(&mut root, found).await, "500 500 500 7 500 500");
    run(&mut root, "INSERT INTO a (v) VALUES ('new')").await;
    assert_eq!(ask(&mut root, "SELECT MAX(n) > 500 FROM seen").await, "1", "the trigger is back, and no id is given out again");
}

/// The same where the files are encrypted.
#[tokio::test]
async fn an_encrypted_point_is_brought_back_by_hand_with_the_key_alone() {
    let bed =
        Bed::new("CREATE TABLE a (id INT PRIMARY KEY, v TEXT); INSERT INTO a SELECT seq, CONCAT('marked', seq) FROM seq_1_to_3000").await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (store, place) = (folder.path().join("points"), folder.path());
    let [key, other] = ["key", "other"].map(|name| {
        let path = place.join(name).display().to_string();
        let made = Command::new("age-keygen").args(["-o", &path]).output().expect("age-keygen can be run: this test needs age");
        assert!(made.status.success(), "{made:?}");
        let text = std::fs::read_to_string(&path).expect("it was written");
        let public = text.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("it says so").to_owned();
        (path, public)
    });
    done(&bed, &store, &["capture", "before", "--recipient", &key.1]);
    assert!(done(&bed, &store, &["list"]).contains("before "));
    assert!(done(&bed, &store, &["verify", "before"]).contains("files"));
    done(&bed, &store, &["verify", "before", "--identity", &key.0]);
    for (arguments, why) in [
        (["export", "before"].as_slice(), "no identity was given"),
        (&["verify", "before", "--identity", &other.0], "none of those that it was encrypted for"),
        (&["rehearse", "before", "--identity", &other.0], "none of those that it was encrypted for"),
        (&["restore", "before", "--yes"], "no identity was given"),
        (&["export", "before", "--identity", "/nowhere"], "/nowhere: No such file"),
        (&["capture", "after", "--recipient", "age1"], "--recipient: recipient 1 is no public key"),
        (&["capture", "after", "--recipient", &other.1, "--identity", &key.0], "identity of none of the recipients"),
    ] {
        let message = refused(&bed, &store, arguments);
        assert!(message.contains(why), "{arguments:?}: {message}");
    }
    assert!(done(&bed, &store, &["export", "before", "--identity", &key.0]).contains("marked3000"));
    let mut root = bed.root().await;
    run(&mut root, "DELETE FROM a WHERE id > 10").await;
    done(&bed, &store, &["restore", "before", "--yes", "--identity", &key.0]);
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM a").await, "3000");

    let script = place.join("restore.sh");
    std::fs::write(&script, done(&bed, &store, &["restore-script", "before"])).expect("it can be written");
    let restore = |identity: &str| {
        Command::new("sh")
            .arg(&script)
            .arg(bed.beside("script"))
            .env("CLIENT", format!("mariadb --defaults-file={}", client_options(&bed, place).display()))
            .env("IDENTITY", identity)
            .output()
            .expect("a shell can be run")
    };
    assert!(!restore(&other.0).status.success());
    assert_eq!(
        ask(&mut root, &format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{}'", bed.beside("script"))).await,
        "0"
    );
    let restored = restore(&key.0);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_eq!(ask(&mut root, &format!("SELECT COUNT(*) FROM {}.a WHERE v = CONCAT('marked', id)", bed.beside("script"))).await, "3000");
}
