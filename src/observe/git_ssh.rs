//! git over SSH: one connection for each fetch, on which the server runs `git-upload-pack`.
//!
//! The server's key is checked against `known_hosts` before anything is said to it; there is no way around that.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use russh::{
    ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect, Preferred,
    client::{self, AuthResult, Handle, Msg},
    keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, decode_secret_key},
};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::{
    git_http::copy,
    git_known_hosts::{Known, fingerprint},
    git_transport::{Failure, Flow, Line},
};
use crate::access::SshAccess;

const PORT: u16 = 22;
/// What the servers of the large hosts, and most others, call the account.
const USER: &str = "git";
/// What a server says about a failure is shown: one line of it.
const LONGEST_COMPLAINT: usize = 200;

/// Where the repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub path: String,
}

/// What one fetch needs to reach its server.
pub struct Ssh {
    place: Place,
    key: Arc<PrivateKey>,
    known: Arc<Known>,
}

impl Place {
    /// From `ssh://[user@]host[:port]/path`.
    pub fn read(url: &Url) -> Result<Self, String> {
        let host = match url.host() {
            // known_hosts has addresses without brackets.
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(Host::Domain(_)) | None => return Err("it names no host".to_owned()),
        };
        let text = |part: &str, what: &str| {
            let text = percent_encoding::percent_decode_str(part).decode_utf8().map_err(|_| format!("its {what} is not UTF-8"))?;
            if text.chars().any(char::is_control) { Err(format!("its {what} has a control character")) } else { Ok(text.into_owned()) }
        };
        let path = text(url.path(), "path")?;
        // ssh://host/~user/x is the x in that user's home: the shell there must see the ~ first.
        let path = if path.starts_with("/~") { path.trim_start_matches('/').to_owned() } else { path };
        if path.trim_matches('/').is_empty() {
            return Err("it names no path".to_owned());
        }
        let user = if url.username().is_empty() { USER.to_owned() } else { text(url.username(), "user")? };
        Ok(Self { host, port: url.port().unwrap_or(PORT), user, path })
    }

    /// What the server is asked to run. Some servers run it in a shell, so the path is quoted as git does it.
    fn command(&self) -> String {
        let mut quoted = String::new();
        for sign in self.path.chars() {
            match sign {
                '\'' => quoted.push_str("'\\''"),
                '!' => quoted.push_str("'\\!'"),
                sign => quoted.push(sign),
            }
        }
        format!("git-upload-pack '{quoted}'")
    }
}

impl Ssh {
    pub fn new(place: Place, access: &SshAccess) -> Result<Self, Failure> {
        let known = Known::read(&access.known_hosts, &place.host, place.port).map_err(Failure::Key)?;
        let phrase = access.passphrase.as_ref().map(|phrase| phrase.reveal());
        let key = decode_secret_key(access.identity.reveal(), phrase).map_err(|_| {
            Failure::Key(match phrase {
                Some(_) => "key identity of the Secret can't be read with the passphrase in key password".to_owned(),
                None => "key identity of the Secret can't be read: it has to be a private key as ssh-keygen writes it, and an \
                         encrypted one needs its passphrase in key password"
                    .to_owned(),
            })
        })?;
        Ok(Self { place, key: Arc::new(key), known: Arc::new(known) })
    }

    /// Connects, checks the server's key, logs in and starts the conversation.
    pub fn converse(&self, line: &Line) -> Result<Box<dyn Flow>, Failure> {
        let refusal = Arc::default();
        let (place, session) = (&self.place, self.connect(line, &refusal));
        // The connection ends with an error of its own kind where our own check has ended it.
        let mut session = session.map_err(|failure| refusal.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(failure))?;
        line.wait(self.log_in(&mut session))?;
        let channel = line.wait(async {
            let channel = session.channel_open_session().await.map_err(|error| broken(&error))?;
            channel.exec(true, place.command()).await.map_err(|error| broken(&error))?;
            Ok(channel)
        })?;
        let (read, write) = channel.split();
        Ok(Box::new(Conversation { session, read, write, left: Vec::new(), at: 0, has_answered: false, complaint: String::new() }))
    }

    fn connect(&self, line: &Line, refusal: &Arc<Mutex<Option<Failure>>>) -> Result<Handle<Check>, Failure> {
        let Place { host, port, .. } = &self.place;
        let check = Check { host: host.clone(), port: *port, known: Arc::clone(&self.known), refusal: Arc::clone(refusal) };
        let config = client::Config {
            preferred: Preferred { key: self.known.algorithms().into(), ..Preferred::default() },
            nodelay: true,
            ..client::Config::default()
        };
        let socket =
            line.wait(async { TcpStream::connect((host.as_str(), *port)).await.map_err(|error| Failure::Unreachable(error.to_string())) })?;
        line.wait(async { client::connect_stream(Arc::new(config), socket, check).await.map_err(|error| broken(&error)) })
    }

    async fn log_in(&self, session: &mut Handle<Check>) -> Result<(), Failure> {
        let hash = if self.key.algorithm().is_rsa() {
            let offered = session.best_supported_rsa_hash().await.map_err(|error| broken(&error))?;
            // A server that says nothing about it is old enough to be asked for SHA-512 first.
            Some(offered.flatten().unwrap_or(russh::keys::HashAlg::Sha512))
        } else {
            None
        };
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.key), hash);
        match session.authenticate_publickey(&self.place.user, key).await {
            Ok(AuthResult::Success) => Ok(()),
            Ok(AuthResult::Failure { .. }) => Err(Failure::Denied),
            Err(error) => Err(broken(&error)),
        }
    }
}

