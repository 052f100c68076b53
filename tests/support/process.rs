//! An operator as a process of the test, as it is run outside a cluster. It reaches the API server through a proxy that keeps
//! account of its writes; its log is kept in a file. It ends with the test.

use std::{
    fs::File,
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
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
    task::JoinHandle,
    time::timeout,
};

use super::{bed::eventually, crashing::kubeconfig};

const LARGEST_REQUEST: usize = 8 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Process {
    child: Child,
    folder: tempfile::TempDir,
    writes: Writes,
    proxy: JoinHandle<()>,
}

/// Method and path of each write that the API server has accepted.
type Writes = Arc<Mutex<Vec<String>>>;

impl Process {
    /// Starts one with these arguments besides those that every operator of a test has.
    pub async fn start(client: &Client, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let config = folder.path().join("kubeconfig");
        std::fs::write(&config, kubeconfig(address)).expect("files can be written");
        let writes = Writes::default();
        let app = Router::new().fallback(forward).with_state((client.clone(), Arc::clone(&writes)));
        let proxy = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("the proxy serves");
        });
        let log = File::create(folder.path().join("log")).expect("files can be written");
        let child = Command::new(env!("CARGO_BIN_EXE_backout"))
            .args(["run", "--listen", "127.0.0.1:0", "--webhook-listen", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("data"))
            .args(arguments)
            .env("KUBECONFIG", &config)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the operator can be started");
        Self { child, folder, writes, proxy }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("the log can be read")
    }

    /// Waits until the log has this text.
    pub async fn says(&self, text: &str, deadline: Duration) {
        if timeout(deadline, eventually("the log says so", deadline * 2, async || self.log().contains(text).then_some(()))).await.is_err() {
            panic!("waited {} s in vain for {text:?} in\n{}", deadline.as_secs(), self.log());
        }
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
            let log = self.log();
            let line = log.lines().find(|line| line.contains(&format!("serving {what}")))?;
            let (_, rest) = line.split_once("Some(")?;
            rest.split_once(')')?.0.parse().ok()
        })
        .await
    }

    /// Sends a signal, as in `kill -STOP`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().expect("the operator runs").to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill can be run");
        assert!(sent.success());
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        match timeout(deadline, self.child.wait()).await {
            Ok(status) => status.expect("the operator can be waited for"),
            Err(_) => panic!("the operator did not end within {} s\n{}", deadline.as_secs(), self.log()),
        }
    }

    /// What it has written since this was asked last.
    pub fn written(&self) -> Vec<String> {
        std::mem::take(&mut *self.writes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.proxy.abort();
    }
}

async fn forward(State((client, writes)): State<(Client, Writes)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let write = (parts.method != Method::GET).then(|| format!("{} {}", parts.method, parts.uri.path()));
    let Ok(body) = to_bytes(body, LARGEST_REQUEST).await else { return StatusCode::BAD_REQUEST.into_response() };
    let Ok(answer) = client.send(Request::from_parts(parts, kube::client::Body::from(body.to_vec()))).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    if let Some(write) = write.filter(|_| answer.status().is_success()) {
        writes.lock().unwrap_or_else(PoisonError::into_inner).push(write);
    }
    answer.map(Body::new)
}
