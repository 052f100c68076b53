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
