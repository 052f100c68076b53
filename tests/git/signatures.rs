//! Only what somebody trusted has signed is read: what is refused, why, and what real tools make.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use backout::{
    access::{GitAccess, GitTrust},
    api::release::{GitRef, GitSource, GitVerify, LocalRef, VerifyMode},
    observe::git::Mirrors,
};
use pgp::crypto::hash::HashAlgorithm;
use russh::keys::HashAlg;

use super::{
    http::{Manner, Server},
    limits, look, mirrors,
    repository::Repository,
    signing::{Pen, allowed, ending, openpgp, pgp, revoked, sign_commit, sign_tag, ssh, trust},
    source,
    ssh::key,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Place {
    repository: Repository,
    server: Server,
    mirrors: Mirrors,
    _folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let repository = Repository::with_release("1.0.0");
        let server = Server::new(&repository.root(), Manner::Serve).await;
        let folder = tempfile::tempdir().unwrap();
        Self { repository, server, mirrors: mirrors(folder.path(), limits()), _folder: folder }
    }

    fn source(&self, mode: VerifyMode) -> GitSource {
        let reference = match mode {
            VerifyMode::Head => GitRef { branch: Some("main".to_owned()), tag: None, commit: None },
            VerifyMode::Tag | VerifyMode::TagAndHead => GitRef { branch: None, tag: Some("v1".to_owned()), commit: None },
        };
        let verify = Some(GitVerify { mode, secret_ref: LocalRef { name: "signers".to_owned() } });
        GitSource { reference, verify, ..source(&self.server.url()) }
    }

    /// The signer, or the refusal's message.
    async fn seen(&self, mode: VerifyMode, trust: &GitTrust) -> Result<String, String> {
        self.repository.publish();
        let access = GitAccess { trust: Some(trust.clone()), ..GitAccess::default() };
        match look(&self.mirrors, &self.source(mode), &access).await {
            Ok(resolved) => {
                let signer = resolved.signer.expect("it was asked for");
                assert!(
                    resolved.cause.contains(&format!("signed by {}", signer.chars().take(20).collect::<String>())),
                    "{}",
                    resolved.cause
                );
                Ok(signer)
            }
            Err(error) => {
                let message = error.to_string();
                assert_eq!((error.reason(), error.is_passing()), ("SourceNotVerified", false), "{message}");
                assert!(message.contains("@sha1:"), "the revision is missing: {message}");
                Err(message)
            }
        }
    }

    async fn expect(&self, name: &str, mode: VerifyMode, trust: &GitTrust, expected: Result<&str, &str>) {
        match (self.seen(mode, trust).await, expected) {
            (Ok(signer), Ok(words)) => assert!(signer.contains(words), "{name}: {signer}"),
            (Err(message), Err(words)) => assert!(message.contains(words), "{name}: {message}"),
            (seen, _) => panic!("{name}: {seen:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_taken_only_with_an_ssh_signature_that_is_trusted() {
    let place = Place::new().await;
    place.expect("unsigned", VerifyMode::Head, &trust("", &[]), Err("is not signed")).await;
    let (ada, eve) = (key(), key());
    let list = allowed("ada@liqui.example", "", &ada);
    let sign = |payload: &[u8]| ssh(&ada, "git", HashAlg::Sha512, payload);
    for (name, list, signature, expected) in [
        ("good", list.clone(), &sign as &dyn Fn(&[u8]) -> String, Ok("ada@liqui.example")),
        ("good with sha256", list.clone(), &|payload: &[u8]| ssh(&ada, "git", HashAlg::Sha256, payload), Ok("ada@liqui.example")),
        (
            "foreign",
            list.clone(),
            &|payload: &[u8]| ssh(&eve, "git", HashAlg::Sha512, payload),
            Err("key allowed_signers of Secret signers does not have"),
        ),
        ("for a file", list.clone(), &|payload: &[u8]| ssh(&ada, "file", HashAlg::Sha512, payload), Err("for \"file\" instead of \"git\"")),
        ("another text", list.clone(), &|_: &[u8]| ssh(&ada, "git", HashAlg::Sha512, b"another"), Err("tampered")),
        (
            "no signature",
            list.clone(),
            &|_: &[u8]| "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n".to_owned(),
            Err("can't be read"),
        ),
        ("another kind", list.clone(), &|_: &[u8]| "-----BEGIN SIGNED MESSAGE-----\nAAAA\n".to_owned(), Err("can't be read")),
        ("not for git", allowed("ada", "namespaces=\"file\" ", &ada), &sign, Err("only in other namespaces")),
        ("too late", allowed("ada", "valid-before=\"20200101\" ", &ada), &sign, Err("only before 2020-01-01T00:00:00Z")),
        ("too early", allowed("ada", "valid-after=\"20990101\" ", &ada), &sign, Err("only from 2099-01-01T00:00:00Z on")),
        (
            "an old line and a new one",
            format!("{}{}", allowed("old", "valid-before=20200101 ", &ada), allowed("new", "", &ada)),
            &sign,
            Ok("new"),
        ),
        ("an authority", allowed("ada", "cert-authority ", &ada), &sign, Err("cert-authority is not supported")),
        ("an unreadable list", format!("{list}nonsense\n"), &sign, Err("line 2 of allowed_signers")),
    ] {
        sign_commit(&place.repository, signature);
        place.expect(name, VerifyMode::Head, &trust(&list, &[]), expected).await;
        place.repository.git(&["commit", "--quiet", "--amend", "--no-edit", "--no-gpg-sign"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_commit_that_is_changed_afterwards_is_refused() {
    let place = Place::new().await;
    let ada = key();
    let list = trust(&allowed("ada", "", &ada), &[]);
    let id = sign_commit(&place.repository, |payload| ssh(&ada, "git", HashAlg::Sha512, payload));
    place.expect("untouched", VerifyMode::Head, &list, Ok("ada")).await;
    place.repository.release(".", "6.6.6");
    place.repository.commit("x");
    let tree = place.repository.git(&["rev-parse", "HEAD^{tree}"]);
    let signed = String::from_utf8(place.repository.raw(&id)).unwrap();
    let old = place.repository.git(&["rev-parse", &format!("{id}^{{tree}}")]);
    for (name, forged, words) in [
        ("another tree", signed.replace(&old, &tree), "tampered"),
        ("another message", signed.replace("first", "second"), "tampered"),
        ("another author", signed.replacen("Liqui Developer", "Somebody Else", 1), "tampered"),
        ("a second signature", signed.replacen("\n\nfirst", "\ngpgsig x\n\nfirst", 1), "can't be read"),
    ] {
        let forged = place.repository.object("commit", forged.as_bytes());
        place.repository.git(&["reset", "--quiet", "--hard", &forged]);
        place.expect(name, VerifyMode::Head, &list, Err(words)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_taken_only_with_an_openpgp_signature_that_is_trusted() {
    let place = Place::new().await;
    let (ada, eve, sub) = (openpgp(10 * DAY, false), openpgp(10 * DAY, false), openpgp(10 * DAY, true));
    let (expired, living) = (ending(ada.clone(), 5 * DAY), ending(ada.clone(), 20 * DAY));
    let gone = revoked(ada.clone());
    let mut unbound = sub.clone();
    unbound.secret_subkeys[0].signatures = openpgp(10 * DAY, true).secret_subkeys[0].signatures.clone();
    let pen = Pen::default;
    for (name, maker, pen, trusted, expected) in [
        ("good", &ada, pen(), vec![&eve, &ada], Ok("(Ada <ada@liqui.example>)")),
        ("good by a subkey", &sub, pen(), vec![&sub], Ok("OpenPGP key")),
        ("good with sha512", &ada, Pen { hash: HashAlgorithm::Sha512, ..pen() }, vec![&ada], Ok("OpenPGP key")),
        ("a key that ends later", &ada, pen(), vec![&living], Ok("OpenPGP key")),
        ("foreign", &eve, pen(), vec![&ada], Err("key *.asc of Secret signers does not have")),
        ("an expired key", &ada, pen(), vec![&expired], Err("that key expired at")),
        ("an expired key, signed while it lived", &ada, Pen { age: 8 * DAY, ..pen() }, vec![&expired], Err("that key expired at")),
        ("a revoked key", &ada, pen(), vec![&gone], Err("that key was revoked")),
        ("before the key was made", &ada, Pen { age: 11 * DAY, ..pen() }, vec![&ada], Err("before the key")),
        ("from the future", &ada, Pen { age: DAY, is_ahead: true, ..pen() }, vec![&ada], Err("still to come")),
        ("an expired signature", &ada, Pen { age: 2 * DAY, lasts: Some(DAY), ..pen() }, vec![&ada], Err("the signature expired at")),
        ("a signature that still lasts", &ada, Pen { age: DAY, lasts: Some(2 * DAY), ..pen() }, vec![&ada], Ok("OpenPGP key")),
        ("a subkey of another key", &sub, pen(), vec![&unbound], Err("does not belong to its key")),
    ] {
        sign_commit(&place.repository, |payload| pgp(maker, &pen, payload));
        place.expect(name, VerifyMode::Head, &trust("", &trusted), expected).await;
        place.repository.git(&["commit", "--quiet", "--amend", "--no-edit"]);
    }
    sign_commit(&place.repository, |_| pgp(&ada, &pen(), b"another"));
    place.expect("tampered", VerifyMode::Head, &trust("", &[&ada]), Err("tampered")).await;
    let mut secret = trust("", &[&ada]);
    secret.openpgp.push(("mine.asc".to_owned(), "-----BEGIN PGP PRIVATE KEY BLOCK-----".to_owned()));
    place.expect("a private key", VerifyMode::Head, &secret, Err("mine.asc holds a private key")).await;
    secret.openpgp = vec![("mine.asc".to_owned(), "nothing".to_owned())];
    place.expect("no key", VerifyMode::Head, &secret, Err("mine.asc holds no OpenPGP public key")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_taken_only_when_it_is_signed_under_its_own_name() {
    let place = Place::new().await;
    let (ada, eve) = (key(), key());
    let list = trust(&allowed("ada", "", &ada), &[]);
    let by = |key: &russh::keys::PrivateKey| {
        let key = key.clone();
        move |payload: &[u8]| ssh(&key, "git", HashAlg::Sha512, payload)
    };
    let repository = &place.repository;
    repository.git(&["tag", "v1"]);
    place.expect("no annotated tag", VerifyMode::Tag, &list, Err("no annotated tag")).await;
    repository.git(&["tag", "--force", "--annotate", "--message", "x", "v1"]);
    place.expect("unsigned", VerifyMode::Tag, &list, Err("is not signed")).await;
    sign_tag(repository, "v1", "v1", by(&ada));
    place.expect("good", VerifyMode::Tag, &list, Ok("ada")).await;
    place.expect("good, on an unsigned commit", VerifyMode::TagAndHead, &list, Err("commit")).await;
    sign_tag(repository, "v1", "v1", by(&eve));
    place.expect("foreign", VerifyMode::Tag, &list, Err("does not have")).await;
    sign_tag(repository, "v1", "v1", |_| ssh(&ada, "git", HashAlg::Sha512, b"another"));
    place.expect("tampered", VerifyMode::Tag, &list, Err("tampered")).await;
    sign_tag(repository, "v1", "v0", by(&ada));
    place.expect("moved to one of another name", VerifyMode::Tag, &list, Err("under the name \"v0\"")).await;
    let commit = sign_commit(repository, by(&eve));
    sign_tag(repository, "v1", "v1", by(&ada));
    place.expect("a foreign commit", VerifyMode::TagAndHead, &list, Err(&format!("commit {commit} is signed by"))).await;
    repository.git(&["commit", "--quiet", "--amend", "--no-edit"]);
    sign_commit(repository, by(&ada));
    sign_tag(repository, "v1", "v1", by(&ada));
    place.expect("both", VerifyMode::TagAndHead, &list, Ok("ada")).await;
    repository.release(".", "6.6.6");
    repository.commit("Moved");
    repository.git(&["tag", "--force", "v1"]);
    place.expect("moved to an unsigned commit", VerifyMode::TagAndHead, &list, Err("no annotated tag")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_untrusted_revision_is_read_not_even_what_is_remembered() {
    let place = Place::new().await;
    let access = GitAccess { trust: Some(trust("", &[])), ..GitAccess::default() };
    // Remembered, because nobody asked for a signature.
    look(&place.mirrors, &source(&place.server.url()), &access).await.expect("the release is whole");
    place.expect("remembered", VerifyMode::Head, &trust("", &[]), Err("is not signed")).await;
    place.repository.write("release.yaml", "version: [");
    place.repository.push("Broken");
    place.expect("unreadable", VerifyMode::Head, &trust("", &[]), Err("is not signed")).await;
}

/// Runs a tool that has to be there, in a folder that is its home.
fn tool(home: &Path, name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name)
        .args(arguments)
        .env("GNUPGHOME", home)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name} can't be run ({error}): install it, this test checks what it makes"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_git_and_ssh_keygen_sign_is_understood() {
    let place = Place::new().await;
    let home = tempfile::tempdir().unwrap();
    for (kind, bits) in [("ed25519", "256"), ("ecdsa", "384"), ("rsa", "2048")] {
        let file = home.path().join(kind).display().to_string();
        tool(home.path(), "ssh-keygen", &["-q", "-t", kind, "-b", bits, "-N", "", "-C", "a comment", "-f", &file]);
        let public = fs::read_to_string(format!("{file}.pub")).unwrap();
        let list = trust(&format!("# who may\n*@liqui.example namespaces=\"git\" {public}"), &[]);
        let settings = ["-c", "gpg.format=ssh", "-c", &format!("user.signingkey={file}")].map(str::to_owned);
        let with = |arguments: &[&str]| {
            settings.iter().map(String::as_str).chain(arguments.iter().copied()).map(str::to_owned).collect::<Vec<_>>()
        };
        let git = |arguments: &[&str]| place.repository.git(&with(arguments).iter().map(String::as_str).collect::<Vec<_>>());
        git(&["commit", "--quiet", "--allow-empty", "-S", "-m", kind]);
        git(&["tag", "--force", "-s", "-m", kind, "v1"]);
        place.expect(kind, VerifyMode::Head, &list, Ok("*@liqui.example")).await;
        place.expect(kind, VerifyMode::TagAndHead, &list, Ok("*@liqui.example")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_git_and_gpg_sign_is_understood() {
    let place = Place::new().await;
    let home = tempfile::tempdir().unwrap();
    let gpg = |arguments: &[&str]| {
        tool(home.path(), "gpg", &[&["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""], arguments].concat())
    };
    gpg(&["--quick-generate-key", "Ada <ada@liqui.example>", "default", "default", "1y"]);
    let armored = gpg(&["--armor", "--export", "ada@liqui.example"]);
    let list = GitTrust { secret: "signers".to_owned(), allowed_signers: None, openpgp: vec![("ada.asc".to_owned(), armored)] };
    let wrapper = home.path().join("gpg.sh");
    fs::write(&wrapper, format!("#!/bin/sh\nGNUPGHOME='{}' exec gpg \"$@\"\n", home.path().display())).unwrap();
    fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = format!("gpg.program={}", wrapper.display());
    let git =
        |arguments: &[&str]| place.repository.git(&[&["-c", &program, "-c", "user.signingkey=ada@liqui.example"], arguments].concat());
    git(&["commit", "--quiet", "--allow-empty", "-S", "-m", "gpg"]);
    git(&["tag", "-s", "-m", "gpg", "v1"]);
    // The agent that gpg has started for this home, and no other.
    tool(home.path(), "gpgconf", &["--kill", "gpg-agent"]);
    place.expect("commit", VerifyMode::Head, &list, Ok("(Ada <ada@liqui.example>)")).await;
    place.expect("tag", VerifyMode::TagAndHead, &list, Ok("(Ada <ada@liqui.example>)")).await;
}
