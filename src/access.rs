//! From the references in a Release to connections: reads the Secrets that it names and builds what the engines take.
//!
//! A Release reaches only its own namespace: every look-up here takes the namespace from the Release, never from the spec.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, Client};
use object_store::{ObjectStore, local::LocalFileSystem};
use tokio::{sync::OnceCell, time::timeout};
use url::Url;

use crate::{
    api::release::{CacheSpec, DatabaseSpec, GitSource, LocalRef, RedisSpec, TlsMode},
    cache::{self, Cache},
    cluster::{self, within},
    error::Class,
    mysql::{self, Database, Endpoint},
    secret::Sensitive,
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
    #[error("backup store {url}: {detail}")]
    Store { url: String, detail: String },
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
            Self::StoreAway { .. } | Self::NoCluster => Class::Transient,
            Self::SecretMissing { .. }
            | Self::KeyMissing { .. }
            | Self::NotText { .. }
            | Self::Store { .. }
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
            | Self::NoSshSecret
            | Self::NoCa
            | Self::NoSigners { .. } => "SecretNotFound",
            Self::Cluster(_) | Self::NoCluster => "ApiServerUnavailable",
            Self::Store { .. } | Self::StoreAway { .. } => "StoreUnavailable",
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

    /// Opens a backup store. Its folder may lie on a server that hangs: that holds up neither other Releases nor, for long, this one.
    pub async fn store(&self, url: &str) -> Result<Arc<dyn ObjectStore>, Error> {
        let (stores, wanted) = (self.stores.clone(), url.to_owned());
        match timeout(STORE_TIMEOUT, tokio::task::spawn_blocking(move || stores.open(&wanted))).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(stopped)) => Err(Error::Store { url: url.to_owned(), detail: stopped.to_string() }),
            Err(_) => Err(Error::StoreAway { url: url.to_owned() }),
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

/// The folder below which backup stores lie. Whoever may write a Release names a folder; it must not be one of the
/// operator's others.
#[derive(Clone, Debug)]
pub struct Stores {
    root: PathBuf,
}

impl Stores {
    /// `root` is made by the first store if it is not there.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Opens the folder that `url` (`file:///…`) names; it is made if it is not there.
    pub fn open(&self, url: &str) -> Result<Arc<dyn ObjectStore>, Error> {
        let fail = |detail: String| Error::Store { url: url.to_owned(), detail };
        let outside = || fail(format!("it must lie inside the operator's folder for backups, {}", self.root.display()));
        let parsed = Url::parse(url).map_err(|error| fail(error.to_string()))?;
        let path = parsed.to_file_path().map_err(|()| fail("not a file:///… URL".to_owned()))?;
        let below = path.strip_prefix(&self.root).map_err(|_| outside())?;
        // A URL's `..` are resolved already; one that is percent-encoded comes back as it was.
        if below.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(outside());
        }
        let made = |error: std::io::Error| fail(format!("the folder can't be made: {error}; give the operator a volume there"));
        if !self.root.exists() {
            std::fs::create_dir_all(&self.root).and_then(|()| lasting(&self.root)).map_err(made)?;
        }
        let root = self.root.canonicalize().map_err(made)?;
        // Part by part: through a symbolic link that leads elsewhere not even a folder is made.
        let mut folder = root.clone();
        for part in below {
            folder.push(part);
            if !folder.exists() {
                std::fs::create_dir(&folder).or_else(already_there).and_then(|()| lasting(&folder)).map_err(made)?;
            }
            folder = folder.canonicalize().map_err(made)?;
            if !folder.starts_with(&root) {
                return Err(outside());
            }
        }
        let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| fail(error.to_string()))?;
        // A file is told to be written once it and its name are on the disk: after a power cut a manifest is there only with all
        // the files that it names.
        Ok(Arc::new(store.with_fsync(true)))
    }
}

/// Puts a folder's name onto the disk.
fn lasting(folder: &Path) -> std::io::Result<()> {
    folder.parent().map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
}

/// Another Release may make the same folder at the same moment.
fn already_there(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::Stores;

    #[test]
    fn a_store_lies_inside_the_folder_for_backups_whatever_its_url_looks_like() {
        let home = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (home.path().join("backups"), home.path().join("elsewhere"));
        fs::create_dir_all(root.join("deep")).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        symlink(&elsewhere, root.join("away")).unwrap();
        symlink(root.join("deep"), root.join("within")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let stores = Stores::new(root.clone());
        let url = |below: &str| format!("file://{}{below}", root.display());
        for (url, opens) in [
            (url(""), true),
            (url("/"), true),
            (url("/liqui/api"), true),
            (url("/deep/../deep"), true),
            (url("/within/liqui"), true),
            (url("/../backups/liqui"), true),
            (url("-beside"), false),
            (url("/../elsewhere"), false),
            (url("/%2e%2e/elsewhere"), false),
            (url("/..%2felsewhere"), false),
            (url("/away"), false),
            (url("/away/liqui"), false),
            (url("/file/liqui"), false),
            ("file:///etc".to_owned(), false),
            ("file:///".to_owned(), false),
            ("file://host/var/lib".to_owned(), false),
            ("s3://bucket/liqui".to_owned(), false),
        ] {
            let opened = stores.open(&url).map(drop).map_err(|error| (error.reason(), error.to_string()));
            assert_eq!(opened.is_ok(), opens, "{url}: {opened:?}");
            if let Err((reason, message)) = opened {
                assert_eq!(reason, "StoreUnavailable");
                assert!(message.contains(&url), "{message}");
            }
        }
        let store = format!("{:?}", stores.open(&url("/liqui")));
        assert!(store.contains("fsync: true"), "a manifest could outlive the files that it names: {store}");
        let left = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!(left(&elsewhere), 0, "nothing is made outside");
        assert!(root.join("liqui/api").is_dir());
    }
}
