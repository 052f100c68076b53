//! A mirror that was damaged on disk is fetched anew instead of failing for ever.

use std::{
    fs,
    path::{Path, PathBuf},
};

use backout::observe::git::Freshness;
use jiff::Timestamp;

use super::{
    http::{Manner, Server},
    limits, look, mirrors,
    repository::Repository,
    source,
};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn with_end(folder: &Path, end: &str) -> PathBuf {
    let found = files(folder).into_iter().find(|path| path.to_string_lossy().ends_with(end));
    found.unwrap_or_else(|| panic!("the mirror has no file that ends in {end}"))
}

fn overwrite(path: &Path, bytes: &[u8]) {
    // git makes its packs read-only.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// What can happen to a mirror when the machine goes down, or the disk is not what it was.
type Damage = fn(&Path);

fn damages() -> Vec<(&'static str, Damage)> {
    vec![
        ("a truncated pack", |folder| {
            let pack = with_end(folder, ".pack");
            let bytes = fs::read(&pack).unwrap();
            overwrite(&pack, &bytes[..bytes.len() / 2]);
        }),
        ("an empty pack", |folder| overwrite(&with_end(folder, ".pack"), b"")),
        ("a pack that is gone", |folder| fs::remove_file(with_end(folder, ".pack")).unwrap()),
        ("a flipped byte", |folder| {
            let pack = with_end(folder, ".pack");
            let mut bytes = fs::read(&pack).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            overwrite(&pack, &bytes);
        }),
        ("an index that is gone", |folder| fs::remove_file(with_end(folder, ".idx")).unwrap()),
        ("an index of zeros", |folder| overwrite(&with_end(folder, ".idx"), &[0; 2000])),
        ("an empty branch", |folder| fs::write(with_end(folder, "refs/heads/main"), "").unwrap()),
        ("a branch of nothing", |folder| fs::write(with_end(folder, "refs/heads/main"), format!("{:040x}\n", 7)).unwrap()),
        ("an empty HEAD", |folder| fs::write(with_end(folder, "/HEAD"), "").unwrap()),
        ("no HEAD", |folder| fs::remove_file(with_end(folder, "/HEAD")).unwrap()),
        ("a config that can't be read", |folder| fs::write(with_end(folder, "/config"), "[core\n").unwrap()),
        ("locks of a fetch that was killed", |folder| {
            let branch = with_end(folder, "refs/heads/main");
            fs::write(branch.with_extension("lock"), "").unwrap();
            fs::write(branch.parent().unwrap().join("../../config.lock"), "").unwrap();
            fs::write(branch.parent().unwrap().join("../../packed-refs.lock"), "").unwrap();
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mirror_is_fetched_anew_by_the_operator_that_runs_and_by_the_next_one() {
    let repository = Repository::with_release("1.0.0");
    let server = Server::new(&repository.root(), Manner::Serve).await;
    let source = source(&server.url());
    for (name, damage) in damages() {
        let folder = tempfile::tempdir().unwrap();
        let first = mirrors(folder.path(), limits());
        look(&first, &source, &Default::default()).await.expect("the server answers");
        damage(folder.path());
        // A lock is only known to be stale by the next operator.
        if !name.starts_with("locks") {
            let seen = look(&first, &source, &Default::default()).await;
            assert_eq!(seen.unwrap_or_else(|error| panic!("{name}: {error}")).content.version, "1.0.0", "{name}");
            damage(folder.path());
        }
        drop(first);
        let next = mirrors(folder.path(), limits());
        repository.release(".", "1.1.0");
        repository.push("newer");
        let seen = look(&next, &source, &Default::default()).await;
        assert_eq!(seen.unwrap_or_else(|error| panic!("{name}: {error}")).content.version, "1.1.0", "{name}");
        let again = next.resolve(&source, Default::default(), Freshness::Within(super::PATIENCE), Timestamp::now()).await;
        assert_eq!(again.unwrap_or_else(|error| panic!("{name}: {error}")).content.version, "1.1.0", "{name}");
        repository.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
        repository.publish();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_pack_of_a_fetch_that_was_killed_is_cleared_away() {
    let repository = Repository::with_release("1.0.0");
    let server = Server::new(&repository.root(), Manner::Serve).await;
    let folder = tempfile::tempdir().unwrap();
    look(&mirrors(folder.path(), limits()), &source(&server.url()), &Default::default()).await.expect("the server answers");
    let packs = with_end(folder.path(), ".pack").parent().unwrap().to_owned();
    fs::write(packs.join("pack_0815"), "half").unwrap();
    look(&mirrors(folder.path(), limits()), &source(&server.url()), &Default::default()).await.expect("the server answers");
    assert!(!packs.join("pack_0815").exists());
    assert!(files(&packs).iter().any(|path| path.extension().is_some_and(|end| end == "pack")));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_credential_never_reads_what_the_first_one_fetched() {
    let repository = Repository::with_release("1.0.0");
    let server = Server::new(&repository.root(), Manner::Ask("Basic bWU6cmlnaHQ=")).await;
    let folder = tempfile::tempdir().unwrap();
    let mirrors = mirrors(folder.path(), limits());
    let access = |password: &str| backout::access::GitAccess {
        user: Some(("me".to_owned(), backout::secret::Sensitive::new(password))),
        ..Default::default()
    };
    look(&mirrors, &source(&server.url()), &access("right")).await.expect("the password is right");
    let within = Freshness::Within(super::PATIENCE);
    let seen = mirrors.resolve(&source(&server.url()), access("wrong"), within, Timestamp::now()).await;
    assert_eq!(seen.expect_err("the password is wrong").reason(), "SourceAccessDenied");
}
