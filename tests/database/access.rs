//! Getting in: credentials, privileges, TLS, a server that is not there.

use backout::error::Class;
use backout::mysql::{Database, Endpoint, Error, Migration, Tls, apply, capture, discard, inspect, load, loss, revert, swap};
use backout::secret::Sensitive;
use object_store::path::Path;

use super::{Bed, ask, owner, run, what};

#[tokio::test]
async fn a_wrong_password_says_so_without_the_password() {
    let bed = Bed::new("").await;
    let result = inspect(&bed.database_as("root", "not-the-password")).await;
    let Err(error) = result else { panic!("{result:?}") };
    assert_eq!((error.label(), error.class()), ("access_denied", Class::Permanent));
    assert!(!format!("{error} {error:?}").contains("not-the-password"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_worth_another_try() {
    let bed = Bed::new("").await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free");
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: nobody.port(), ..bed.endpoint() };
    let result = inspect(&Database::new(endpoint)).await;
    let Err(error) = result else { panic!("{result:?}") };
    assert_eq!((error.label(), error.class()), ("unreachable", Class::Transient));
    let endpoint = Endpoint { host: "no-such-host.invalid".into(), ..bed.endpoint() };
    let result = inspect(&Database::new(endpoint)).await;
    assert!(matches!(&result, Err(Error::Unreachable { .. })), "{result:?}");
}

#[tokio::test]
async fn an_unknown_database_is_named() {
    let bed = Bed::new("").await;
    let result = inspect(&Database::new(Endpoint { database: "no_such_schema".into(), ..bed.endpoint() })).await;
    let Err(error) = result else { panic!("{result:?}") };
    assert_eq!(error.label(), "unknown_database");
    assert!(error.to_string().contains("no_such_schema"), "{error}");
}

#[tokio::test]
async fn only_a_trusted_server_gets_the_password() {
    let bed = Bed::new("").await;
    let by_address = |host: &str, tls| inspect_with(Endpoint { host: host.to_owned(), tls, ..bed.endpoint() });
    let with = |tls| by_address(&bed.endpoint().host, tls);
    with(Tls::VerifyIdentity { ca_pem: super::ca() }).await.expect("the bed's CA vouches for the server");
    with(Tls::VerifyCa { ca_pem: super::ca() }).await.expect("the bed's CA vouches for the server");
    with(Tls::Required).await.expect("nothing is checked");
    by_address(UNNAMED, Tls::VerifyCa { ca_pem: super::ca() }).await.expect("the name is not checked");
    for (host, tls) in [
        (bed.endpoint().host.as_str(), Tls::VerifyIdentity { ca_pem: OTHER_CA.into() }),
        (bed.endpoint().host.as_str(), Tls::VerifyCa { ca_pem: OTHER_CA.into() }),
        (bed.endpoint().host.as_str(), Tls::VerifyIdentity { ca_pem: Vec::new() }),
        (bed.endpoint().host.as_str(), Tls::VerifyCa { ca_pem: Vec::new() }),
        (UNNAMED, Tls::VerifyIdentity { ca_pem: super::ca() }),
    ] {
        let what = format!("{host} with {tls:?}");
        let result = by_address(host, tls).await;
        let Err(error) = result else { panic!("{what} was accepted") };
        assert_eq!((error.label(), error.class()), ("untrusted", Class::Permanent), "{what}: {error}");
    }
}

/// The server listens there too, but its certificate does not say so.
pub const UNNAMED: &str = "127.0.0.2";

#[test]
fn no_authority_is_trusted_beside_those_that_are_given() {
    assert!(webpki_roots::TLS_SERVER_ROOTS.is_empty(), "sqlx would trust these too: patches/webpki-roots is not in use");
}

async fn inspect_with(endpoint: Endpoint) -> backout::mysql::Result<()> {
    inspect(&Database::new(endpoint)).await.map(drop)
}

#[tokio::test]
async fn the_grants_it_asks_for_are_enough_for_everything() {
    let bed = Bed::new("CREATE TABLE p (id INT PRIMARY KEY AUTO_INCREMENT); CREATE TABLE c (id INT, FOREIGN KEY (id) REFERENCES p (id)); INSERT INTO p VALUES (1)").await;
    let mut root = bed.root().await;
    let name = &bed.name;
    run(&mut root, &format!("CREATE USER '{name}'@'%' IDENTIFIED BY 'pw'")).await;
    let database = bed.database_as(name, "pw");

    let grants = missing(inspect(&database).await.map(|inventory| inventory.missing_grants));
    assert_eq!(grants.len(), 2, "{grants:?}");
    assert!(grants[0].ends_with(&format!("ON `{}`.* TO '{name}'@'%';", name.replace('_', "\\_"))), "{grants:?}");
    run(&mut root, &grants[0]).await;
    let only_beside = missing(inspect(&database).await.map(|inventory| inventory.missing_grants));
    assert_eq!(only_beside, grants[1..]);
    let refused = capture(&database, &bed.store, &Path::from("p1"), &what("p1")).await;
    assert!(matches!(&refused, Err(Error::MissingGrants { grants: wanted, .. }) if *wanted == only_beside), "{refused:?}");
    run(&mut root, &grants[1]).await;
    assert_eq!(inspect(&database).await.expect("the database can be read").missing_grants, Vec::<String>::new());

    let migration =
        Migration { version: 1, name: "one".into(), sql: "ALTER TABLE p ADD v INT; UPDATE p SET v = 1".into(), checksum: "x".into() };
    apply(&database, &migration, 1, &owner()).await.expect("it is allowed");
    revert(&database, 1, "ALTER TABLE p DROP v", &owner()).await.expect("it is allowed");
    capture(&database, &bed.store, &Path::from("p1"), &what("p1")).await.expect("it is allowed");
    load(&database, &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("it is allowed");
    loss(&database, &bed.beside("shadow")).await.expect("it is allowed");
    swap(&database, &bed.swap("p1")).await.expect("it is allowed");
    discard(&database, &bed.beside("aside")).await.expect("it is allowed");
}

#[tokio::test]
async fn the_grants_it_asks_for_are_enough_for_the_stored_objects_of_others() {
    let bed = Bed::new(
        "CREATE TABLE p (id INT PRIMARY KEY); CREATE TRIGGER t BEFORE INSERT ON p FOR EACH ROW SET @a = 1; CREATE PROCEDURE q() SELECT 1; \
         CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1; CREATE VIEW v AS SELECT * FROM p",
    )
    .await;
    let mut root = bed.root().await;
    let name = &bed.name;
    let strictly = "SET GLOBAL log_bin_trust_function_creators=OFF";
    run(&mut root, &format!("{strictly}; CREATE USER '{name}'@'%' IDENTIFIED BY 'pw'; GRANT ALL ON `{name}`.* TO '{name}'@'%'")).await;
    let database = bed.database_as(name, "pw");
    let grants = missing(inspect(&database).await.map(|inventory| inventory.missing_grants));
    let beside = "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, ALTER ROUTINE, CREATE ROUTINE, CREATE VIEW, EVENT, LOCK TABLES, SHOW VIEW, TRIGGER";
    let account = format!("TO '{name}'@'%';");
    let expected = [
        format!("{beside} ON `{}\\_backout\\_%`.* {account}", name.replace('_', "\\_")),
        format!("GRANT SET USER ON *.* {account}"),
        format!("GRANT SELECT ON mysql.proc {account}"),
        "SET GLOBAL log_bin_trust_function_creators=ON;".to_owned(),
    ];
    assert_eq!(grants, expected);
    for grant in &grants {
        run(&mut root, grant).await;
    }
    capture(&database, &bed.store, &Path::from("p1"), &what("p1")).await.expect("it is allowed");
    run(&mut root, "DROP TRIGGER t; DROP PROCEDURE q; DROP EVENT e; DROP VIEW v").await;
    load(&database, &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("it is allowed");
    swap(&database, &bed.swap("p1")).await.expect("it is allowed");
    discard(&database, &bed.beside("aside")).await.expect("it is allowed");
    assert_eq!(
        ask(&mut root, "SELECT CONCAT(DEFINER) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = DATABASE()").await,
        "root@%"
    );
    run(&mut root, strictly).await;
}

fn missing(result: backout::mysql::Result<Vec<String>>) -> Vec<String> {
    match result {
        Ok(grants) => grants,
        Err(Error::MissingGrants { grants, .. }) => grants,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn secrets_do_not_show_in_debug_output() {
    let bed = Bed::new("").await;
    let endpoint = Endpoint { password: Sensitive::new("hush"), ..bed.endpoint() };
    assert!(!format!("{:?}", Database::new(endpoint)).contains("hush"));
}

/// A CA that signed nothing here.
pub const OTHER_CA: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBgTCCASegAwIBAgIUXC5cW9Rgb3bgttntn9tyraG52TkwCgYIKoZIzj0EAwIw\n\
FTETMBEGA1UEAwwKYW5vdGhlciBDQTAgFw0yNjExMjMyMzMzMDFaGA8yMTI2MTAz\n\
MDIzMzMwMVowFTETMBEGA1UEAwwKYW5vdGhlciBDQTBZMBMGByqGSM49AgEGCCqG\n\
SM49AwEHA0IABFQnX2RzXUXGlr6cp+nqHYU6Ti7xXro8/Al+lLO8tJs/rr6x0Q4w\n\
M9eYQOFhJZi/JDQR4X7kvvXh/p13Xmw3dhejUzBRMB0GA1UdDgQWBBQaIX+5dpw5\n\
/oersCw90PwO62jX5jAfBgNVHSMEGDAWgBQaIX+5dpw5/oersCw90PwO62jX5jAP\n\
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCh0SA43Ktbxyu63cgJ\n\
7pyYXFVj9UMnjpvrYsTXHXyk0gIgNSTJHvPAEpK1He4YcznqFTRn8ROQm+fJXaA7\n\
sAklUT4=\n\
-----END CERTIFICATE-----\n\
";
