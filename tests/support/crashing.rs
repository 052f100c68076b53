//! An operator that dies or stands still at a chosen instant, and is started again.
//!
//! It runs as a process of the test and reaches the API server through a proxy, which sees each of its writes. At a [`Trap`]
//! the write is kept from the API server, or let happen and its answer kept from the operator: the worst moments, since the
//! operator can't know which. Nothing of the product knows about this, and no trap depends on time. Only what it writes in the
//! test's own namespace counts: it works on the Releases of all others too.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
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
use backout::api::operation::{Kind, Operation, OperationState, StepName, StepState};
use kube::Client;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::{bed::eventually, place::Place};

/// A request to the API server is never larger.
const LARGEST_REQUEST: usize = 8 * 1024 * 1024;

pub struct Crashing {
    shared: Arc<Shared>,
    proxy: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

/// The instant at which something happens to the operator.
#[derive(Clone, Debug)]
pub struct Trap {
    /// Of the operations with a larger id than this.
    pub after: u64,
    pub kind: Kind,
    pub write: Write,
    pub when: When,
}

/// A write that the operator makes.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// The operation is written down.
    Opened,
    Started(StepName),
    Done(StepName),
    /// The operation's end is written down.
    Closed,
    /// Something other than status: the method, and a part of the path.
    Effect(Method, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It never reaches the API server.
    Before,
    /// It is accepted, but the operator does not get the answer.
    After,
}

/// What happens at the trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// SIGKILL. It stays dead until [`Crashing::run`].
    Kill,
    /// The request waits until what [`Sprung::wait`] returns is dropped.
    Hold,
}

/// A trap that is set; dropped, it is taken away.
#[must_use = "a trap that is dropped is taken away"]
pub struct Sprung {
    trap: Trap,
    told: oneshot::Receiver<Held>,
}

/// A request that waits. Dropped, it goes on.
pub struct Held {
    _release: oneshot::Sender<()>,
}

impl Sprung {
    /// Waits until the operator has come to the trap.
    pub async fn wait(self, deadline: Duration) -> Held {
        let Self { trap, told } = self;
        match timeout(deadline, told).await {
            Ok(Ok(held)) => held,
            Ok(Err(_)) | Err(_) => panic!("waited {} s in vain for the operator to come to {trap:?}", deadline.as_secs()),
        }
    }
}

struct Armed {
    trap: Trap,
    then: Then,
    tell: oneshot::Sender<Held>,
}

struct Shared {
    client: Client,
    /// As it stands in the path of a request.
    namespace: String,
    kubeconfig: PathBuf,
    data: PathBuf,
    arguments: Vec<String>,
    child: tokio::sync::Mutex<Option<Child>>,
    traps: Mutex<Vec<Armed>>,
    crashes: AtomicUsize,
    armed: AtomicBool,
}

impl Crashing {
    pub async fn start(place: &Place) -> Self {
        Self::start_with(place, &["--leader-elect", "false"]).await
    }

    /// With more arguments for `backout run`.
    pub async fn start_with(place: &Place, arguments: &[&str]) -> Self {
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
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            child: tokio::sync::Mutex::new(None),
            traps: Mutex::default(),
            crashes: AtomicUsize::new(0),
            armed: AtomicBool::new(false),
        });
        let app = Router::new().fallback(forward).with_state(Arc::clone(&shared));
        let proxy = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("the proxy serves");
        });
        shared.restart().await;
        Self { shared, proxy, _folder: folder }
    }

    /// Folder for backups, as a store URL.
    pub fn store(&self) -> String {
        format!("file://{}", self.backups().display())
    }

    /// The same as a path.
    pub fn backups(&self) -> PathBuf {
        self.shared.data.join("backups")
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
        let (tell, told) = oneshot::channel();
        self.shared.traps().push(Armed { trap: trap.clone(), then, tell });
        Sprung { trap, told }
    }

    /// Starts it, or starts it again.
    pub async fn run(&self) {
        self.shared.restart().await;
    }

    pub async fn kill(&self) {
        self.shared.kill().await;
    }

    /// SIGSTOP: it stands still, with all its connections open.
    pub async fn freeze(&self) {
        self.shared.signal("STOP").await;
    }

    /// SIGCONT.
    pub async fn thaw(&self) {
        self.shared.signal("CONT").await;
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&self, deadline: Duration) -> ExitStatus {
        let mut child = self.shared.child.lock().await;
        let child = child.as_mut().expect("the operator was started");
        let ended = timeout(deadline, child.wait()).await;
        ended.unwrap_or_else(|_| panic!("the operator did not end within {} s", deadline.as_secs())).expect("it can be waited for")
    }

    /// Waits until it has logged this.
    pub async fn says(&self, text: &str, deadline: Duration) {
        eventually(&format!("the operator says {text:?}"), deadline, async || self.log().contains(text).then_some(())).await;
    }

    /// The end of what it has logged.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.shared.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub async fn stop(self) {
        self.shared.kill().await;
        self.proxy.abort();
    }
}

