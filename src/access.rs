//! From the references in a Release to connections: reads the Secrets that it names and builds what the engines take.
//!
//! A Release reaches only its own namespace: every look-up here takes the namespace from the Release, never from the spec.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, Client};
use object_store::ObjectStore;
use tokio::{sync::OnceCell, time::timeout};

use crate::{
    api::{
        database::{self, BackupSpec, DatabaseSpec},
        release::{CacheSpec, GitSource, LocalRef, RedisSpec, TlsMode},
    },
    cache::{self, Cache},
    cluster::{self, within},
    error::Class,
    mysql::{self, Database, Endpoint},
    secret::Sensitive,
    stores::{self, Keys, Stores},
    trust::public_cas,
};

/// A folder that needs longer to be looked at is on a server in trouble.
const STORE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Secret {name} does not exist: create it or correct the reference")]
    SecretMissing { name: String },
    #[error("Secret {name} has no key {key}: add it")]
    KeyMissing { name: String, key: &'static str },
    #[error("key {key} of Secret {name} is not text")]
    NotText { name: String, key: &'static str },
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error(transparent)]
    Store(#[from] stores::Refused),
    #[error("spec.database.backup.encryption.recipients: {0}")]
    Recipients(mysql::KeyError),
    #[error("key identity of Secret {name}: {error}")]
    Identity { name: String, error: mysql::KeyError },
    #[error("opening backup store {url} was given up: {detail}")]
    Stopped { url: String, detail: String },
    #[error("Namespace kube-system has no uid: the API server's answer can't be right")]
    NoCluster,
    #[error("backup store {url} did not answer within {} s; check the volume", STORE_TIMEOUT.as_secs())]
    StoreAway { url: String },
    #[error("spec.source.git.url is an ssh:// URL: spec.source.git.secretRef must name a Secret with identity and known_hosts")]
    NoSshSecret,
    #[error("spec.cache.redis.tls.mode is VerifyCa: spec.cache.redis.credentials must name a Secret with ca.crt")]
    NoCa,
    #[error("Secret {name} has neither key allowed_signers nor one that ends in .asc: add who may sign")]
    NoSigners { name: String },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::StoreAway { .. } | Self::Stopped { .. } | Self::NoCluster => Class::Transient,
            Self::SecretMissing { .. }
            | Self::KeyMissing { .. }
            | Self::NotText { .. }
            | Self::Store(_)
            | Self::Recipients(_)
            | Self::Identity { .. }
            | Self::NoSshSecret
            | Self::NoCa
            | Self::NoSigners { .. } => Class::Permanent,
        }
    }

    /// CamelCase, for a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::SecretMissing { .. }
            | Self::KeyMissing { .. }
            | Self::NotText { .. }
            | Self::Identity { .. }
            | Self::NoSshSecret
            | Self::NoCa
            | Self::NoSigners { .. } => "SecretNotFound",
            Self::Cluster(_) | Self::NoCluster => "ApiServerUnavailable",
            Self::Store(_) | Self::Recipients(_) | Self::StoreAway { .. } | Self::Stopped { .. } => "StoreUnavailable",
        }
    }
}

/// How to authenticate to a git server.
#[derive(Clone, Debug, Default)]
pub struct GitAccess {
    pub user: Option<(String, Sensitive)>,
    /// PEM; replaces the public CAs.
    pub ca: Option<Vec<u8>>,
    /// For ssh:// only.
    pub ssh: Option<SshAccess>,
    /// Who may sign, where the spec asks for signatures.
    pub trust: Option<GitTrust>,
}

/// How to log in to an SSH server, and how to know that it is the right one.
#[derive(Clone, Debug)]
pub struct SshAccess {
    /// Private key, as `ssh-keygen` writes it.
    pub identity: Sensitive,
    pub passphrase: Option<Sensitive>,
    pub known_hosts: String,
}

/// Who may sign revisions.
#[derive(Clone, Debug)]
pub struct GitTrust {
    /// Name of the Secret, for messages.
    pub secret: String,
    /// git's list of SSH keys.
    pub allowed_signers: Option<String>,
    /// Armored public keys, by the Secret's key that holds them.
    pub openpgp: Vec<(String, String)>,
}

/// Reads the Secrets of one namespace, and opens its backup stores.
#[derive(Clone)]
pub struct Access {
    client: Client,
    stores: Stores,
    cluster: Arc<OnceCell<String>>,
}

