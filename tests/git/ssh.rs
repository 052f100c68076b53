//! An SSH server in this process that runs the local `git upload-pack`, and keys made for one test.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use backout::{
    access::{GitAccess, SshAccess},
    secret::Sensitive,
};
use russh::{
    Channel, ChannelId,
    keys::{
        Algorithm, PrivateKey, PublicKey,
        key::safe_rng,
        ssh_key::{Cipher, Kdf, LineEnding},
    },
    server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
    task::JoinHandle,
};

/// What the server does once somebody has logged in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Serve,
    Hang,
}

pub struct Server {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shop {
    root: PathBuf,
    manner: Manner,
    allowed: PublicKey,
}

struct Visit {
    shop: Shop,
    channel: Option<Channel<Msg>>,
}

pub fn key() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("Ed25519 keys can be made")
}

impl Server {
    pub async fn new(root: &Path, hosts: Vec<PrivateKey>, allowed: &PrivateKey, manner: Manner) -> Self {
        let config = Arc::new(server::Config {
            keys: hosts,
            auth_rejection_time: std::time::Duration::ZERO,
            auth_rejection_time_initial: Some(std::time::Duration::ZERO),
            ..server::Config::default()
        });
        let shop = Shop { root: root.to_owned(), manner, allowed: allowed.public_key().clone() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (config, visit) = (Arc::clone(&config), Visit { shop: shop.clone(), channel: None });
                tokio::spawn(async move {
                    // A client that does not like our key ends the connection: that is no failure of the server.
                    if let Ok(session) = server::run_stream(config, socket, visit).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { address, task }
    }

    pub fn url(&self) -> String {
        format!("ssh://git@{}/deploy.git", self.address)
    }

    /// As known_hosts calls it.
    pub fn name(&self) -> String {
        format!("[{}]:{}", self.address.ip(), self.address.port())
    }

    pub fn known(&self, host: &PrivateKey) -> String {
        format!("{} {}\n", self.name(), host.public_key().to_openssh().expect("a key can be written"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl server::Handler for Visit {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let is_known = user == "git" && key.public_key.key_data() == self.shop.allowed.key_data();
        Ok(if is_known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(&mut self, channel: Channel<Msg>, reply: ChannelOpenHandle, _: &mut Session) -> Result<(), Self::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        if self.shop.manner == Manner::Hang {
            return Ok(());
        }
        session.channel_success(id)?;
        let command = String::from_utf8_lossy(command).into_owned();
        let path = command.strip_prefix("git-upload-pack '/").and_then(|rest| rest.strip_suffix('\'')).expect("only git asks").to_owned();
        let channel = self.channel.take().expect("a channel was opened");
        let (dir, handle) = (self.shop.root.join(path), session.handle());
        tokio::spawn(async move {
            let mut child = Command::new("git")
                .args(["upload-pack"])
                .arg(dir)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .expect("git can be run: these tests need it");
            let (mut stdin, mut stdout) = (child.stdin.take().expect("asked for"), child.stdout.take().expect("asked for"));
            let mut stderr = child.stderr.take().expect("asked for");
            let (mut from, to) = channel.split();
            let asked = tokio::spawn(async move {
                let mut reader = from.make_reader();
                let _ = tokio::io::copy(&mut reader, &mut stdin).await;
                let _ = stdin.shutdown().await;
            });
            let _ = tokio::io::copy(&mut stdout, &mut to.make_writer()).await;
            let mut complaint = Vec::new();
            let _ = stderr.read_to_end(&mut complaint).await;
            let _ = handle.extended_data(id, 1, complaint).await;
            let status = child.wait().await.expect("git ends");
            let _ = handle.exit_status_request(id, status.code().unwrap_or(1).unsigned_abs()).await;
            let _ = handle.eof(id).await;
            let _ = handle.close(id).await;
            asked.abort();
        });
        Ok(())
    }
}

pub fn access(identity: &PrivateKey, known_hosts: &str) -> GitAccess {
    let identity = identity.to_openssh(LineEnding::LF).expect("a key can be written");
    GitAccess {
        ssh: Some(SshAccess { identity: Sensitive::new(identity.as_str()), passphrase: None, known_hosts: known_hosts.to_owned() }),
        ..GitAccess::default()
    }
}

/// The same key behind a passphrase. One round: what slows an attacker down would slow the test down too.
pub fn encrypted(key: &PrivateKey, passphrase: &str) -> PrivateKey {
    let kdf = Kdf::Bcrypt { salt: vec![7; 16], rounds: 1 };
    key.encrypt_with(Cipher::Aes256Ctr, kdf, 4711, passphrase).expect("a key can be encrypted")
}
