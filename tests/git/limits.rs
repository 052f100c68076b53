//! What stands in a repository is written by others: whatever is too much or leads outside is refused by name.

use std::{
    os::unix::{ffi::OsStrExt, fs::symlink},
    time::{Duration, Instant},
};

use backout::observe::git::Limits;

use super::{
    http::{Manner, Server},
    limits, look, mirrors, refusal,
    repository::Repository,
    source,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_outside_or_is_no_text_is_refused_by_name() {
    let repository = Repository::new();
    repository.release("good", "1.0.0");
    repository.write("good/not-utf8.yaml", [0xff]);
    let link = |target: &str, path: &str| {
        let path = repository.work().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    };
    let release = |folder: &str, migrations: &str| {
        repository.write(&format!("{folder}/release.yaml"), format!("version: 1.0.0\nmigrations: {migrations}\n"));
    };
    link("good", "link");
    link("../good/release.yaml", "linked-manifest/release.yaml");
    release("outside", "../good/migrations");
    release("absolute", "/etc");
    release("control", "\"a\\0b\"");
    release("missing", "none");
    release("file", "release.yaml");
    release("linked-folder", "migrations");
    link("../good/migrations", "linked-folder/migrations");
    release("linked-script", "migrations");
    link("/etc/passwd", "linked-script/migrations/0001_a.up.sql");
    release("binary", "migrations");
    repository.write("binary/migrations/0001_a.up.sql", [0xff, 0xfe]);
    release("nul", "migrations");
    repository.write("nul/migrations/0001_a.up.sql", "SELECT 1;\0");
    release("name", "migrations");
    let odd = std::ffi::OsStr::from_bytes(b"0001_\xff.up.sql");
    std::fs::create_dir_all(repository.work().join("name/migrations")).unwrap();
    std::fs::write(repository.work().join("name/migrations").join(odd), "SELECT 1;").unwrap();
    repository.write("binary-manifest/release.yaml", [0xff, b'\n']);
    repository.write("large/release.yaml", format!("version: 1.0.0\n#{}", "x".repeat(600 * 1024)));
    release("many", "migrations");
    for index in 0..4_097 {
        repository.write(&format!("many/migrations/{index:05}_a.up.sql"), "");
    }
    release("much", "migrations");
    for index in 0..3 {
        repository.write(&format!("much/migrations/{index:05}_a.up.sql"), format!("{index}{}", "x".repeat(400 * 1024)));
    }
    repository.push("everything");
    let submodule = repository.head();
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{submodule},sub")]);
    repository.git(&["commit", "--quiet", "--message", "a submodule"]);
    repository.publish();

    let server = Server::new(&repository.root(), Manner::Serve).await;
    let folder = tempfile::tempdir().unwrap();
    let mirrors = mirrors(folder.path(), limits());
    for (path, reason, words) in [
        ("good/../good", "SourceNotFound", "leaves the folder"),
        ("/good", "SourceNotFound", "absolute"),
        ("good\0", "SourceNotFound", "control character"),
        ("nowhere", "SourceNotFound", "no such folder"),
        ("link", "SourceNotFound", "symbolic link"),
        ("sub", "SourceNotFound", "submodule"),
        ("good/release.yaml", "SourceNotFound", "through a file"),
        ("linked-manifest", "InvalidRelease", "\"release.yaml\" is not a file"),
        ("outside", "InvalidRelease", "\"../good/migrations\" for its migrations: it leaves"),
        ("absolute", "InvalidRelease", "\"/etc\" for its migrations: it is absolute"),
        ("control", "InvalidRelease", "control character"),
        ("missing", "InvalidRelease", "\"none\" for its migrations: there is no such folder"),
        ("file", "InvalidRelease", "through a file"),
        ("linked-folder", "InvalidRelease", "symbolic link"),
        ("linked-script", "InvalidRelease", "\"0001_a.up.sql\" is not a file"),
        ("binary", "InvalidRelease", "\"0001_a.up.sql\" is not UTF-8 text"),
        ("nul", "InvalidRelease", "\"0001_a.up.sql\" is not UTF-8 text"),
        ("name", "InvalidRelease", "is not UTF-8 text"),
        ("binary-manifest", "InvalidRelease", "\"release.yaml\" is not UTF-8 text"),
        ("large", "InvalidRelease", "\"release.yaml\" has more than 524288 bytes"),
        ("many", "InvalidRelease", "more than 4096 migration files"),
        ("much", "InvalidRelease", "come to more than 921600 bytes"),
    ] {
        let mut source = source(&server.url());
        source.path = path.to_owned();
        let (found, message) = refusal(&mirrors, &source, &Default::default()).await;
        assert_eq!(found, reason, "{path:?}: {message}");
        assert!(message.contains(words), "{path:?}: {message}");
    }
    let mut source = source(&server.url());
    source.path = "./good/".to_owned();
    assert_eq!(look(&mirrors, &source, &Default::default()).await.expect("nothing is wrong there").content.version, "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn yaml_that_explodes_is_refused_and_soon() {
    let repository = Repository::new();
    let mut bomb = "version: &a0 'xxxxxxxxxxxxxxxx'\nsecrets:\n- &b0 [*a0, *a0]\n".to_owned();
    for level in 1..40 {
        let before = level - 1;
        bomb.push_str(&format!("- &b{level} [*b{before}, *b{before}, *b{before}, *b{before}, *b{before}, *b{before}, *b{before}]\n"));
    }
    repository.write("aliases/release.yaml", bomb);
    let many: String = (0..30_000).map(|index| format!("  K{index}: *v\n")).collect();
    repository.write("long/release.yaml", format!("version: &v '{}'\nconfig:\n{many}", "x".repeat(4096)));
    repository.write("deep/release.yaml", format!("version: {}", "[".repeat(200_000)));
    repository.write("deeper/release.yaml", format!("version: 1\nconfig: {}", "{a: ".repeat(100_000)));
    repository.push("bombs");
    let server = Server::new(&repository.root(), Manner::Serve).await;
    let folder = tempfile::tempdir().unwrap();
    let mirrors = mirrors(folder.path(), limits());
    for path in ["aliases", "long", "deep", "deeper"] {
        let mut source = source(&server.url());
        source.path = path.to_owned();
        let begun = Instant::now();
        let (reason, message) = refusal(&mirrors, &source, &Default::default()).await;
        assert_eq!(reason, "InvalidRelease", "{path}: {message}");
        assert!(message.len() < 400, "{path}: {message}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{path} took {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_above_the_limit_is_refused_and_not_received_again_and_again() {
    let repository = Repository::with_release("1.0.0");
    // Not to be compressed: each line is another number.
    let data: String = (0_u64..40_000).map(|index| format!("{:x}\n", index.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    repository.write("data", data);
    repository.push("large");
    let server = Server::new(&repository.root(), Manner::Serve).await;
    let folder = tempfile::tempdir().unwrap();
    let small = mirrors(folder.path(), Limits { repository: 64 * 1024, ..limits() });
    let (reason, message) = refusal(&small, &source(&server.url()), &Default::default()).await;
    assert_eq!(reason, "SourceTooLarge");
    assert!(message.contains("65536") && message.contains("BACKOUT_MAX_REPOSITORY"), "{message}");
    let asked = server.requests.lock().unwrap().len();
    let within = backout::observe::git::Freshness::Within(Duration::ZERO);
    let again = small.resolve(&source(&server.url()), Default::default(), within, jiff::Timestamp::now()).await;
    assert_eq!(again.expect_err("it is still too large").reason(), "SourceTooLarge");
    assert_eq!(server.requests.lock().unwrap().len(), asked, "it was received again");
    let large = mirrors(folder.path(), Limits { repository: 10 << 20, ..limits() });
    assert_eq!(look(&large, &source(&server.url()), &Default::default()).await.expect("it fits").content.version, "1.0.0");
}
