//! git over SSH: who is let in, and whose key is believed.

use std::time::Instant;

use backout::secret::Sensitive;
use russh::keys::PrivateKey;

use super::{
    limits, look, mirrors, refusal,
    repository::Repository,
    source,
    ssh::{Manner, Server, access, encrypted, key},
};

/// A served repository, its host's key and the client's.
struct Place {
    repository: Repository,
    server: Server,
    host: PrivateKey,
    client: PrivateKey,
}

async fn place(manner: Manner) -> Place {
    let (repository, host, client) = (Repository::with_release("1.0.0"), key(), key());
    let server = Server::new(&repository.root(), vec![host.clone()], &client, manner).await;
    Place { repository, server, host, client }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_read_over_ssh_and_followed_when_it_changes() {
    let place = place(Manner::Serve).await;
    let (folder, source) = (tempfile::tempdir().unwrap(), source(&place.server.url()));
    let (mirrors, access) = (mirrors(folder.path(), limits()), access(&place.client, &place.server.known(&place.host)));
    assert_eq!(look(&mirrors, &source, &access).await.expect("the key is right").content.version, "1.0.0");
    place.repository.release(".", "1.1.0");
    let head = place.repository.push("second");
    let seen = look(&mirrors, &source, &access).await.expect("the key is right");
    assert_eq!((seen.content.version.as_str(), seen.revision), ("1.1.0", format!("main@sha1:{head}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_listed_host_key_is_believed() {
    let place = place(Manner::Serve).await;
    let (other, name) = (key(), place.server.name());
    let shown = place.host.public_key().fingerprint(Default::default()).to_string();
    let entry = |key: &PrivateKey, prefix: &str| format!("{prefix} {}\n", key.public_key().to_openssh().unwrap());
    let right = place.server.known(&place.host);
    for (case, known_hosts, refused) in [
        ("right", right.clone(), None),
        ("several keys", format!("{}{right}", place.server.known(&other)), None),
        ("a pattern", entry(&place.host, "[127.0.0.?]:*,!*.example"), None),
        ("several names", entry(&place.host, &format!("git.example,{name}")), None),
        ("nothing", String::new(), Some("has no entry")),
        ("another host", entry(&place.host, "git.example"), Some("has no entry")),
        ("the port left out", entry(&place.host, "127.0.0.1"), Some("has no entry")),
        ("negated", entry(&place.host, &format!("{name},!{name}")), Some("has no entry")),
        ("another key", place.server.known(&other), Some("somebody stands between")),
        ("revoked", format!("{right}{}", entry(&place.host, &format!("@revoked {name}"))), Some("@revoked")),
        ("only an authority", entry(&place.host, &format!("@cert-authority {name}")), Some("has no entry")),
        ("a line that can't be read", format!("# mine\n{name} ssh-ed25519 ???\n{right}"), Some("line 2 of known_hosts")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (mirrors, access) = (mirrors(folder.path(), limits()), access(&place.client, &known_hosts));
        let seen = look(&mirrors, &source(&place.server.url()), &access).await;
        match (seen, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) => {
                assert_eq!(error.reason(), "SourceAccessDenied", "{case}: {error}");
                assert!(error.to_string().contains(words), "{case}: {error}");
                assert!(words.starts_with("line") || error.to_string().contains(&shown), "{case} does not show {shown}: {error}");
            }
            (seen, _) => panic!("{case}: {seen:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_about_an_unknown_host_has_the_line_to_add() {
    let place = place(Manner::Serve).await;
    let folder = tempfile::tempdir().unwrap();
    let mirrors = mirrors(folder.path(), limits());
    let (_, message) = refusal(&mirrors, &source(&place.server.url()), &access(&place.client, "")).await;
    assert!(message.contains(place.server.known(&place.host).trim()), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_key_is_refused_and_not_shown() {
    let place = place(Manner::Serve).await;
    let folder = tempfile::tempdir().unwrap();
    let access = access(&key(), &place.server.known(&place.host));
    let (reason, message) = refusal(&mirrors(folder.path(), limits()), &source(&place.server.url()), &access).await;
    assert_eq!(reason, "SourceAccessDenied");
    assert!(message.contains("refused the credentials") && !message.contains("PRIVATE KEY"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_identity_needs_its_passphrase() {
    let place = place(Manner::Serve).await;
    let hidden = encrypted(&place.client, "correct horse");
    for (passphrase, refused) in [
        (Some("correct horse"), None),
        (Some("battery staple"), Some("with the passphrase in key password")),
        (None, Some("needs its passphrase in key password")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut access = access(&hidden, &place.server.known(&place.host));
        if let Some(ssh) = &mut access.ssh {
            ssh.passphrase = passphrase.map(Sensitive::new);
        }
        let seen = look(&mirrors(folder.path(), limits()), &source(&place.server.url()), &access).await;
        match (seen, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) => {
                assert_eq!(error.reason(), "SourceAccessDenied");
                assert!(error.to_string().contains(words), "{error}");
                assert!(!passphrase.is_some_and(|phrase| error.to_string().contains(phrase)), "{error}");
            }
            (seen, _) => panic!("{passphrase:?}: {seen:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_after_the_login_is_given_up() {
    let place = place(Manner::Hang).await;
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let limits = backout::observe::git::Limits { silence: std::time::Duration::from_secs(1), ..limits() };
    let access = access(&place.client, &place.server.known(&place.host));
    let (reason, message) = refusal(&mirrors(folder.path(), limits), &source(&place.server.url()), &access).await;
    assert_eq!(reason, "SourceUnavailable");
    assert!(message.contains("silent for 1 s"), "{message}");
    assert!(begun.elapsed() < super::PATIENCE, "it took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_not_there_is_named() {
    let place = place(Manner::Serve).await;
    let folder = tempfile::tempdir().unwrap();
    let access = access(&place.client, &place.server.known(&place.host));
    let url = place.server.url().replace("deploy", "other");
    let (reason, message) = refusal(&mirrors(folder.path(), limits()), &source(&url), &access).await;
    assert_eq!(reason, "SourceNotFound");
    assert!(message.contains(&url), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_can_not_be_meant_is_refused_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mirrors = mirrors(folder.path(), limits());
    for (url, reason, words) in [
        ("git@git.example:liqui/deploy.git", "SourceNotFound", "ssh://git@host/path"),
        ("file:///etc", "SourceNotFound", "https://host/path"),
        ("/etc", "SourceNotFound", "https://host/path"),
        ("git://git.example/x", "SourceNotFound", "https://host/path"),
        ("ssh://git:secret@git.example/x", "SourceAccessDenied", "credentials"),
        ("https://me@git.example/x", "SourceAccessDenied", "credentials"),
    ] {
        let (found, message) = refusal(&mirrors, &source(url), &Default::default()).await;
        assert_eq!(found, reason, "{url}");
        assert!(message.contains(words) && !message.contains("secret@"), "{url}: {message}");
    }
}
