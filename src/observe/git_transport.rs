//! How libgit2 reaches a server: subtransports of our own for HTTP, HTTPS and SSH, which share what is here.
//!
//! libgit2's own ways need OpenSSL, which in a static binary is built without threads, so that two fetches at once corrupt
//! each other's memory. Here each fetch brings a [`Line`] of its own: the credentials and what is trusted by its Release, the
//! deadlines, and the bytes that may still come. It only asks and reads, so a fetch that was cut off is simply begun again.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    io::{self, Read, Write},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use git2::{
    ErrorClass, ErrorCode,
    transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport},
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{git_http, git_ssh};

/// What a fetch may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that one fetch may receive: a larger repository fills the operator's volume.
    pub repository: u64,
    /// A server that takes no connection, or says nothing in the middle of an answer, for this time is away.
    pub silence: Duration,
    /// One fetch in all: bounds how long a server that sends one byte after the other holds a thread.
    pub fetch: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { repository: 1 << 30, silence: Duration::from_secs(20), fetch: Duration::from_secs(10 * 60) }
    }
}

/// Why a server did not give what was asked for. libgit2 passes on no more than a text, so it is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or a broken one.
    Unreachable(String),
    /// Silent, or not done in time.
    TimedOut,
    /// The server knows no such user, password or key.
    Denied,
    /// The server's certificate, or what `ca.crt` holds.
    Certificate(String),
    /// The server's SSH key.
    HostKey(String),
    /// Our own SSH key, or the list of known hosts, can't be read.
    Key(String),
    NoRepository,
    TooLarge,
    /// The operator stops.
    Stopped,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable(_) => "no connection",
            Self::TimedOut => "silence",
            Self::Denied => "refused credentials",
            Self::Certificate(_) | Self::HostKey(_) => "not trusted",
            Self::Key(_) => "no key",
            Self::NoRepository => "no repository",
            Self::TooLarge => "too large",
            Self::Stopped => "stopped",
        })
    }
}

/// How a server is reached.
pub enum Reach {
    Http(git_http::Http),
    Ssh(git_ssh::Ssh),
}

/// One fetch's way to its server.
pub struct Line {
    reach: Reach,
    /// Drives what is asynchronous while libgit2 blocks its thread.
    runtime: Handle,
    limits: Limits,
    until: Instant,
    stop: CancellationToken,
    received: Mutex<u64>,
    failure: Mutex<Option<Failure>>,
}

impl Line {
    /// `stop` ends a fetch that is under way.
    pub fn new(reach: Reach, runtime: Handle, limits: Limits, stop: CancellationToken) -> Self {
        let until = Instant::now() + limits.fetch;
        Self { reach, runtime, limits, until, stop, received: Mutex::new(0), failure: Mutex::new(None) }
    }

    /// Runs `work` with libgit2's network going through this line, and says why it failed if that was the server's doing.
    /// Only on a thread that may block.
    pub fn during<T>(self, work: impl FnOnce() -> Result<T, git2::Error>) -> Result<T, (git2::Error, Option<Failure>)> {
        static REGISTERED: OnceLock<Result<(), String>> = OnceLock::new();
        REGISTERED.get_or_init(register).clone().map_err(|error| (git2::Error::from_str(&error), None))?;
        let line = Arc::new(self);
        CURRENT.set(Some(Arc::clone(&line)));
        let result = work();
        CURRENT.set(None);
        result.map_err(|error| (error, line.failure.lock().unwrap_or_else(PoisonError::into_inner).take()))
    }

    /// Waits for one exchange with the server: at most as long as it may be silent, and as this fetch may still take.
    pub fn wait<T>(&self, exchange: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let patience = self.limits.silence.min(self.until.saturating_duration_since(Instant::now()));
        self.runtime.block_on(async {
            tokio::select! {
                () = self.stop.cancelled() => Err(Failure::Stopped),
                result = tokio::time::timeout(patience, exchange) => result.unwrap_or(Err(Failure::TimedOut)),
            }
        })
    }

    /// Counts what came.
    fn receive(&self, bytes: usize) -> Result<(), Failure> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        *received = received.saturating_add(bytes as u64);
        if *received > self.limits.repository { Err(Failure::TooLarge) } else { Ok(()) }
    }

    /// Keeps the first failure: what comes after it is only its consequence.
    fn fail(&self, failure: Failure) -> String {
        let text = failure.to_string();
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        text
    }
}

/// One direction after the other: what is asked, and what the server answers.
pub trait Flow: Send {
    /// 0: the answer is over.
    fn read(&mut self, line: &Line, buffer: &mut [u8]) -> Result<usize, Failure>;
    fn write(&mut self, line: &Line, bytes: &[u8]) -> Result<(), Failure>;
}

thread_local! {
    /// libgit2 calls back on the thread that fetches, and hands its callback nothing but a URL.
    static CURRENT: RefCell<Option<Arc<Line>>> = const { RefCell::new(None) };
}

#[expect(unsafe_code, reason = "git2 has no safe way to register a transport")]
fn register() -> Result<(), String> {
    // Over HTTP each question is a request of its own; over SSH one conversation is held.
    for (scheme, is_stateless) in [("http", true), ("https", true), ("ssh", false)] {
        // SAFETY: the list of transports must not be changed while it is used: this runs once, and every use comes after it.
        unsafe { git2::transport::register(scheme, move |remote| Transport::smart(remote, is_stateless, Subtransport::default())) }
            .map_err(|error| error.message().to_owned())?;
    }
    Ok(())
}

#[derive(Default)]
struct Subtransport {
    /// Where the server said that the repository is: what comes after the list of references goes there.
    moved: Arc<Mutex<Option<String>>>,
}

impl SmartSubtransport for Subtransport {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let line = CURRENT.with_borrow(Clone::clone).ok_or_else(|| git2::Error::from_str("no fetch is under way"))?;
        let flow = match (&line.reach, action) {
            (Reach::Http(http), Service::UploadPackLs) => http.list(&line, url, &self.moved),
            (Reach::Http(http), Service::UploadPack) => Ok(http.exchange(url, &self.moved)),
            // libgit2 goes on with the first one's stream for the second.
            (Reach::Ssh(ssh), Service::UploadPackLs | Service::UploadPack) => ssh.converse(&line),
            (Reach::Http(_) | Reach::Ssh(_), Service::ReceivePackLs | Service::ReceivePack) => {
                return Err(git2::Error::from_str("a source is only read"));
            }
        };
        match flow {
            Ok(flow) => Ok(Box::new(Stream { line, flow })),
            Err(failure) => Err(git2::Error::new(ErrorCode::GenericError, ErrorClass::Net, line.fail(failure))),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// A flow as libgit2 takes it.
struct Stream {
    line: Arc<Line>,
    flow: Box<dyn Flow>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.flow.read(&self.line, buffer).and_then(|read| self.line.receive(read).map(|()| read));
        read.map_err(|failure| io::Error::other(self.line.fail(failure)))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flow.write(&self.line, bytes).map(|()| bytes.len()).map_err(|failure| io::Error::other(self.line.fail(failure)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
