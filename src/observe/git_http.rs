//! git over HTTP and HTTPS: reqwest and rustls, with the CA and the credentials of one Release.
//!
//! Credentials go only to the server that the Release names: where it redirects to another one, they stay behind.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use reqwest::{
    Certificate, Client, ClientBuilder, Response, StatusCode, Url, header,
    redirect::{Attempt, Policy},
};

use super::git_transport::{Failure, Flow, Limits, Line};
use crate::{access::GitAccess, secret::Sensitive};

/// Servers move repositories; a chain longer than this is a loop.
const MOST_REDIRECTS: usize = 3;
/// Some servers speak the protocol only to those who call themselves git.
const USER_AGENT: &str = concat!("git/2 (backout ", env!("CARGO_PKG_VERSION"), ")");
const LIST: &str = "/info/refs";
const LIST_QUERY: &str = "service=git-upload-pack";

/// The client of all fetches from servers that a public CA vouches for. Each new one would read all certificates of the machine again.
#[derive(Clone, Default)]
pub struct Public(Arc<OnceLock<Client>>);

impl Public {
    fn client(&self, limits: Limits) -> Result<Client, Failure> {
        if let Some(client) = self.0.get() {
            return Ok(client.clone());
        }
        let client = builder(limits).build().map_err(|error| Failure::Certificate(chain(&error)))?;
        Ok(self.0.get_or_init(|| client).clone())
    }
}

fn builder(limits: Limits) -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::custom(|attempt| if is_too_far(&attempt) { attempt.stop() } else { attempt.follow() }))
        .connect_timeout(limits.silence)
        .no_proxy()
}

/// One fetch's client.
pub struct Http {
    client: Client,
    user: Option<(String, Sensitive)>,
}

impl Http {
    pub fn new(access: &GitAccess, limits: Limits, public: &Public) -> Result<Self, Failure> {
        let client = match &access.ca {
            None => public.client(limits)?,
            Some(ca) => {
                let unreadable = |error| Failure::Certificate(format!("ca.crt is not PEM: {}", chain(&error)));
                let certificates = Certificate::from_pem_bundle(ca).map_err(unreadable)?;
                builder(limits).tls_certs_only(certificates).build().map_err(|error| Failure::Certificate(chain(&error)))?
            }
        };
        Ok(Self { client, user: access.user.clone() })
    }

    /// Asks for the list of references; notes in `moved` where the repository is if the server redirects.
    pub fn list(&self, line: &Line, url: &str, moved: &Mutex<Option<String>>) -> Result<Box<dyn Flow>, Failure> {
        let base = url.trim_end_matches('/');
        let request = self.authorised(self.client.get(format!("{base}{LIST}?{LIST_QUERY}")));
        let answer = line.wait(send(request))?;
        // A web page with status 200 is what many servers show for anything they don't know.
        if content_type(&answer) != "application/x-git-upload-pack-advertisement" {
            return Err(Failure::NoRepository);
        }
        *moved.lock().unwrap_or_else(PoisonError::into_inner) = elsewhere(base, answer.url());
        Ok(Box::new(Answer::new(answer)))
    }

