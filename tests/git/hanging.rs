//! A server that hangs delays the Releases of its own repository, and no others.

use std::time::{Duration, Instant};

use backout::observe::git::{Error, Freshness, Limits};
use futures::StreamExt;
use jiff::Timestamp;

use super::{
    http::{Manner, Server},
    limits, look, mirrors, refusal,
    repository::Repository,
    source,
};

/// As many places for reconciles as the operator has.
const PLACES: usize = 8;
const HANGING: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_servers_that_hang_do_not_keep_a_good_one_waiting() {
    let repository = Repository::with_release("1.0.0");
    let mut servers = Vec::new();
    for index in 0..HANGING {
        servers.push(Server::new(&repository.root(), if index % 2 == 0 { Manner::Hang } else { Manner::HangInPack }).await);
    }
    let good = Server::new(&repository.root(), Manner::Serve).await;
    let folder = tempfile::tempdir().unwrap();
    // Nothing is given up while the test runs: it is not the deadline that lets the good one through.
    let mirrors = mirrors(folder.path(), Limits { silence: Duration::from_secs(600), ..limits() });
    let urls: Vec<String> = servers.iter().map(Server::url).chain([good.url()]).collect();
    for round in 1..=2 {
        let begun = Instant::now();
        let resolved = futures::stream::iter(&urls)
            .map(|url| {
                let (mirrors, source) = (&mirrors, source(url));
                async move { mirrors.resolve(&source, Default::default(), Freshness::Within(Duration::ZERO), Timestamp::now()).await }
            })
            .buffered(PLACES)
            .collect::<Vec<_>>()
            .await;
        for (result, url) in resolved.iter().zip(&urls) {
            match result {
                Ok(resolved) => assert_eq!((url, resolved.content.version.as_str()), (&good.url(), "1.0.0")),
                Err(Error::UnderWay { .. }) => assert_ne!(*url, good.url()),
                Err(error) => panic!("{url}: {error}"),
            }
        }
        // The first time each of them takes one place for the patience of 2 s.
        assert!(begun.elapsed() < Duration::from_secs(if round == 1 { 20 } else { 5 }), "round {round} took {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_in_the_middle_of_a_fetch_is_named_and_found_again_when_it_answers() {
    let repository = Repository::with_release("1.0.0");
    let server = Server::new(&repository.root(), Manner::HangInPack).await;
    let folder = tempfile::tempdir().unwrap();
    let mirrors = mirrors(folder.path(), Limits { silence: Duration::from_secs(2), ..limits() });
    let (reason, message) = refusal(&mirrors, &source(&server.url()), &Default::default()).await;
    assert_eq!(reason, "SourceUnavailable");
    assert!(message.contains(&server.url()) && message.contains("silent for 2 s"), "{message}");
    server.behave(Manner::Serve);
    let (source, access) = (source(&server.url()), Default::default());
    // What is in trouble is waited for only for a moment, in which the old answer stands.
    let found = async || look(&mirrors, &source, &access).await.ok();
    assert_eq!(crate::support::bed::eventually("the server is found again", super::PATIENCE, found).await.content.version, "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_last_stands_while_a_look_takes_long_and_not_once_it_failed() {
    let repository = Repository::with_release("1.0.0");
    let server = Server::new(&repository.root(), Manner::Serve).await;
    let folder = tempfile::tempdir().unwrap();
    let mirrors = mirrors(folder.path(), Limits { silence: Duration::from_secs(4), ..limits() });
    let source = source(&server.url());
    look(&mirrors, &source, &Default::default()).await.expect("the server answers");
    server.behave(Manner::Hang);
    let resolve = || mirrors.resolve(&source, Default::default(), Freshness::Within(Duration::ZERO), Timestamp::now());
    assert_eq!(resolve().await.expect("the look is still under way").content.version, "1.0.0");
    let error = crate::support::bed::eventually("the look has failed", super::PATIENCE, async || resolve().await.err()).await;
    assert_eq!(error.reason(), "SourceUnavailable");
    server.behave(Manner::Serve);
    crate::support::bed::eventually("the server is found again", super::PATIENCE, async || resolve().await.ok()).await;
}

#[test]
fn a_fetch_that_hangs_does_not_keep_the_operator_from_ending() {
    let repository = Repository::with_release("1.0.0");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let server = Server::new(&repository.root(), Manner::Hang).await;
        let mirrors = mirrors(folder.path(), Limits { silence: Duration::from_secs(600), ..limits() });
        let seen = mirrors.resolve(&source(&server.url()), Default::default(), Freshness::Now, Timestamp::now()).await;
        assert!(matches!(seen, Err(Error::UnderWay { .. })), "{seen:?}");
    });
    // Waits for every thread that blocks.
    let begun = Instant::now();
    drop(runtime);
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}
