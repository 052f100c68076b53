//! A git server over HTTP in this process, and one that goes wrong in a chosen way.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command, task::JoinHandle};

/// What the server does with a request.
#[derive(Clone)]
pub enum Manner {
    /// Answers.
    Serve,
    /// Sends whoever asks to the same path on another server.
    Redirect(String),
    /// Lists the references, and hangs in the middle of the pack.
    HangInPack,
    /// Takes the connection and says nothing.
    Hang,
    /// Answers only those who know this password.
    Ask(&'static str),
}

/// Method, path and `Authorization` of each.
type Requests = Arc<Mutex<Vec<(String, String, Option<String>)>>>;

pub struct Server {
    pub address: SocketAddr,
    pub requests: Requests,
    manner: Arc<Mutex<Manner>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shop {
    root: PathBuf,
    manner: Arc<Mutex<Manner>>,
    requests: Requests,
}

impl Server {
    pub async fn new(root: &Path, manner: Manner) -> Self {
        let (requests, manner) = (Requests::default(), Arc::new(Mutex::new(manner)));
        let shop = Shop { root: root.to_owned(), manner: Arc::clone(&manner), requests: Arc::clone(&requests) };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().fallback(answer).with_state(shop);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("the server serves until it is dropped") });
        Self { address, requests, manner, task }
    }

    /// From now on.
    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    pub fn url(&self) -> String {
        format!("http://{}/deploy.git", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shop): State<Shop>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get(header::AUTHORIZATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    shop.requests.lock().unwrap().push((request.method().to_string(), path.clone(), authorization.clone()));
    let manner = shop.manner.lock().unwrap().clone();
    match manner {
        Manner::Serve => {}
        Manner::Redirect(other) => {
            let place = format!("{other}{}", request.uri().path_and_query().map_or(path.as_str(), |path| path.as_str()));
            return (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, place)]).into_response();
        }
        Manner::HangInPack if path.ends_with("/git-upload-pack") => {
            let body = futures::StreamExt::chain(
                futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"0008NAK\n")) }),
                futures::stream::pending(),
            );
            return ([(header::CONTENT_TYPE, "application/x-git-upload-pack-result")], Body::from_stream(body)).into_response();
        }
        Manner::HangInPack => {}
        Manner::Hang => return futures::future::pending().await,
        Manner::Ask(password) if authorization.as_deref() == Some(password) => {}
        Manner::Ask(_) => return StatusCode::UNAUTHORIZED.into_response(),
    }
    let (service, is_list) = match path.strip_suffix("/info/refs") {
        Some(repository) => (repository.to_owned(), true),
        None => (path.trim_end_matches("/git-upload-pack").to_owned(), false),
    };
    let dir = shop.root.join(service.trim_start_matches('/'));
    if !dir.join("HEAD").exists() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let asked = axum::body::to_bytes(request.into_body(), usize::MAX).await.expect("a question ends");
    let mut command = Command::new("git");
    command.args(["upload-pack", "--stateless-rpc"]);
    if is_list {
        command.arg("--advertise-refs");
    }
    let mut child = command
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("git can be run: these tests need it");
    let mut stdin = child.stdin.take().expect("it was asked for");
    // upload-pack may have heard enough before it has read everything.
    let _ = stdin.write_all(&asked).await;
    drop(stdin);
    let said = child.wait_with_output().await.expect("git ends").stdout;
    let (kind, body) = if is_list {
        ("application/x-git-upload-pack-advertisement", [b"001e# service=git-upload-pack\n0000".as_slice(), &said].concat())
    } else {
        ("application/x-git-upload-pack-result", said)
    };
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}
