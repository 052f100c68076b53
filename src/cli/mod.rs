//! Arguments to settings, once; the only reader of the environment.

mod db;

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::{api::Span, stores::Place};
pub use db::{Db, DbCommand, Output, Server, TlsArgument};

/// Takes complete releases back: application, configuration, schema, data and cache.
#[derive(Debug, Parser)]
#[command(name = "backout", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<Settings>),
    /// Print the custom resource definitions as YAML.
    Crd {
        /// Write one file for each kind into this folder instead.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Backup points by hand, without Kubernetes.
    Db(Box<Db>),
    /// Judge the CEL expression on standard input: what the operator starts for each check that has one.
    #[command(hide = true)]
    Evaluate,
}

#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Folder for what can be had again: git mirrors.
    #[arg(long, env = "BACKOUT_DATA", default_value = "/var/lib/backout")]
    pub data: PathBuf,
    /// Folder for backup points; a Release's file:///… stores must lie inside it [default: backups inside --data]
    #[arg(long, env = "BACKOUT_BACKUPS")]
    backups: Option<PathBuf>,
    /// A store in a cloud (s3://bucket/prefix) that Releases may use without keys of their own: as the operator's workload identity or
    /// instance role, or with the keys of its environment. May be given several times; no other is opened without a Secret.
    #[arg(long = "own-store", env = "BACKOUT_OWN_STORES", value_delimiter = ',')]
    pub own_stores: Vec<Place>,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "BACKOUT_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address of /webhook/<namespace>/<name>, to which git servers send their pushes.
    #[arg(long, env = "BACKOUT_WEBHOOK_LISTEN", default_value = "0.0.0.0:9292")]
    pub webhook_listen: SocketAddr,
    /// Releases that are worked on at the same time.
    ///
    /// Most of them wait: for a git server, a check, a rollout. One that waits costs a few tens of KiB, and each that hangs
    /// takes a place from the others until its deadline, so that there must be more places than things that can hang at once.
    /// What costs more, backups and loads, has a limit of its own.
    #[arg(long, env = "BACKOUT_CONCURRENCY", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Bytes that a fetch of a git repository may receive; K, M and G stand for powers of 1024.
    #[arg(long, env = "BACKOUT_MAX_REPOSITORY", default_value = "1G", value_parser = bytes)]
    pub max_repository: u64,
    /// Work only while holding the Lease "backout"; without it, only one operator may run in the cluster.
    #[arg(long, env = "BACKOUT_LEADER_ELECT", default_value_t = true, action = ArgAction::Set)]
    pub leader_elect: bool,
    /// How long a standby watches the Lease unchanged before it takes over from a leader that does not answer.
    #[arg(long, env = "BACKOUT_LEASE_DURATION", default_value = "15s")]
    pub lease_duration: Span,
    /// How long a leader tries to renew the Lease before it stops.
    #[arg(long, env = "BACKOUT_LEASE_RENEW_DEADLINE", default_value = "10s")]
    pub lease_renew_deadline: Span,
    /// Pause between two looks at the Lease.
    #[arg(long, env = "BACKOUT_LEASE_RETRY", default_value = "2s")]
    pub lease_retry: Span,
    /// Name of the pod that this process runs in; names the holder of the Lease.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Namespace of the Lease [default: that of the credentials in use]
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: Option<String>,
    #[arg(long, env = "BACKOUT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged, as in RUST_LOG.
    #[arg(long, env = "BACKOUT_LOG", default_value = "info")]
    pub log: String,
}

impl Settings {
    /// Folder for git mirrors.
    pub fn mirrors(&self) -> PathBuf {
        self.data.join("git")
    }

    /// Folder for backup points.
    pub fn backups(&self) -> PathBuf {
        self.backups.clone().unwrap_or_else(|| self.data.join("backups"))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// `1048576`, `1024K`, `1M`.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (text.get(..at), 1 << 10),
        Some((at, 'M' | 'm')) => (text.get(..at), 1 << 20),
        Some((at, 'G' | 'g')) => (text.get(..at), 1 << 30),
        Some(_) | None => (Some(text), 1),
    };
    let number: Option<u64> = number.and_then(|number| number.parse().ok());
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "write a number of bytes above 0, with K, M or G behind it if you like".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, expected) in [
            ("1", Some(1)),
            ("10K", Some(10 << 10)),
            ("3m", Some(3 << 20)),
            ("1G", Some(1 << 30)),
            ("0", None),
            ("", None),
            ("K", None),
            ("-1", None),
            ("1T", None),
            ("1.5G", None),
            ("99999999999G", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text:?}");
        }
    }
}