/// Checks the server's key.
struct Check {
    host: String,
    port: u16,
    known: Arc<Known>,
    refusal: Arc<Mutex<Option<Failure>>>,
}

impl client::Handler for Check {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let refused = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => match self.known.check(&self.host, self.port, key) {
                Ok(()) => return Ok(true),
                Err(refusal) => refusal.to_string(),
            },
            // Not asked for.
            PublicKeyOrCertificate::Certificate(_) => format!("it shows a certificate for {}", fingerprint(&shown.public_key())),
        };
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(Failure::HostKey(refused));
        Ok(false)
    }
}

/// One conversation with `git-upload-pack`.
struct Conversation {
    /// Holds the connection open.
    session: Handle<Check>,
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    left: Vec<u8>,
    at: usize,
    has_answered: bool,
    complaint: String,
}

impl Flow for Conversation {
    fn read(&mut self, line: &Line, buffer: &mut [u8]) -> Result<usize, Failure> {
        while self.at >= self.left.len() {
            match line.wait(async { Ok(self.read.wait().await) })? {
                Some(ChannelMsg::Data { data }) => {
                    (self.left, self.at) = (data.to_vec(), 0);
                    self.has_answered = true;
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => self.complain(&data),
                Some(ChannelMsg::Failure) => return Err(Failure::Unreachable("it does not run git-upload-pack".to_owned())),
                // What comes after the end is how it ended; git's own protocol says so before.
                Some(ChannelMsg::Eof) if self.has_answered => return Ok(0),
                Some(ChannelMsg::Close) | None => return if self.has_answered { Ok(0) } else { Err(self.why()) },
                Some(_) => {}
            }
        }
        Ok(copy(&self.left, &mut self.at, buffer))
    }

    fn write(&mut self, line: &Line, bytes: &[u8]) -> Result<(), Failure> {
        line.wait(async { self.write.data(bytes).await.map_err(|error| broken(&error)) })
    }
}

impl Conversation {
    fn complain(&mut self, said: &[u8]) {
        let room = LONGEST_COMPLAINT.saturating_sub(self.complaint.len());
        self.complaint.extend(String::from_utf8_lossy(said).chars().filter(|c| *c == '\n' || !c.is_control()).take(room));
    }

    /// The server ended before it answered. There is no code for that: servers say it in words.
    fn why(&self) -> Failure {
        let said = self.complaint.to_lowercase();
        let words = ["not found", "does not appear to be a git repository", "could not be found", "no such", "denied", "not exist"];
        if words.iter().any(|word| said.contains(word)) {
            return Failure::NoRepository;
        }
        let line = self.complaint.lines().map(str::trim).find(|line| !line.is_empty());
        Failure::Unreachable(line.map_or_else(|| "it closed the connection".to_owned(), |line| format!("it says {line:?}")))
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // Politeness only: the connection is closed anyway when the session is gone.
        let goodbye = self.session.disconnect(Disconnect::ByApplication, "", "");
        let _ = futures::FutureExt::now_or_never(goodbye);
    }
}

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh").field("place", &self.place).finish_non_exhaustive()
    }
}

fn broken(error: &russh::Error) -> Failure {
    match error {
        russh::Error::NoAuthMethod | russh::Error::NotAuthenticated => Failure::Denied,
        russh::Error::ConnectionTimeout | russh::Error::InactivityTimeout | russh::Error::KeepaliveTimeout => Failure::TimedOut,
        other => Failure::Unreachable(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_user_and_path() {
        for (url, host, port, user, command) in [
            ("ssh://git@git.example/liqui/deploy.git", "git.example", 22, "git", "git-upload-pack '/liqui/deploy.git'"),
            ("ssh://git.example:2222/x", "git.example", 2222, "git", "git-upload-pack '/x'"),
            ("ssh://me@[::1]:7/x%20y", "::1", 7, "me", "git-upload-pack '/x y'"),
            ("ssh://me@10.0.0.1/~me/x", "10.0.0.1", 22, "me", "git-upload-pack '~me/x'"),
            ("ssh://h/it's!.git", "h", 22, "git", "git-upload-pack '/it'\\''s'\\!'.git'"),
        ] {
            let place = Place::read(&Url::parse(url).expect("the table holds URLs")).expect(url);
            assert_eq!((place.host.as_str(), place.port, place.user.as_str()), (host, port, user), "{url}");
            assert_eq!(place.command(), command, "{url}");
        }
    }

    #[test]
    fn a_url_that_can_not_be_meant_is_refused() {
        for (url, why) in [
            ("ssh://git.example", "it names no path"),
            ("ssh://git.example/", "it names no path"),
            ("ssh://git.example/a%0Ab", "its path has a control character"),
            ("ssh://git.example/a%00b", "its path has a control character"),
            ("ssh://git.example/%FF", "its path is not UTF-8"),
            ("ssh:///x", "it names no host"),
        ] {
            let url = Url::parse(url).expect("the table holds URLs");
            assert_eq!(Place::read(&url), Err(why.to_owned()), "{url}");
        }
    }
}
