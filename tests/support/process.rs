//! An operator as a process of the test, as it is run outside a cluster; it ends with the test.
//!
//! It reaches the API server through a proxy, which keeps account of its requests, and at a [`Trap`] lets it die or stand still. Nothing
//! of the product knows about this. Only what it writes in the test's own namespace springs traps: it works on the Releases of all
//! others too.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use kube::Client;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use super::{
    bed::eventually,
    place::Place,
    trap::{Armed, Sprung, Then, Trap, When, writes_status},
};

/// Arguments of an operator that stands for no election.
pub const ALONE: [&str; 2] = ["--leader-elect", "false"];
/// A request to the API server is never larger.
const LARGEST_REQUEST: usize = 8 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Process {
    shared: Arc<Shared>,
    proxy: JoinHandle<()>,
    folder: tempfile::TempDir,
}

/// Something that the operator asks the API server, for the Release of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// How a Deployment stands.
    ForDeployment,
    /// Anything, while the API server is away.
    InVain,
}

struct Shared {
    client: Client,
    /// As it stands in the path of a request.
    namespace: String,
    kubeconfig: PathBuf,
    data: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    child: tokio::sync::Mutex<Option<Child>>,
    traps: Mutex<Vec<Armed>>,
    /// Method and path of each write that the API server has accepted.
    written: Mutex<Vec<String>>,
    crashes: AtomicUsize,
    armed: AtomicBool,
    looks: AtomicUsize,
    in_vain: AtomicUsize,
    /// Bytes of the log that are of earlier lives.
    earlier: AtomicUsize,
}

impl Process {
    /// Starts one with these arguments besides those that every operator of a test has.
    pub async fn start(place: &Place, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self::kubeconfig(address)).expect("files can be written");
        let shared = Arc::new(Shared {
            client: place.client.clone(),
            namespace: format!("/namespaces/{}/", place.namespace),
            kubeconfig,
            data: folder.path().join("data"),
            log: folder.path().join("log"),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            child: tokio::sync::Mutex::new(None),
            traps: Mutex::default(),
            written: Mutex::default(),
            crashes: AtomicUsize::new(0),
            armed: AtomicBool::new(false),
            looks: AtomicUsize::new(0),
            in_vain: AtomicUsize::new(0),
            earlier: AtomicUsize::new(0),
        });
        let app = Router::new().fallback(forward).with_state(Arc::clone(&shared));
        let proxy = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("the proxy serves");
        });
        shared.restart().await;
        Self { shared, proxy, folder }
    }

    /// Folder for backups, as a store URL.
    pub fn store(&self) -> String {
        format!("file://{}", self.backups().display())
    }

    /// The same as a path, where no argument names another.
    pub fn backups(&self) -> PathBuf {
        self.folder.path().join("data/backups")
    }

    /// From now on every write of a Release's status is followed by a crash.
    pub fn arm(&self) {
        self.shared.armed.store(true, Ordering::SeqCst);
    }

    /// No more crashes; returns how many there were.
    pub fn disarm(&self) -> usize {
        self.shared.armed.store(false, Ordering::SeqCst);
        self.shared.crashes.swap(0, Ordering::SeqCst)
    }

    /// Sets a trap. Several can be set at the same time; each springs once.
    pub fn trap(&self, trap: Trap, then: Then) -> Sprung {
        let (armed, sprung) = trap.set(then);
        self.shared.traps().push(armed);
        sprung
    }

    /// Starts it, or starts it again.
    pub async fn run(&self) {
        self.shared.restart().await;
    }

    pub async fn kill(&self) {
        self.shared.kill().await;
    }

    /// Sends a signal, as in `kill -STOP`.
    pub async fn signal(&self, name: &str) {
        let child = self.shared.child.lock().await;
        let id = child.as_ref().and_then(Child::id).expect("the operator runs").to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await.expect("kill can be run");
        assert!(status.success(), "SIG{name} to the operator");
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&self, deadline: Duration) -> ExitStatus {
        let mut child = self.shared.child.lock().await;
        let child = child.as_mut().expect("the operator was started");
        match timeout(deadline, child.wait()).await {
            Ok(status) => status.expect("the operator can be waited for"),
            Err(_) => panic!("the operator did not end within {} s\n{}", deadline.as_secs(), self.log()),
        }
    }

    /// What it has logged, over all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.shared.log).expect("the log can be read")
    }

    /// The same of this life.
    fn said(&self) -> String {
        self.log().get(self.shared.earlier.load(Ordering::SeqCst)..).unwrap_or_default().to_owned()
    }

    /// Waits until it has logged this text, in this life.
    pub async fn says(&self, text: &str, deadline: Duration) {
        if timeout(deadline, eventually("the log says so", deadline * 2, async || self.said().contains(text).then_some(()))).await.is_err()
        {
            panic!("waited {} s in vain for {text:?} in\n{}", deadline.as_secs(), self.log());
        }
    }

    /// Waits until it has asked so many times more.
    pub async fn asks(&self, what: Asks, times: usize, deadline: Duration) {
        let count = match what {
            Asks::ForDeployment => &self.shared.looks,
            Asks::InVain => &self.shared.in_vain,
        };
        let enough = count.load(Ordering::SeqCst) + times;
        let is_enough = async || (count.load(Ordering::SeqCst) >= enough).then_some(());
        eventually(&format!("the operator asks {what:?} {times} times"), deadline, is_enough).await;
    }

    /// Waits until the watch caches are primed.
    pub async fn ready(&self) {
        let url = format!("http://{}/readyz", self.listening("probes and metrics").await);
        eventually("the operator is ready", PATIENCE, async || {
            reqwest::get(&url).await.ok().filter(|answer| answer.status().is_success()).map(drop)
        })
        .await;
    }

    /// The address on which it serves `what`.
    pub async fn listening(&self, what: &str) -> SocketAddr {
        eventually("the operator listens", PATIENCE, async || {
            let said = self.said();
            let line = said.lines().find(|line| line.contains(&format!("serving {what}")))?;
            let (_, rest) = line.split_once("Some(")?;
            rest.split_once(')')?.0.parse().ok()
        })
        .await
    }

    /// What it has written since this was asked last.
    pub fn written(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.written))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.proxy.abort();
    }
}

