//! git over HTTP: credentials go to the server that the Release names and to no other.

use backout::{access::GitAccess, secret::Sensitive};

use super::{
    http::{Manner, Server},
    limits, look, mirrors, refusal,
    repository::Repository,
    source,
};

fn secret() -> GitAccess {
    GitAccess { user: Some(("me".to_owned(), Sensitive::new("marker-0815"))), ..GitAccess::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_a_redirect_to_another_server() {
    let repository = Repository::with_release("1.0.0");
    let other = Server::new(&repository.root(), Manner::Serve).await;
    let first = Server::new(&repository.root(), Manner::Redirect(format!("http://{}", other.address))).await;
    let folder = tempfile::tempdir().unwrap();
    let seen = look(&mirrors(folder.path(), limits()), &source(&first.url()), &secret()).await.expect("it is redirected");
    assert_eq!(seen.content.version, "1.0.0");
    let asked = first.requests.lock().unwrap().clone();
    assert!(asked.iter().all(|(_, _, authorization)| authorization.is_some()), "{asked:?}");
    let asked = other.requests.lock().unwrap().clone();
    assert!(asked.iter().any(|(method, ..)| method == "POST"), "{asked:?}");
    assert!(asked.iter().all(|(_, _, authorization)| authorization.is_none()), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_of_redirects_ends() {
    let repository = Repository::with_release("1.0.0");
    let second = Server::new(&repository.root(), Manner::Serve).await;
    let first = Server::new(&repository.root(), Manner::Redirect(format!("http://{}", second.address))).await;
    second.behave(Manner::Redirect(format!("http://{}", first.address)));
    let folder = tempfile::tempdir().unwrap();
    let (reason, message) = refusal(&mirrors(folder.path(), limits()), &source(&first.url()), &secret()).await;
    assert_eq!(reason, "SourceUnavailable");
    assert!(message.contains("circle"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_named_and_not_shown() {
    let repository = Repository::with_release("1.0.0");
    let server = Server::new(&repository.root(), Manner::Ask("Basic bWU6cmlnaHQ=")).await;
    let folder = tempfile::tempdir().unwrap();
    let mirrors = mirrors(folder.path(), limits());
    let (reason, message) = refusal(&mirrors, &source(&server.url()), &secret()).await;
    assert_eq!(reason, "SourceAccessDenied");
    assert!(!message.contains("marker-0815"), "{message}");
    let right = GitAccess { user: Some(("me".to_owned(), Sensitive::new("right"))), ..GitAccess::default() };
    assert_eq!(look(&mirrors, &source(&server.url()), &right).await.expect("the password is right").content.version, "1.0.0");
}
