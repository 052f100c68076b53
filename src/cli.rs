//! Arguments to settings, once; the only reader of the environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    Run(Settings),
    /// Print the custom resource definitions as YAML.
    Crd {
        /// Write one file for each kind into this folder instead.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Folder for git mirrors; the operator's volume.
    #[arg(long, env = "BACKOUT_DATA", default_value = "/var/lib/backout")]
    pub data: PathBuf,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "BACKOUT_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Releases that are worked on at the same time.
    #[arg(long, env = "BACKOUT_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Bytes that a fetch of a git repository may receive; K, M and G stand for powers of 1024.
    #[arg(long, env = "BACKOUT_MAX_REPOSITORY", default_value = "1G", value_parser = bytes)]
    pub max_repository: u64,
    #[arg(long, env = "BACKOUT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged, as in RUST_LOG.
    #[arg(long, env = "BACKOUT_LOG", default_value = "info")]
    pub log: String,
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
