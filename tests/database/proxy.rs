//! Stands between the engine and the server and breaks the connection at a chosen statement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use backout::mysql::{Database, Endpoint, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens at the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut, and the server never sees the statement.
    CutBefore,
    /// The server has run the statement; its answer is lost with the connection.
    CutAfter,
    /// Nothing comes through any more, in neither direction; the server never sees the statement.
    Hang,
}

/// A server that ran the statement and then falls silent differs from the second only in what the third shows.
pub const FAULTS: &[Fault] = &[Fault::CutBefore, Fault::CutAfter, Fault::Hang];
/// For calls that only read: whether the server ran the statement makes no difference.
pub const READING: &[Fault] = &[Fault::CutAfter, Fault::Hang];

/// How long an engine that hangs waits. Long enough for every statement of a small schema.
pub const HANGING: Duration = Duration::from_millis(300);

/// One listener, ended when it is dropped.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
    listener: JoinHandle<()>,
}

struct State {
    fault: Fault,
    /// The statement that it strikes, counted from 1 over all connections.
    at: usize,
    seen: AtomicUsize,
    struck: AtomicBool,
}

impl Proxy {
    pub async fn start(server: &Endpoint, fault: Fault, at: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(State { fault, at, seen: AtomicUsize::new(0), struck: AtomicBool::new(false) });
        let (host, server_port, shared) = (server.host.clone(), server.port, Arc::clone(&state));
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((host.as_str(), server_port)).await.expect("the server takes connections");
                tokio::spawn(carry(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, state, listener }
    }

    /// The same database by way of this proxy; without TLS, which would hide the statements.
    pub fn database(&self, endpoint: Endpoint) -> Database {
        let database = Database::new(Endpoint { host: "127.0.0.1".into(), port: self.port, tls: Tls::Disabled, ..endpoint });
        match self.state.fault {
            Fault::CutBefore | Fault::CutAfter => database,
            Fault::Hang => database.with_statement_timeout(HANGING),
        }
    }

    /// Whether there was such a statement.
    pub fn struck(&self) -> bool {
        self.state.struck.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// One connection. When either direction ends, both are closed.
async fn carry(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let swallowing = AtomicBool::new(false);
    let up = async {
        while let Some(packet) = packet(&mut from_client).await {
            // The first packet of a command has number 0; 3 is a query.
            let is_statement = packet[3] == 0 && packet.get(4) == Some(&3);
            if is_statement && state.seen.fetch_add(1, Ordering::SeqCst) + 1 == state.at {
                match state.fault {
                    Fault::CutBefore => {
                        state.struck.store(true, Ordering::SeqCst);
                        return;
                    }
                    Fault::Hang => {
                        state.struck.store(true, Ordering::SeqCst);
                        // Until the client gives up.
                        while self::packet(&mut from_client).await.is_some() {}
                        return;
                    }
                    Fault::CutAfter => swallowing.store(true, Ordering::SeqCst),
                }
            }
            if to_server.write_all(&packet).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut portion = vec![0; 64 * 1024];
        loop {
            let length = from_server.read(&mut portion).await.unwrap_or(0);
            if swallowing.load(Ordering::SeqCst) {
                state.struck.store(true, Ordering::SeqCst);
                return;
            }
            if length == 0 || to_client.write_all(&portion[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// A packet with its header of four bytes: three of length, one number.
async fn packet(from: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut packet = vec![0; 4];
    from.read_exact(&mut packet).await.ok()?;
    let length = usize::from(packet[0]) | usize::from(packet[1]) << 8 | usize::from(packet[2]) << 16;
    packet.resize(4 + length, 0);
    from.read_exact(&mut packet[4..]).await.ok()?;
    Some(packet)
}
