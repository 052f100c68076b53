//! Stores of S3, Google Cloud Storage and Azure.
//!
//! Text of the clients' own errors is kept out of refusals: what can't be parsed stands in it, and that may be a key.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use object_store::{
    ClientConfigKey, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    client::{Certificate, DnsFuture, DnsResolver},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    path::Path,
    prefix::PrefixStore,
};
use url::Url;

use super::{
    Refused, below,
    keys::{Checked, Keys},
};
use crate::reach;

/// A server that needs longer for this is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence. There is none for a whole answer: a file is read as fast as its rows go into the database.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Further tries of one request. Whoever calls tries again by itself, and a reason is worth more than patience.
const RETRIES: usize = 3;

/// Who keeps a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Amazon, and everything that speaks its protocol.
    S3,
    Gcs,
    Azure,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S3 => "S3",
            Self::Gcs => "Google Cloud Storage",
            Self::Azure => "Azure",
        })
    }
}

/// A place in a cloud: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    url: String,
    provider: Provider,
    bucket: String,
    prefix: Path,
}

/// Which addresses an endpoint may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Whoever calls could connect to it themselves.
    Anywhere,
    /// Not the operator's own machine, nor its cloud's.
    NotOurs,
}

impl Place {
    /// # Errors
    /// [`Refused`], with the forms that a URL may have.
    pub fn parse(url: &str) -> Result<Self, Refused> {
        let refuse = |detail: &str| Refused::new(url, detail);
        let parsed = Url::parse(url).map_err(|error| refuse(&error.to_string()))?;
        let provider = match parsed.scheme() {
            "s3" => Provider::S3,
            "gs" => Provider::Gcs,
            "az" => Provider::Azure,
            other => return Err(refuse(&format!("{other}:// is none of file:///, s3://, gs:// and az://"))),
        };
        if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(refuse("a store's URL is a bucket and a path; keys belong into the Secret of secretRef"));
        }
        let bucket = parsed.host_str().filter(|_| parsed.port().is_none()).ok_or_else(|| refuse("it names no bucket"))?;
        Ok(Self { url: url.to_owned(), provider, bucket: bucket.to_owned(), prefix: below(url, &parsed)? })
    }

    /// Whether `other` is this place or lies below it.
    pub(super) fn contains(&self, other: &Self) -> bool {
        self.provider == other.provider && self.bucket == other.bucket && other.prefix.prefix_matches(&self.prefix)
    }

    fn refuse(&self, detail: impl Into<String>) -> Refused {
        Refused::new(&self.url, detail)
    }
}

impl std::str::FromStr for Place {
    type Err = Refused;

    fn from_str(url: &str) -> Result<Self, Refused> {
        Self::parse(url)
    }
}

/// Opens it with these keys and nothing else.
pub fn open(place: &Place, keys: &Keys, reach: Reach) -> Result<Arc<dyn ObjectStore>, Refused> {
    let checked = keys.check(place.provider).map_err(|detail| place.refuse(detail))?;
    if let Some((key, endpoint)) = checked.endpoint() {
        check_endpoint(endpoint, &checked, reach).map_err(|detail| place.refuse(format!("key {key} of {}: {detail}", keys.origin())))?;
    }
    let mut options = options(checked.ca.as_deref(), checked.allows_http())
        .map_err(|()| place.refuse(format!("key ca.crt of {} holds no certificates in PEM", keys.origin())))?;
    if reach == Reach::NotOurs {
        options = options.with_dns_resolver(Arc::new(NotOurs));
    }
    build(place, Identity::Given(&checked), |_| options)
        .map_err(|_| place.refuse(format!("the keys of {} don't have the form that {} gives them", keys.origin(), place.provider)))
}

/// Opens it with what the environment names, or as the machine or workload that this process is.
pub fn open_as_ourselves(place: &Place, ca: Option<&[u8]>) -> Result<Arc<dyn ObjectStore>, Refused> {
    let unreadable = || place.refuse("the CA's file holds no certificates in PEM");
    options(ca, false).map_err(|()| unreadable())?;
    build(place, Identity::Own, |allows_http| options(ca, allows_http).unwrap_or_default())
        .map_err(|_| place.refuse(format!("the environment's variables don't have the form that {} gives them", place.provider)))
}

fn check_endpoint(endpoint: &str, checked: &Checked, reach: Reach) -> Result<(), String> {
    let parsed = Url::parse(endpoint).map_err(|error| format!("it is no URL: {error}"))?;
    match parsed.scheme() {
        "https" => {}
        "http" if checked.allows_http() => {}
        "http" => return Err("over http:// keys and rows could be read on their way: use https://, or set the key AWS_ALLOW_HTTP or AZURE_ALLOW_HTTP to true".to_owned()),
        _ => return Err("it must begin with https://".to_owned()),
    }
    match reach {
        Reach::Anywhere => Ok(()),
        Reach::NotOurs => reach::literal(&parsed).map_err(|refused| refused.to_string()),
    }
}