impl Access {
    pub fn new(client: Client, stores: Stores) -> Self {
        Self { client, stores, cluster: Arc::default() }
    }

    /// What tells this cluster from every other: by convention the uid of its namespace kube-system, which lives as long as it.
    pub async fn cluster(&self) -> Result<&str, Error> {
        let uid = self.cluster.get_or_try_init(async || {
            let namespaces: Api<Namespace> = Api::all(self.client.clone());
            let namespace = within("reading Namespace kube-system", namespaces.get("kube-system")).await?;
            namespace.metadata.uid.ok_or(Error::NoCluster)
        });
        Ok(uid.await?)
    }

    /// Opens a backup store, to write into it: what is sealed can't be opened. A folder may lie on a server that hangs: that holds up
    /// neither other Releases nor, for long, this one. A store in a cloud is asked nothing yet.
    pub async fn store(&self, namespace: &str, spec: &BackupSpec) -> Result<mysql::Store, Error> {
        Ok(mysql::Store::new(self.objects(namespace, &spec.store).await?).with_sealing(sealing(spec)?))
    }

    /// The same, with the key that opens what is sealed.
    pub async fn readable_store(&self, namespace: &str, spec: &BackupSpec) -> Result<mysql::Store, Error> {
        let store = self.store(namespace, spec).await?;
        let Some(reference) = spec.encryption.as_ref().and_then(|encryption| encryption.identity_secret_ref.as_ref()) else {
            return Ok(store);
        };
        let secret = self.secret(namespace, &reference.name).await?;
        let identity = Sensitive::new(secret.required("identity")?);
        let opening = sealing(spec)?.with_identity(&identity).map_err(|error| Error::Identity { name: secret.name, error })?;
        Ok(store.with_sealing(opening))
    }

    async fn objects(&self, namespace: &str, spec: &database::Store) -> Result<Arc<dyn ObjectStore>, Error> {
        let keys = match &spec.secret_ref {
            None => None,
            Some(reference) => {
                let Found { name, data } = self.secret(namespace, &reference.name).await?;
                Some(Keys::new(format!("Secret {name}"), data))
            }
        };
        let (stores, url) = (self.stores.clone(), spec.url.clone());
        match timeout(STORE_TIMEOUT, tokio::task::spawn_blocking(move || stores.open(&url, keys.as_ref()))).await {
            Ok(Ok(opened)) => Ok(opened?),
            Ok(Err(stopped)) => Err(Error::Stopped { url: spec.url.clone(), detail: stopped.to_string() }),
            Err(_) => Err(Error::StoreAway { url: spec.url.clone() }),
        }
    }

    /// Reads the token with which a git server proves who it is. An empty one would prove nothing.
    pub async fn webhook(&self, namespace: &str, reference: &LocalRef) -> Result<Sensitive, Error> {
        let secret = self.secret(namespace, &reference.name).await?;
        let token = secret.required("token")?;
        if token.is_empty() { Err(secret.missing("token")) } else { Ok(Sensitive::new(token)) }
    }

    pub async fn git(&self, namespace: &str, source: &GitSource) -> Result<GitAccess, Error> {
        let trust = match &source.verify {
            Some(verify) => Some(trust(&self.secret(namespace, &verify.secret_ref.name).await?)?),
            None => None,
        };
        let is_ssh = source.url.starts_with("ssh://");
        let Some(reference) = &source.secret_ref else {
            return if is_ssh { Err(Error::NoSshSecret) } else { Ok(GitAccess { trust, ..GitAccess::default() }) };
        };
        let secret = self.secret(namespace, &reference.name).await?;
        if is_ssh {
            return Ok(GitAccess { ssh: Some(ssh(&secret)?), trust, ..GitAccess::default() });
        }
        let user = match (secret.optional("username")?, secret.optional("password")?) {
            (None, None) => None,
            (Some(username), Some(password)) => Some((username, Sensitive::new(password))),
            (None, Some(_)) => return Err(secret.missing("username")),
            (Some(_), None) => return Err(secret.missing("password")),
        };
        Ok(GitAccess { user, ca: secret.bytes("ca.crt"), ssh: None, trust })
    }