/// For a process that reaches the API server through a proxy without credentials of its own.
pub fn kubeconfig(address: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: proxy\nclusters: [{{name: proxy, cluster: {{server: 'http://{address}'}}}}]\n\
         users: [{{name: proxy, user: {{}}}}]\ncontexts: [{{name: proxy, context: {{cluster: proxy, user: proxy}}}}]\n"
    )
}

impl Shared {
    fn traps(&self) -> std::sync::MutexGuard<'_, Vec<Armed>> {
        self.traps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    async fn kill(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await.expect("the operator can be killed");
        }
    }

    async fn signal(&self, name: &str) {
        let child = self.child.lock().await;
        let id = child.as_ref().and_then(Child::id).expect("the operator runs").to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await.expect("kill can be run");
        assert!(status.success(), "SIG{name} to the operator");
    }

    async fn restart(&self) {
        self.kill().await;
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log can be written");
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
        traps.retain(|armed| !armed.tell.is_closed());
        if traps.is_empty() {
            return None;
        }
        let operation = writes_status(request).then(|| operation(body)).flatten();
        let index = traps.iter().position(|armed| armed.trap.when == when && armed.trap.is_at(request, operation.as_ref()))?;
        Some(traps.remove(index))
    }

    /// Does what the trap says; returns where the request may go on.
    async fn spring(self: &Arc<Self>, armed: Armed) {
        let (release, released) = oneshot::channel();
        let held = Held { _release: release };
        match armed.then {
            Then::Kill => {
                // Apart from this request: it ends with the operator whose connection it came by.
                let shared = Arc::clone(self);
                tokio::spawn(async move {
                    shared.kill().await;
                    drop(armed.tell.send(held));
                });
                std::future::pending().await
            }
            Then::Hold => {
                drop(armed.tell.send(held));
                drop(released.await);
            }
        }
    }
}

impl Trap {
    fn is_at(&self, request: &Parts, operation: Option<&Operation>) -> bool {
        if let Write::Effect(method, part) = &self.write {
            return request.method == *method && request.uri.path().contains(part) && !request.uri.path().ends_with("/status");
        }
        let Some(operation) = operation.filter(|operation| operation.kind == self.kind && operation.id > self.after) else { return false };
        let stands = |name: StepName, state: StepState| operation.steps.iter().any(|step| step.name == name && step.state == state);
        match &self.write {
            Write::Opened => operation.steps.iter().all(|step| step.state == StepState::Pending),
            Write::Started(name) => stands(*name, StepState::Started),
            Write::Done(name) => stands(*name, StepState::Done),
            Write::Closed => operation.state != OperationState::Running,
            Write::Effect(..) => false,
        }
    }
}

fn writes_status(request: &Parts) -> bool {
    request.method == Method::PATCH && request.uri.path().contains("/releases/") && request.uri.path().ends_with("/status")
}

/// The operation as the operator writes it down.
fn operation(body: &[u8]) -> Option<Operation> {
    let patch: serde_json::Value = serde_json::from_slice(body).ok()?;
    serde_json::from_value(patch.get("status")?.get("operation")?.clone()).ok()
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let seen = parts.clone();
    let Ok(body) = to_bytes(body, LARGEST_REQUEST).await else { return StatusCode::BAD_REQUEST.into_response() };
    if let Some(armed) = shared.sprung(&seen, &body, When::Before) {
        shared.spring(armed).await;
    }
    let answer = match shared.client.send(Request::from_parts(parts, kube::client::Body::from(body.to_vec()))).await {
        Ok(answer) => answer,
        Err(error) => return (StatusCode::BAD_GATEWAY, format!("{error:?}")).into_response(),
    };
    if answer.status().is_success() {
        if let Some(armed) = shared.sprung(&seen, &body, When::After) {
            shared.spring(armed).await;
        } else if shared.concerns(&seen) && writes_status(&seen) && shared.armed.load(Ordering::SeqCst) {
            shared.crashes.fetch_add(1, Ordering::SeqCst);
            let again = Arc::clone(&shared);
            tokio::spawn(async move { again.restart().await });
            return std::future::pending().await;
        }
    }
    answer.map(Body::new)
}