    /// One question and its answer.
    pub fn exchange(&self, url: &str, moved: &Mutex<Option<String>>) -> Box<dyn Flow> {
        let moved = moved.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let base = url.trim_end_matches('/');
        let request = self.client.post(format!("{}/git-upload-pack", moved.as_deref().unwrap_or(base)));
        let request = match &moved {
            Some(other) if !same_server(base, other) => request,
            Some(_) | None => self.authorised(request),
        };
        let request = request
            .header(header::CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(header::ACCEPT, "application/x-git-upload-pack-result");
        Box::new(Exchange { request: Some(request), asked: Vec::new(), answer: None })
    }

    fn authorised(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.user {
            Some((user, password)) => request.basic_auth(user, Some(password.reveal())),
            None => request,
        }
    }
}

/// A chain that is too long, or a step from HTTPS down to HTTP, where anybody may answer.
fn is_too_far(attempt: &Attempt<'_>) -> bool {
    let is_downgrade = attempt.url().scheme() != "https" && attempt.previous().iter().any(|before| before.scheme() == "https");
    attempt.previous().len() > MOST_REDIRECTS || is_downgrade
}

/// The repository's URL, where the list of references came from another one than was asked for.
fn elsewhere(base: &str, answered: &Url) -> Option<String> {
    let mut answered = answered.clone();
    answered.set_query(None);
    answered.as_str().strip_suffix(LIST).filter(|other| *other != base).map(str::to_owned)
}

fn same_server(one: &str, other: &str) -> bool {
    match (Url::parse(one), Url::parse(other)) {
        (Ok(one), Ok(other)) => one.origin() == other.origin(),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

async fn send(request: reqwest::RequestBuilder) -> Result<Response, Failure> {
    let answer = request.send().await.map_err(|error| unanswered(&error))?;
    match answer.status() {
        StatusCode::OK => Ok(answer),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::Denied),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Failure::NoRepository),
        status if status.is_redirection() => Err(Failure::Unreachable("it redirects in a circle, or from https to http".to_owned())),
        other => Err(Failure::Unreachable(format!("it answered with status {other}"))),
    }
}

/// The body of an answer, as it comes.
struct Answer {
    answer: Response,
    left: Vec<u8>,
    at: usize,
}

impl Answer {
    fn new(answer: Response) -> Self {
        Self { answer, left: Vec::new(), at: 0 }
    }
}

impl Flow for Answer {
    fn read(&mut self, line: &Line, buffer: &mut [u8]) -> Result<usize, Failure> {
        while self.at >= self.left.len() {
            let chunk = line.wait(async { self.answer.chunk().await.map_err(|error| unanswered(&error)) })?;
            match chunk {
                Some(chunk) => (self.left, self.at) = (chunk.to_vec(), 0),
                None => return Ok(0),
            }
        }
        Ok(copy(&self.left, &mut self.at, buffer))
    }

    fn write(&mut self, _: &Line, _: &[u8]) -> Result<(), Failure> {
        Err(Failure::Unreachable("the list of references takes no question".to_owned()))
    }
}

/// Sent when the first byte of the answer is read.
struct Exchange {
    request: Option<reqwest::RequestBuilder>,
    asked: Vec<u8>,
    answer: Option<Answer>,
}

impl Flow for Exchange {
    fn read(&mut self, line: &Line, buffer: &mut [u8]) -> Result<usize, Failure> {
        if let Some(request) = self.request.take() {
            let answer = line.wait(send(request.body(std::mem::take(&mut self.asked))))?;
            self.answer = Some(Answer::new(answer));
        }
        match &mut self.answer {
            Some(answer) => answer.read(line, buffer),
            None => Err(Failure::Unreachable("the question was not answered".to_owned())),
        }
    }

    fn write(&mut self, _: &Line, bytes: &[u8]) -> Result<(), Failure> {
        self.asked.extend_from_slice(bytes);
        Ok(())
    }
}

/// Copies what fits from `bytes`, beginning at `at`, and moves `at` on.
pub fn copy(bytes: &[u8], at: &mut usize, buffer: &mut [u8]) -> usize {
    let rest = bytes.get(*at..).unwrap_or_default();
    let many = rest.len().min(buffer.len());
    for (to, from) in buffer.iter_mut().zip(rest) {
        *to = *from;
    }
    *at += many;
    many
}

fn content_type(answer: &Response) -> &str {
    answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn unanswered(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        Failure::TimedOut
    } else if causes(error).any(|cause| cause.is::<rustls::Error>()) {
        Failure::Certificate(chain(error))
    } else {
        Failure::Unreachable(chain(error))
    }
}

/// The innermost cause: the outer ones repeat the URL, which the caller names itself.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// An error and what is behind it. An IO error that wraps another names that one's cause as its own: it is opened.
fn causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_that_moved_is_followed_and_another_server_is_told_apart() {
        for (base, answered, moved, is_same) in [
            ("https://a.example/x.git", "https://a.example/x.git/info/refs?service=git-upload-pack", None, true),
            ("https://a.example/x.git", "https://a.example/y.git/info/refs?service=git-upload-pack", Some("https://a.example/y.git"), true),
            ("https://a.example/x", "https://b.example/x/info/refs", Some("https://b.example/x"), false),
            ("https://a.example/x", "https://a.example:444/x/info/refs", Some("https://a.example:444/x"), false),
            ("http://a.example/x", "https://a.example/x/info/refs", Some("https://a.example/x"), false),
        ] {
            let found = elsewhere(base, &Url::parse(answered).expect("the table holds URLs"));
            assert_eq!(found.as_deref(), moved, "{answered}");
            assert_eq!(found.is_none_or(|other| same_server(base, &other)), is_same, "{answered}");
        }
    }
}