    pub async fn database(&self, namespace: &str, spec: &DatabaseSpec) -> Result<Database, Error> {
        let mysql = &spec.mysql;
        let secret = self.secret(namespace, &mysql.credentials.secret_ref.name).await?;
        let tls = match mysql.tls.mode {
            TlsMode::Disabled => mysql::Tls::Disabled,
            TlsMode::VerifyIdentity => mysql::Tls::VerifyIdentity { ca_pem: secret.bytes("ca.crt").unwrap_or_else(public_cas) },
            TlsMode::VerifyCa => mysql::Tls::VerifyCa { ca_pem: secret.bytes("ca.crt").ok_or_else(|| secret.missing("ca.crt"))? },
        };
        Ok(Database::new(Endpoint {
            host: mysql.host.clone(),
            port: mysql.port,
            database: mysql.name.clone(),
            user: secret.required("username")?,
            password: Sensitive::new(secret.required("password")?),
            tls,
        }))
    }

    pub async fn cache(&self, namespace: &str, spec: &CacheSpec) -> Result<Cache, Error> {
        let RedisSpec { host, port, db, credentials, tls } = &spec.redis;
        let secret = match credentials {
            None => None,
            Some(credentials) => Some(self.secret(namespace, &credentials.secret_ref.name).await?),
        };
        let ca = secret.as_ref().and_then(|secret| secret.bytes("ca.crt"));
        let tls = match tls.mode {
            TlsMode::Disabled => cache::Tls::Disabled,
            TlsMode::VerifyIdentity => cache::Tls::VerifyIdentity { ca_pem: ca.unwrap_or_else(public_cas) },
            TlsMode::VerifyCa => match (ca, &secret) {
                (Some(ca_pem), _) => cache::Tls::VerifyCa { ca_pem },
                (None, Some(secret)) => return Err(secret.missing("ca.crt")),
                (None, None) => return Err(Error::NoCa),
            },
        };
        let (username, password) = match &secret {
            None => (None, None),
            Some(secret) => (secret.optional("username")?, Some(Sensitive::new(secret.required("password")?))),
        };
        Ok(Cache { host: host.clone(), port: *port, db: *db, username, password, tls })
    }

    /// Names of the keys of a Secret, sorted.
    pub async fn secret_keys(&self, namespace: &str, name: &str) -> Result<Vec<String>, Error> {
        Ok(self.secret(namespace, name).await?.data.into_keys().collect())
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Found, Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = within(format!("reading Secret {name}"), api.get_opt(name))
            .await?
            .ok_or_else(|| Error::SecretMissing { name: name.to_owned() })?;
        let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
        Ok(Found { name: name.to_owned(), data })
    }
}

/// For whom the points of a Release are encrypted.
fn sealing(spec: &BackupSpec) -> Result<mysql::Sealing, Error> {
    let recipients = spec.encryption.as_ref().map(|encryption| encryption.recipients.as_slice()).unwrap_or_default();
    mysql::Sealing::new(recipients).map_err(Error::Recipients)
}

fn ssh(secret: &Found) -> Result<SshAccess, Error> {
    Ok(SshAccess {
        identity: Sensitive::new(secret.required("identity")?),
        passphrase: secret.optional("password")?.map(Sensitive::new),
        known_hosts: secret.required("known_hosts")?,
    })
}

fn trust(secret: &Found) -> Result<GitTrust, Error> {
    let mut openpgp = Vec::new();
    for (key, value) in secret.data.iter().filter(|(key, _)| key.ends_with(".asc")) {
        let text = String::from_utf8(value.clone()).map_err(|_| Error::NotText { name: secret.name.clone(), key: "*.asc" })?;
        openpgp.push((key.clone(), text));
    }
    let allowed_signers = secret.optional("allowed_signers")?;
    if allowed_signers.is_none() && openpgp.is_empty() {
        return Err(Error::NoSigners { name: secret.name.clone() });
    }
    Ok(GitTrust { secret: secret.name.clone(), allowed_signers, openpgp })
}

/// A Secret that was found.
struct Found {
    name: String,
    data: BTreeMap<String, Vec<u8>>,
}

impl Found {
    fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.data.get(key).cloned()
    }

    fn optional(&self, key: &'static str) -> Result<Option<String>, Error> {
        self.bytes(key).map(|bytes| String::from_utf8(bytes).map_err(|_| Error::NotText { name: self.name.clone(), key })).transpose()
    }

    fn required(&self, key: &'static str) -> Result<String, Error> {
        self.optional(key)?.ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &'static str) -> Error {
        Error::KeyMissing { name: self.name.clone(), key }
    }
}
