//! Backup points in a store that speaks S3, over TLS.

use std::{collections::BTreeMap, process::Command};

use backout::{
    error::Class,
    mysql::{self, Error, Store},
    stores::{self, Keys},
};
use object_store::path::Path;

use super::{Bed, PATIENCE, ask, run, variable, what};
use crate::support::{
    bed::eventually,
    s3::{ACCESS_KEY, SECRET_KEY, Server},
};

/// Eight MiB that nothing compresses, in one chunk.
const TABLE: &str =
    "CREATE TABLE a (id INT PRIMARY KEY, v VARBINARY(1024)); INSERT INTO a SELECT seq, RANDOM_BYTES(1024) FROM seq_1_to_8192";

fn open(server: &Server, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Store {
    let mut keys = server.keys();
    change(&mut keys);
    Store::new(stores::with_keys(&server.url(), &Keys::new("Secret s3", keys)).expect("the keys are whole"))
}

#[tokio::test]
async fn a_point_in_s3_is_taken_in_parts_verified_and_loaded() {
    let server = Server::new().await;
    let mut bed = Bed::new(TABLE).await;
    bed.store = open(&server, |_| {});
    let manifest = bed.capture("before").await;
    let file = &manifest.tables[0].chunks[0].file;
    assert!(file.bytes > 8 << 20, "{file:?}");
    assert_eq!(server.operations.count("CompleteMultipartUpload"), 1);
    assert_eq!(server.operations.count("UploadPart"), 2);
    assert_eq!(std::fs::metadata(server.files().join("before").join(&file.name)).expect("it is there").len(), file.bytes);
    // Again: nothing is taken twice.
    assert_eq!(bed.capture("before").await, manifest);

    assert_eq!(mysql::points(&bed.store).await.expect("it can be listed"), [Path::from("before")]);
    let prefix = Path::from("before");
    mysql::verify(&bed.store, &prefix).await.expect("every file is whole");
    let loaded = mysql::load(&bed.database(), &bed.store, &prefix, &bed.beside("shadow")).await.expect("it can be loaded");
    assert_eq!(loaded.rows, 8192);

    // What the digests are for.
    let path = server.files().join("before").join(&file.name);
    let mut bytes = std::fs::read(&path).expect("it is there");
    bytes[7 << 20] ^= 1;
    std::fs::write(&path, bytes).expect("it can be written");
    let error = mysql::verify(&bed.store, &prefix).await.expect_err("a byte is another");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn what_was_sent_of_a_file_that_fails_is_taken_back() {
    let server = Server::new().await;
    let mut bed = Bed::new(TABLE).await;
    bed.store = open(&server, |_| {});
    server.operations.deny(Some("UploadPart"));
    let error = mysql::capture(&bed.database(), &bed.store, &Path::from("before"), &what("before")).await.expect_err("it is refused");
    assert_eq!(error.class(), Class::Permanent);
    let message = error.to_string();
    assert!(message.contains("403 Forbidden (AccessDenied); check the store's keys") && !message.contains("not shown"), "{message}");
    let aborted = async || (server.operations.count("AbortMultipartUpload") == 1).then_some(());
    eventually("the upload was aborted", PATIENCE, aborted).await;
}

#[tokio::test]
async fn a_store_that_refuses_or_is_away_says_so_and_no_secret() {
    let server = Server::new().await;
    let told = async |store: Store| {
        let error = mysql::ask_store(&store, &Path::from("ns")).await.expect_err("it is not let in");
        let message = error.to_string();
        for secret in [SECRET_KEY, ACCESS_KEY, "wrong-secret"] {
            assert!(!message.contains(secret), "{message}");
        }
        (error.class(), message)
    };
    let set = |key: &'static str, value: String| {
        move |keys: &mut BTreeMap<String, Vec<u8>>| drop(keys.insert(key.to_owned(), value.into_bytes()))
    };

    let (class, message) = told(open(&server, set("AWS_SECRET_ACCESS_KEY", "wrong-secret".to_owned()))).await;
    assert_eq!(class, Class::Permanent, "{message}");
    assert!(message.contains("403 Forbidden (SignatureDoesNotMatch); check the store's keys"), "{message}");
    let (class, message) = told(open(&server, set("AWS_ENDPOINT_URL", "https://127.0.0.1:1".to_owned()))).await;
    assert_eq!(class, Class::Transient, "{message}");
    assert!(message.contains("Connection refused"), "{message}");
    let other = super::access::OTHER_CA.to_owned();
    let (class, message) = told(open(&server, set("ca.crt", other))).await;
    assert_eq!(class, Class::Transient, "{message}");
    assert!(message.contains("certificate"), "{message}");
    let keys = Keys::new("Secret s3", server.keys());
    let (class, message) = told(Store::new(stores::with_keys("s3://another/shop", &keys).expect("the keys are whole"))).await;
    assert_eq!(class, Class::Permanent, "{message}");
    assert!(message.contains("(NoSuchBucket); check that the bucket"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_in_s3_is_taken_and_brought_back_by_hand() {
    let server = Server::new().await;
    let bed = Bed::new("CREATE TABLE a (id INT PRIMARY KEY, v TEXT); INSERT INTO a SELECT seq, REPEAT('x', 100) FROM seq_1_to_3000").await;
    let endpoint = bed.endpoint();
    let db = |arguments: &[&str], secret: &str| {
        Command::new(env!("CARGO_BIN_EXE_backout"))
            .arg("db")
            .args(arguments)
            .args(["--store", &server.url(), "--store-ca", &server.ca_file().display().to_string()])
            .env_clear()
            .env("BACKOUT_DB_URL", format!("mysql://{}@{}:{}/{}", endpoint.user, endpoint.host, endpoint.port, bed.name))
            .env("BACKOUT_DB_PASSWORD", variable("BED_MYSQL_PASSWORD"))
            .env("BACKOUT_DB_CA", variable("BED_CA"))
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .env("AWS_ENDPOINT_URL", server.endpoint())
            .output()
    };
    let db = async |arguments: &'static [&'static str], secret: &str| {
        // The server runs in this thread.
        let output = tokio::task::block_in_place(|| db(arguments, secret)).expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    db(&["capture", "before"], SECRET_KEY).await.expect("it is taken");
    assert!(db(&["list"], SECRET_KEY).await.expect("it is listed").contains("before "));
    db(&["verify", "before"], SECRET_KEY).await.expect("it is whole");
    let mut root = bed.root().await;
    run(&mut root, "DELETE FROM a WHERE id > 10").await;
    db(&["restore", "before", "--yes"], SECRET_KEY).await.expect("it is brought back");
    assert_eq!(ask(&mut root, "SELECT COUNT(*) FROM a").await, "3000");
    let script = db(&["restore-script", "before"], SECRET_KEY).await.expect("it is printed");
    assert!(script.contains(&format!("beside a copy of {}/before", server.url())) && script.contains("cd 'before'"), "{script}");
    let message = db(&["list"], "wrong-secret").await.expect_err("it is refused");
    assert!(message.contains("SignatureDoesNotMatch") && !message.contains("wrong-secret"), "{message}");
}