enum Identity<'a> {
    Given(&'a Checked),
    Own,
}

impl Identity<'_> {
    /// A client's settings by its own names for them.
    fn settings<K: std::str::FromStr>(&self) -> Vec<(K, String)> {
        match self {
            Self::Given(checked) => {
                let setting = |(key, value): (&String, &crate::secret::Sensitive)| {
                    Some((key.to_ascii_lowercase().parse().ok()?, value.reveal().to_owned()))
                };
                checked.values.iter().filter_map(setting).collect()
            }
            Self::Own => Vec::new(),
        }
    }
}

/// `options` is told whether plain text was asked for.
fn build(place: &Place, identity: Identity<'_>, options: impl FnOnce(bool) -> ClientOptions) -> object_store::Result<Arc<dyn ObjectStore>> {
    const HTTP: ClientConfigKey = ClientConfigKey::AllowHttp;
    let is_yes = |value: Option<String>| value.as_deref() == Some("true");
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: READ_TIMEOUT, ..RetryConfig::default() };
    Ok(match place.provider {
        Provider::S3 => {
            let begun = if matches!(identity, Identity::Own) { AmazonS3Builder::from_env() } else { AmazonS3Builder::new() };
            let options = options(is_yes(begun.get_config_value(&AmazonS3ConfigKey::Client(HTTP))));
            let begun = begun.with_client_options(options).with_retry(retry).with_bucket_name(&place.bucket);
            let set = identity.settings().into_iter().fold(begun, |it, (key, value)| it.with_config(key, value));
            below_prefix(set.build()?, place)
        }
        Provider::Gcs => {
            let begun =
                if matches!(identity, Identity::Own) { GoogleCloudStorageBuilder::from_env() } else { GoogleCloudStorageBuilder::new() };
            let options = options(is_yes(begun.get_config_value(&GoogleConfigKey::Client(HTTP))));
            let begun = begun.with_client_options(options).with_retry(retry).with_bucket_name(&place.bucket);
            let set = identity.settings().into_iter().fold(begun, |it, (key, value)| it.with_config(key, value));
            below_prefix(set.build()?, place)
        }
        Provider::Azure => {
            let begun = if matches!(identity, Identity::Own) { MicrosoftAzureBuilder::from_env() } else { MicrosoftAzureBuilder::new() };
            let options = options(is_yes(begun.get_config_value(&AzureConfigKey::Client(HTTP))));
            let begun = begun.with_client_options(options).with_retry(retry).with_container_name(&place.bucket);
            let set = identity.settings().into_iter().fold(begun, |it, (key, value)| it.with_config(key, value));
            below_prefix(set.build()?, place)
        }
    })
}

fn below_prefix(store: impl ObjectStore, place: &Place) -> Arc<dyn ObjectStore> {
    Arc::new(PrefixStore::new(store, place.prefix.clone()))
}

fn options(ca: Option<&[u8]>, allows_http: bool) -> Result<ClientOptions, ()> {
    let options = ClientOptions::new()
        .with_allow_http(allows_http)
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT);
    let Some(pem) = ca else { return Ok(options) };
    let certificates = Certificate::from_pem_bundle(pem).map_err(drop)?;
    if certificates.is_empty() {
        return Err(());
    }
    // In place of the public ones: any of those could vouch for a store whose own CA is known.
    Ok(certificates.into_iter().fold(options.with_no_system_certificates(true), ClientOptions::with_root_certificate))
}

/// Looks names up and leaves out the addresses of this machine and its cloud.
#[derive(Debug)]
struct NotOurs;

