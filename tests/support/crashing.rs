//! An operator that is killed with SIGKILL after every status write, and started again.
//!
//! It runs as a process of the test and reaches the API server through a proxy. The proxy lets a write to a Release's
//! status happen, then kills the operator before the answer reaches it: the worst moment, since the write has happened and
//! the operator can't know. Nothing of the product knows about this.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use kube::Client;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::Mutex,
    task::JoinHandle,
};

/// A request to the API server is never larger.
const LARGEST_REQUEST: usize = 8 * 1024 * 1024;

pub struct Crashing {
    shared: Arc<Shared>,
    proxy: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

struct Shared {
    client: Client,
    kubeconfig: PathBuf,
    data: PathBuf,
    child: Mutex<Option<Child>>,
    crashes: AtomicUsize,
    armed: AtomicBool,
}

impl Crashing {
    pub async fn start(client: Client) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self::kubeconfig(address)).expect("files can be written");
        let shared = Arc::new(Shared {
            client,
            kubeconfig,
            data: folder.path().join("data"),
            child: Mutex::new(None),
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
        format!("file://{}", self.shared.data.join("backups").display())
    }

    /// From now on every status write is followed by a crash.
    pub fn arm(&self) {
        self.shared.armed.store(true, Ordering::SeqCst);
    }

    /// No more crashes; returns how many there were.
    pub fn disarm(&self) -> usize {
        self.shared.armed.store(false, Ordering::SeqCst);
        self.shared.crashes.swap(0, Ordering::SeqCst)
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
    async fn kill(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await.expect("the operator can be killed");
        }
    }

    async fn restart(&self) {
        self.kill().await;
        let child = Command::new(env!("CARGO_BIN_EXE_backout"))
            .args(["run", "--listen", "127.0.0.1:0", "--webhook-listen", "127.0.0.1:0", "--leader-elect", "false", "--data"])
            .arg(&self.data)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the operator can be started");
        *self.child.lock().await = Some(child);
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let writes_status = parts.method == Method::PATCH && parts.uri.path().contains("/releases/") && parts.uri.path().ends_with("/status");
    let Ok(body) = to_bytes(body, LARGEST_REQUEST).await else { return StatusCode::BAD_REQUEST.into_response() };
    let Ok(answer) = shared.client.send(Request::from_parts(parts, kube::client::Body::from(body.to_vec()))).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    if writes_status && answer.status().is_success() && shared.armed.load(Ordering::SeqCst) {
        shared.crashes.fetch_add(1, Ordering::SeqCst);
        // Apart from this request: it ends with the operator whose connection it came by.
        let again = Arc::clone(&shared);
        tokio::spawn(async move { again.restart().await });
        return std::future::pending().await;
    }
    answer.map(Body::new)
}