/// For a process that reaches the API server through a proxy without credentials of its own.
fn kubeconfig(address: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: proxy\nclusters: [{{name: proxy, cluster: {{server: 'http://{address}'}}}}]\n\
         users: [{{name: proxy, user: {{}}}}]\ncontexts: [{{name: proxy, context: {{cluster: proxy, user: proxy}}}}]\n"
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn traps(&self) -> MutexGuard<'_, Vec<Armed>> {
        lock(&self.traps)
    }

    async fn kill(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await.expect("the operator can be killed");
        }
    }

    async fn restart(&self) {
        self.kill().await;
        let earlier = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        self.earlier.store(usize::try_from(earlier).unwrap_or(usize::MAX), Ordering::SeqCst);
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a log can be written");
        let child = Command::new(env!("CARGO_BIN_EXE_backout"))
            .args(["run", "--listen", "127.0.0.1:0", "--webhook-listen", "127.0.0.1:0", "--data"])
            .arg(&self.data)
            .args(&self.arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the operator can be started");
        *self.child.lock().await = Some(child);
    }

    fn concerns(&self, request: &Parts) -> bool {
        request.uri.path().contains(&self.namespace)
    }

    /// The trap that this request springs, if any.
    fn sprung(&self, request: &Parts, body: &[u8], when: When) -> Option<Armed> {
        if !self.concerns(request) {
            return None;
        }
        let mut traps = self.traps();
        traps.retain(|armed| !armed.is_taken_away());
        let index = traps.iter().position(|armed| armed.is_at(request, body, when))?;
        Some(traps.remove(index))
    }

    /// Does what the trap says; returns where the request may go on.
    async fn spring(self: &Arc<Self>, armed: Armed) {
        match armed.then {
            Then::Kill => {
                // Apart from this request: it ends with the operator whose connection it came by.
                let shared = Arc::clone(self);
                tokio::spawn(async move {
                    shared.kill().await;
                    drop(armed.spring());
                });
                std::future::pending().await
            }
            Then::Hold => armed.spring().await,
        }
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let seen = parts.clone();
    let Ok(body) = to_bytes(body, LARGEST_REQUEST).await else { return StatusCode::BAD_REQUEST.into_response() };
    if let Some(armed) = shared.sprung(&seen, &body, When::Before) {
        shared.spring(armed).await;
    }
    let concerns = shared.concerns(&seen);
    let answer = match shared.client.send(Request::from_parts(parts, kube::client::Body::from(body.to_vec()))).await {
        Ok(answer) => answer,
        Err(error) => {
            shared.in_vain.fetch_add(usize::from(concerns), Ordering::SeqCst);
            return (StatusCode::BAD_GATEWAY, format!("{error:?}")).into_response();
        }
    };
    let looks = concerns && seen.method == Method::GET && seen.uri.path().contains("/deployments/");
    shared.looks.fetch_add(usize::from(looks), Ordering::SeqCst);
    if answer.status().is_success() {
        if seen.method != Method::GET {
            lock(&shared.written).push(format!("{} {}", seen.method, seen.uri.path()));
        }
        if let Some(armed) = shared.sprung(&seen, &body, When::After) {
            shared.spring(armed).await;
        } else if concerns && writes_status(&seen) && shared.armed.load(Ordering::SeqCst) {
            shared.crashes.fetch_add(1, Ordering::SeqCst);
            let again = Arc::clone(&shared);
            tokio::spawn(async move { again.restart().await });
            return std::future::pending().await;
        }
    }
    answer.map(Body::new)
}