impl DnsResolver for NotOurs {
    fn resolve(&self, host: &str) -> DnsFuture {
        let host = host.to_owned();
        Box::pin(async move { Ok(reach::look_up(&host).await?.into_iter().map(|address| address.ip()).collect::<Vec<IpAddr>>()) })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use super::*;
    use crate::stores::Stores;

    const SECRET: &str = "hush";

    fn keys(pairs: &[(&str, &str)]) -> Keys {
        Keys::new("Secret s3", pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect::<BTreeMap<_, _>>())
    }

    fn stores(own: &[&str]) -> Stores {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Stores::new(PathBuf::from("/nowhere"), own.iter().map(|url| url.parse().unwrap()).collect())
    }

    #[test]
    fn a_store_is_opened_with_whole_keys_and_refused_by_name_otherwise() {
        const S3: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", SECRET)];
        const AZURE: [(&str, &str); 2] = [("AZURE_STORAGE_ACCOUNT_NAME", "shop"), ("AZURE_STORAGE_ACCOUNT_KEY", "aHVzaA==")];
        let with = |more: (&'static str, &'static str)| [S3.as_slice(), &[more]].concat();
        for (url, pairs, refusal) in [
            ("s3://backups/shop", S3.to_vec(), None),
            ("s3://backups", S3.to_vec(), None),
            ("s3://backups/shop", with(("AWS_ENDPOINT_URL", "https://minio.example:9000")), None),
            ("s3://backups/shop", [with(("AWS_ENDPOINT_URL", "http://minio")), vec![("AWS_ALLOW_HTTP", "true")]].concat(), None),
            ("az://backups/shop", AZURE.to_vec(), None),
            ("az://backups/shop", vec![AZURE[0], ("AZURE_STORAGE_SAS_TOKEN", "?sv=2024&sig=hush\n")], None),
            ("s3://backups/shop", S3[..1].to_vec(), Some("Secret s3 needs the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")),
            (
                "gs://backups/shop",
                S3.to_vec(),
                Some("Secret s3 has the key AWS_ACCESS_KEY_ID, which is none of GOOGLE_SERVICE_ACCOUNT_KEY, ca.crt"),
            ),
            ("gs://backups/shop", vec![], Some("Secret s3 needs the keys GOOGLE_SERVICE_ACCOUNT_KEY: add")),
            (
                "gs://backups/shop",
                vec![("GOOGLE_SERVICE_ACCOUNT_KEY", "\"hush\"")],
                Some("don't have the form that Google Cloud Storage gives them"),
            ),
            ("az://backups/shop", AZURE[..1].to_vec(), Some(", or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_SAS_TOKEN, or ")),
            (
                "az://backups/shop",
                vec![AZURE[0], ("AZURE_STORAGE_ACCOUNT_KEY", "hush!")],
                Some("don't have the form that Azure gives them"),
            ),
            // Files of the operator's pod, and addresses that its own credentials would be sent to.
            (
                "s3://backups/shop",
                with(("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token")),
                Some("key AWS_WEB_IDENTITY_TOKEN_FILE, which is none of"),
            ),
            ("s3://backups/shop", with(("AWS_METADATA_ENDPOINT", "http://evil")), Some("key AWS_METADATA_ENDPOINT, which is none of")),
            ("s3://backups/shop", with(("AWS_ALLOW_HTTP", SECRET)), Some("key AWS_ALLOW_HTTP of Secret s3 must be true or false")),
            (
                "s3://backups/shop",
                with(("AWS_ENDPOINT_URL", "http://minio")),
                Some("key AWS_ENDPOINT_URL of Secret s3: over http:// keys and rows"),
            ),
            ("s3://backups/shop", with(("AWS_ENDPOINT_URL", "https://169.254.169.254")), Some("169.254.169.254 is a link-local address")),
            ("s3://backups/shop", with(("AWS_ENDPOINT_URL", "minio:9000")), Some("must begin with https://")),
            ("s3://backups/shop", with(("ca.crt", SECRET)), Some("key ca.crt of Secret s3 holds no certificates")),
            ("s3://id:hush@backups/shop", S3.to_vec(), Some("backup store s3://backups/shop: a store's URL is a bucket and a path")),
            ("s3://backups/shop?key=x", S3.to_vec(), Some("a store's URL is a bucket and a path")),
            ("s3:///shop", S3.to_vec(), Some("it names no bucket")),
            ("s3://backups/a//b", S3.to_vec(), Some("its path can't be one of a store")),
            ("ftp://backups/shop", S3.to_vec(), Some("ftp:// is none of file:///, s3://, gs:// and az://")),
            ("backups", S3.to_vec(), Some("relative URL without a base")),
            ("file:///nowhere/shop", S3.to_vec(), Some("a folder has no keys: remove secretRef")),
        ] {
            let opened = stores(&[]).open(url, Some(&keys(&pairs)));
            let message = opened.err().map(|refused| refused.to_string());
            match (&message, refusal) {
                (None, None) => {}
                (Some(message), Some(refusal)) if message.contains(refusal) && !message.contains(SECRET) => {}
                _ => panic!("{url} with {pairs:?}: {message:?} instead of {refusal:?}"),
            }
        }
    }

    #[test]
    fn the_operators_own_identity_opens_only_what_its_arguments_name() {
        let stores = stores(&["s3://backups/all", "gs://archive"]);
        for (url, opens) in [
            ("s3://backups/all", true),
            ("s3://backups/all/shop", true),
            ("s3://backups/allied", false),
            ("s3://backups", false),
            ("s3://backups/all/../other", false),
            ("s3://backups/all/%2e%2e/other", false),
            ("s3://another/all", false),
            ("gs://backups/all", false),
            ("az://archive/all", false),
        ] {
            let message = stores.open(url, None).err().map(|refused| refused.to_string());
            assert_eq!(message.is_none(), opens, "{url}: {message:?}");
            if let Some(message) = message {
                assert!(message.contains("--own-store"), "{message}");
            }
        }
    }
}
