//! Backup points that are encrypted for somebody.

use age::{secrecy::ExposeSecret, x25519::Identity};
use backout::{
    mysql::{Encryption, Error, Sealing, capture, load, points, read_manifest, read_summary, verify},
    secret::Sensitive,
};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};

use super::{Bed, ask, what};

/// A new pair of keys: the public and the secret one.
fn keys() -> (String, String) {
    let identity = Identity::generate();
    (identity.to_public().to_string(), identity.to_string().expose_secret().to_owned())
}

fn sealing(recipient: &str) -> Sealing {
    Sealing::new(&[recipient.to_owned()]).expect("it is a key")
}

fn opening(identity: &str) -> Sealing {
    Sealing::default().with_identity(&Sensitive::new(identity)).expect("it is a key")
}

#[tokio::test]
async fn an_encrypted_point_tells_nothing_of_its_rows_and_is_opened_by_its_key_alone() {
    let mut bed = Bed::new(
        "CREATE TABLE marked_table (id VARCHAR(50) PRIMARY KEY, marked_column TEXT); \
         INSERT INTO marked_table SELECT CONCAT('marked', LPAD(seq, 6, '0')), REPEAT('x', 100) FROM seq_1_to_3000; ANALYZE TABLE marked_table",
    )
    .await;
    let (key, other) = (keys(), keys());
    let (plain, prefix) = (bed.store.clone(), Path::from("p1"));
    bed.store = plain.clone().with_sealing(sealing(&key.0));
    let database = bed.database().with_chunk(64 * 1024);
    let taken = capture(&database, &bed.store, &prefix, &what("p1")).await.expect("it needs no secret");
    assert!(taken.files.len() > 3, "{taken:?}");

    let files: Vec<Path> = plain.list(None).map_ok(|file| file.location).try_collect().await.expect("the store lists");
    assert!(files.iter().all(|file| file.as_ref() == "p1/manifest.json" || file.as_ref().ends_with(".age")), "{files:?}");
    let read = async |file: &Path| plain.get(file).await.expect("it is there").bytes().await.expect("it can be read");
    for file in &files {
        let content = String::from_utf8_lossy(&read(file).await).into_owned();
        let literal = hex::encode("marked");
        assert!(!content.contains("marked") && !content.contains(&literal) && !content.contains("crc_squares"), "{file}: {content}");
    }

    // Without any key.
    assert_eq!(points(&plain).await.expect("the store lists"), std::slice::from_ref(&prefix));
    let summary = read_summary(&plain, &prefix).await.expect("it can be read").expect("it is there");
    assert_eq!((summary.encryption, summary.rows, summary.tables), (Some(Encryption::Age), 3000, 1));
    assert_eq!(summary, taken);
    assert_eq!(verify(&plain, &prefix).await.expect("every file is whole"), summary);
    assert_eq!(capture(&database, &bed.store, &prefix, &what("p1")).await.expect("it is there"), summary);

    let shadow = bed.beside("shadow");
    for (store, why) in [
        (plain.clone(), "no identity was given"),
        (plain.clone().with_sealing(opening(&other.1)), "none of those that it was encrypted for"),
    ] {
        let error = load(&database, &store, &prefix, &shadow).await.expect_err("it is not opened");
        assert!(matches!(error, Error::Locked { .. }) && error.to_string().contains(why), "{error}");
        assert!(matches!(read_manifest(&store, &prefix).await, Err(Error::Locked { .. })));
    }
    let mut root = bed.root().await;
    let beside = format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{shadow}'");
    assert_eq!(ask(&mut root, &beside).await, "0", "nothing was made");
    let store = plain.clone().with_sealing(opening(&key.1));
    let manifest = read_manifest(&store, &prefix).await.expect("it is opened").expect("it is there");
    assert_eq!((manifest.rows(), manifest.files().collect::<Vec<_>>()), (3000, taken.files.iter().collect()));
    assert_eq!(load(&database, &store, &prefix, &shadow).await.expect("it is opened").rows, 3000);

    // A byte that changed is noticed without the key.
    for file in files.iter().filter(|file| file.as_ref() != "p1/manifest.json") {
        let content = read(file).await.to_vec();
        let mut damaged = content.clone();
        *damaged.last_mut().expect("it is not empty") ^= 1;
        plain.put(file, PutPayload::from(damaged)).await.expect("the store takes it");
        let error = verify(&plain, &prefix).await.expect_err("a byte is another");
        assert!(matches!(&error, Error::Corrupt { path, .. } if *path == file.to_string()), "{error}");
        plain.put(file, PutPayload::from(content)).await.expect("the store takes it");
    }
}
