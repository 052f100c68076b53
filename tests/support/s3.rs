//! A server of S3 in this process, over TLS, that checks every signature.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use s3s::{
    S3Result,
    access::{S3Access, S3AccessContext},
    auth::SimpleAuth,
    s3_error,
    service::S3ServiceBuilder,
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

pub const ACCESS_KEY: &str = "only-for-this-test";
pub const SECRET_KEY: &str = "and-so-is-this-secret";
const BUCKET: &str = "backups";

/// What is asked of the server, by S3's names, and what it refuses.
#[derive(Clone, Debug, Default)]
pub struct Operations {
    seen: Arc<Mutex<Vec<String>>>,
    denied: Arc<Mutex<Option<&'static str>>>,
    held: watch::Sender<Option<&'static str>>,
}

impl Operations {
    pub fn count(&self, name: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| *seen == name).count()
    }

    /// From now on.
    pub fn deny(&self, name: Option<&'static str>) {
        *self.denied.lock().unwrap() = name;
    }

    /// Leaves it without an answer, until something else is held.
    pub fn hold(&self, name: Option<&'static str>) {
        self.held.send_replace(name);
    }
}

#[async_trait::async_trait]
impl S3Access for Operations {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let name = context.s3_op().name();
        self.seen.lock().unwrap().push(name.to_owned());
        self.held.subscribe().wait_for(|held| *held != Some(name)).await.expect("the sender is here");
        if context.credentials().is_none() || *self.denied.lock().unwrap() == Some(name) {
            return Err(s3_error!(AccessDenied, "this message is not shown"));
        }
        Ok(())
    }
}

/// A server with one bucket.
pub struct Server {
    folder: TempDir,
    address: SocketAddr,
    pub operations: Operations,
    /// PEM.
    pub ca: Vec<u8>,
    task: JoinHandle<()>,
}

impl Server {
    /// For this process alone.
    pub async fn new() -> Self {
        Self::at("127.0.0.1").await
    }

    /// At an address of this machine.
    pub async fn at(host: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::create_dir_all(folder.path().join("data").join(BUCKET)).expect("a folder can be made");
        let operations = Operations::default();
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder.path().join("data")).expect("the folder is there"));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        service.set_access(operations.clone());
        let service = service.build();
        let (ca, tls) = certificate(&folder, host);
        let listener = TcpListener::bind((host, 0)).await.expect("the address has a free port");
        let address = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("connections can be taken");
                let (tls, service) = (tls.clone(), service.clone());
                tokio::spawn(async move {
                    // Whoever does not trust it goes away.
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { folder, address, operations, ca, task }
    }

    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/team/shop")
    }

    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Everything that it takes to get in.
    pub fn keys(&self) -> BTreeMap<String, Vec<u8>> {
        self.texts().into_iter().map(|(key, value)| (key, value.into_bytes())).collect()
    }

    /// The same for a Secret.
    pub fn texts(&self) -> BTreeMap<String, String> {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("ca.crt", String::from_utf8_lossy(&self.ca).into_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("tls.crt")
    }

    /// Every file of the store.
    pub fn list(&self) -> Vec<String> {
        let (mut folders, mut files) = (vec![self.files()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("it can be listed") {
                let path = entry.expect("it can be listed").path();
                if path.is_dir() { folders.push(path) } else { files.push(path.display().to_string()) }
            }
        }
        files
    }

    /// Where the files of the store lie on this machine.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("data").join(BUCKET).join("team/shop")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate for `host` that vouches for itself.
fn certificate(folder: &TempDir, host: &str) -> (Vec<u8>, TlsAcceptor) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=s3"])
        .args(["-addext", &format!("subjectAltName=IP:{host}"), "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "tls.key", "-out", "tls.crt"])
        .current_dir(folder.path())
        .output()
        .expect("openssl can be run: these tests need it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let pem = std::fs::read(folder.path().join("tls.crt")).expect("it was written");
    let certificate = CertificateDer::from_pem_slice(&pem).expect("it is PEM");
    let key = PrivateKeyDer::from_pem_file(folder.path().join("tls.key")).expect("it is PEM");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).expect("they belong together");
    (pem, TlsAcceptor::from(Arc::new(tls)))
}
