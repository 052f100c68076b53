//! A release is recognised by its content, whatever the way in which git came back to it.

use std::sync::Arc;

use backout::observe::git::Mirrors;

use super::{
    http::{Manner, Server},
    limits, look, mirrors,
    repository::Repository,
    source,
};

struct Place {
    repository: Repository,
    server: Server,
    mirrors: Mirrors,
    _folder: tempfile::TempDir,
    good: String,
    bad: String,
}

impl Place {
    /// 1.0.0 is good, 1.1.0 with another migration is bad; git stands at the bad one.
    async fn new() -> Self {
        let repository = Repository::with_release("1.0.0");
        let server = Server::new(&repository.root(), Manner::Serve).await;
        let folder = tempfile::tempdir().unwrap();
        let mut place = Self {
            repository,
            server,
            mirrors: mirrors(folder.path(), limits()),
            _folder: folder,
            good: String::new(),
            bad: String::new(),
        };
        place.good = place.digest().await;
        place.change();
        place.repository.push("Bad change");
        place.bad = place.digest().await;
        assert_ne!(place.good, place.bad);
        place
    }

    fn change(&self) {
        self.repository.release(".", "1.1.0");
        self.repository.write("migrations/0002_b.up.sql", "CREATE TABLE b (id INT);\n");
    }

    async fn seen(&self) -> (String, String) {
        let seen = look(&self.mirrors, &source(&self.server.url()), &Default::default()).await.expect("the release is whole");
        (seen.content.digest(), seen.cause)
    }

    async fn digest(&self) -> String {
        self.seen().await.0
    }

    fn git(&self, arguments: &[&str]) {
        self.repository.git(arguments);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_is_the_old_release_and_a_revert_of_the_revert_the_new_one() {
    let place = Place::new().await;
    let bad = place.repository.head();
    place.git(&["revert", "--no-edit", "HEAD"]);
    place.repository.publish();
    let (digest, cause) = place.seen().await;
    assert_eq!(digest, place.good);
    assert_eq!(cause, format!("\"Revert \"Bad change\"\" by Liqui Developer, reverts {} \"Bad change\"", &bad[..7]));
    let revert = place.repository.head();
    place.git(&["revert", "--no-edit", "HEAD"]);
    place.repository.publish();
    let (digest, cause) = place.seen().await;
    assert_eq!(digest, place.bad);
    assert!(cause.ends_with(&format!("reverts {} \"Revert \"Bad change\"\"", &revert[..7])), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_commits_that_are_reverted_as_one_are_the_old_release() {
    let place = Place::new().await;
    place.repository.write("migrations/0003_c.up.sql", "CREATE TABLE c (id INT);\n");
    place.repository.push("Another");
    assert_ne!(place.digest().await, place.bad);
    place.git(&["revert", "--no-edit", "HEAD", "HEAD~1"]);
    place.git(&["reset", "--quiet", "--soft", "HEAD~2"]);
    place.repository.push("Undo both (#12)\n\nBackout-Cause: Guests can't pay");
    let (digest, cause) = place.seen().await;
    assert_eq!(digest, place.good);
    assert_eq!(cause, "\"Guests can't pay\" by Liqui Developer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_reset_and_pushed_by_force_is_the_old_release() {
    let place = Place::new().await;
    place.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    place.repository.publish();
    assert_eq!(place.digest().await, place.good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_by_hand_is_the_old_release() {
    let place = Place::new().await;
    std::fs::remove_file(place.repository.work().join("migrations/0002_b.up.sql")).unwrap();
    // Written anew by a person: other white space and another order say the same.
    place.repository.write("release.yaml", "# as before\nmigrations: ./migrations/\nconfig:\n  VERSION: \"1.0.0\"\nversion: 1.0.0\n");
    place.repository.push("Back to what worked");
    assert_eq!(place.digest().await, place.good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_is_reverted_is_the_old_release() {
    let place = Place::new().await;
    place.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    place.git(&["switch", "--quiet", "--create", "feature"]);
    place.change();
    place.repository.commit("Feature");
    place.git(&["switch", "--quiet", "main"]);
    place.git(&["merge", "--quiet", "--no-ff", "--no-edit", "feature"]);
    place.repository.publish();
    assert_eq!(place.digest().await, place.bad);
    place.git(&["revert", "--no-edit", "--mainline", "1", "HEAD"]);
    place.repository.publish();
    assert_eq!(place.digest().await, place.good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_of_one_service_leaves_the_other_as_it_is() {
    let repository = Repository::new();
    repository.release("api", "1.0.0");
    repository.release("web", "1.0.0");
    repository.push("first");
    let server = Server::new(&repository.root(), Manner::Serve).await;
    let folder = tempfile::tempdir().unwrap();
    let mirrors = mirrors(folder.path(), limits());
    let (mut api, mut web) = (source(&server.url()), source(&server.url()));
    (api.path, web.path) = ("api".to_owned(), "web/".to_owned());
    let access = Default::default();
    let good = look(&mirrors, &api, &access).await.unwrap().content.digest();
    repository.release("api", "1.1.0");
    repository.push("api only");
    repository.release("web", "1.1.0");
    repository.push("web only");
    assert_ne!(look(&mirrors, &api, &access).await.unwrap().content.digest(), good);
    let before = look(&mirrors, &web, &access).await.unwrap().content;
    repository.git(&["revert", "--no-edit", "HEAD~1"]);
    repository.publish();
    assert_eq!(look(&mirrors, &api, &access).await.unwrap().content.digest(), good);
    let after = look(&mirrors, &web, &access).await.unwrap().content;
    assert!(Arc::ptr_eq(&before, &after), "the other service's folder did not change, but was read again");
}
