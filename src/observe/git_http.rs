//! How libgit2 reaches a server over HTTP and HTTPS: a subtransport on reqwest and rustls.
//!
//! libgit2's own way needs OpenSSL, takes CAs only for the whole process, and in a static binary OpenSSL is built without
//! threads, so that two fetches at once corrupt each other's memory. Here each fetch brings a client of its own, with the
//! CA, credentials and deadlines of its Release.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    sync::OnceLock,
    time::Duration,
};

use git2::{
    ErrorClass, ErrorCode,
    transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport},
};
use reqwest::{Certificate, Client, Response, StatusCode, header, redirect::Policy};
use tokio::runtime::Handle;

use crate::{access::GitAccess, secret::Sensitive};

/// A server that does not take a connection, or is silent in the middle of an answer, for this time is away.
const SILENCE: Duration = Duration::from_secs(20);
/// Servers move repositories; a chain longer than this is a loop.
const MOST_REDIRECTS: usize = 3;
/// Some servers speak the protocol only to those who call themselves git.
const USER_AGENT: &str = concat!("git/2 (backout ", env!("CARGO_PKG_VERSION"), ")");

/// What one fetch needs to reach its server.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    user: Option<(String, Sensitive)>,
    runtime: Handle,
}

impl Connection {
    /// `runtime` drives the requests while libgit2 blocks its thread.
    pub fn new(access: &GitAccess, runtime: Handle) -> Result<Self, String> {
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::limited(MOST_REDIRECTS))
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE)
            .no_proxy();
        if let Some(ca) = &access.ca {
            let certificates = Certificate::from_pem_bundle(ca).map_err(|error| format!("ca.crt is not PEM: {}", chain(&error)))?;
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|error| chain(&error))?;
        Ok(Self { client, user: access.user.clone(), runtime })
    }

    /// Runs `work` with libgit2's HTTP going through this connection. Only on a thread that may block.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> Result<T, git2::Error> {
        static REGISTERED: OnceLock<Result<(), String>> = OnceLock::new();
        REGISTERED.get_or_init(register).clone().map_err(|error| git2::Error::from_str(&error))?;
        CURRENT.set(Some(self));
        let result = work();
        CURRENT.set(None);
        Ok(result)
    }
}

thread_local! {
    /// libgit2 calls back on the thread that fetches, and hands its callback nothing but a URL.
    static CURRENT: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

#[expect(unsafe_code, reason = "git2 has no safe way to register a transport")]
fn register() -> Result<(), String> {
    for scheme in ["http", "https"] {
        // SAFETY: the list of transports must not be changed while it is used: this runs once, and every use comes after it.
        unsafe { git2::transport::register(scheme, |remote| Transport::smart(remote, true, Http)) }
            .map_err(|error| error.message().to_owned())?;
    }
    Ok(())
}

struct Http;

impl SmartSubtransport for Http {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let connection = CURRENT.with_borrow(Clone::clone).ok_or_else(|| git2::Error::from_str("no fetch is under way"))?;
        let base = url.trim_end_matches('/');
        match action {
            Service::UploadPackLs => {
                let request = connection.client.get(format!("{base}/info/refs?service=git-upload-pack"));
                let answer = connection.send(request)?;
                // A web page with status 200 is what many servers show for anything they don't know.
                if content_type(&answer) != "application/x-git-upload-pack-advertisement" {
                    return Err(failure(ErrorCode::NotFound, "the answer is not a git server's"));
                }
                Ok(Box::new(Answer { connection, answer, left: Vec::new(), at: 0 }))
            }
            Service::UploadPack => {
                Ok(Box::new(Exchange { connection, url: format!("{base}/git-upload-pack"), asked: Vec::new(), answer: None }))
            }
            Service::ReceivePackLs | Service::ReceivePack => Err(git2::Error::from_str("a source is only read")),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

impl Connection {
    fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, git2::Error> {
        let request = match &self.user {
            Some((user, password)) => request.basic_auth(user, Some(password.reveal())),
            None => request,
        };
        let answer = self.runtime.block_on(request.send()).map_err(|error| unanswered(&error))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(failure(ErrorCode::Auth, "the server refused the credentials")),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(failure(ErrorCode::NotFound, "the server has no such repository")),
            other => Err(failure(ErrorCode::GenericError, &format!("the server answered with status {other}"))),
        }
    }
}

/// The body of an answer, as it comes.
struct Answer {
    connection: Connection,
    answer: Response,
    left: Vec<u8>,
    at: usize,
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.left.len() {
            match self.connection.runtime.block_on(self.answer.chunk()).map_err(|error| io::Error::other(chain(&error)))? {
                Some(chunk) => (self.left, self.at) = (chunk.to_vec(), 0),
                None => return Ok(0),
            }
        }
        let mut rest = self.left.get(self.at..).unwrap_or_default();
        let read = rest.read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

impl Write for Answer {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("the list of references takes no question"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One question and its answer: sent when the first byte of the answer is read.
struct Exchange {
    connection: Connection,
    url: String,
    asked: Vec<u8>,
    answer: Option<Answer>,
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.asked.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(answer) = &mut self.answer {
            return answer.read(buffer);
        }
        let request = self
            .connection
            .client
            .post(&self.url)
            .header(header::CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(header::ACCEPT, "application/x-git-upload-pack-result")
            .body(std::mem::take(&mut self.asked));
        let answer = self.connection.send(request).map_err(|error| io::Error::other(error.message().to_owned()))?;
        let answer = self.answer.insert(Answer { connection: self.connection.clone(), answer, left: Vec::new(), at: 0 });
        answer.read(buffer)
    }
}

fn content_type(answer: &Response) -> &str {
    answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn unanswered(error: &reqwest::Error) -> git2::Error {
    let untrusted = causes(error).any(|cause| cause.is::<rustls::Error>());
    let (code, class) = if untrusted { (ErrorCode::Certificate, ErrorClass::Ssl) } else { (ErrorCode::GenericError, ErrorClass::Net) };
    git2::Error::new(code, class, chain(error))
}

fn failure(code: ErrorCode, message: &str) -> git2::Error {
    git2::Error::new(code, ErrorClass::Http, message)
}

/// The innermost cause: the outer ones repeat the URL, which the caller names itself.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// An error and what is behind it. An IO error that wraps another names that one's cause as its own: it is opened.
fn causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    })
}
