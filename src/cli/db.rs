//! Arguments of `backout db`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use url::Url;

/// Backup points by hand: take, prove and bring them back, without Kubernetes.
#[derive(Debug, Args)]
pub struct Db {
    #[command(subcommand)]
    pub command: DbCommand,
    /// Folder of the backup points, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix with the keys that the environment
    /// holds (AWS_ACCESS_KEY_ID, …), or as this machine.
    #[arg(long, global = true, env = "BACKOUT_DB_STORE", default_value = "backups")]
    pub store: String,
    /// File with the CAs (PEM) that vouch for a store in a cloud [default: those of this machine]
    #[arg(long, global = true, env = "BACKOUT_DB_STORE_CA")]
    pub store_ca: Option<PathBuf>,
    /// File with the secret key, as age-keygen writes it, of points that are encrypted.
    #[arg(long, global = true, env = "BACKOUT_DB_IDENTITY")]
    pub identity: Option<PathBuf>,
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Take a backup point of the whole schema as of one instant.
    Capture {
        #[command(flatten)]
        server: Server,
        /// Its name [default: the schema's and the time]
        point: Option<String>,
        /// Schema of the same server, into which a dump was loaded: it is taken for the one that --url names, and a dump becomes a point.
        #[arg(long, value_name = "SCHEMA")]
        from: Option<String>,
        /// Public key (age1…) for whose owner the files are encrypted. May be given several times.
        #[arg(long = "recipient", env = "BACKOUT_DB_RECIPIENTS", value_delimiter = ',')]
        recipients: Vec<String>,
    },
    /// List the backup points in the store.
    List,
    /// Read every file of a point and compare its digest; with --identity also open what is encrypted.
    Verify { point: String },
    /// Load a point into a scratch schema, compare every row, check every table, drop the schema, and say how long that took.
    Rehearse {
        #[command(flatten)]
        server: Server,
        point: String,
    },
    /// Load a point into a scratch schema, run the migrations of a folder there that it does not have, then their down scripts, and drop it.
    /// Those that it has are not compared with the folder's.
    Try {
        #[command(flatten)]
        server: Server,
        point: String,
        /// With NNNN_name.up.sql and NNNN_name.down.sql.
        migrations: PathBuf,
    },
    /// Load a point beside the live schema, compare every row, and swap it in at once. What it replaces is kept.
    Restore {
        #[command(flatten)]
        server: Server,
        point: String,
        /// Take away what was written since the point without asking.
        #[arg(long)]
        yes: bool,
        /// Copy rows that were inserted since the point into the restored tables where they fit. Nobody else should write meanwhile.
        #[arg(long)]
        carry_forward: bool,
    },
    /// Swap back what a restore replaced.
    Undo {
        #[command(flatten)]
        server: Server,
        /// The schema that the restore named.
        aside: String,
    },
    /// Drop what a restore replaced, or a scratch schema that was left.
    Discard {
        #[command(flatten)]
        server: Server,
        schema: String,
    },
    /// Write a point as one stream of SQL to standard output.
    Export { point: String },
    /// Print a shell script that restores a point with zstd and the client of the database alone.
    RestoreScript { point: String },
}

/// Where the database is, and how to get in.
#[derive(Debug, Args)]
pub struct Server {
    /// mysql://user@host:3306/schema
    #[arg(long, env = "BACKOUT_DB_URL")]
    pub url: Url,
    /// File with the password, which counts before BACKOUT_DB_PASSWORD; its last line break does not count.
    #[arg(long, env = "BACKOUT_DB_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    // Not shown: an argument can be read by every process of the machine, so that it belongs into the environment.
    #[arg(long, env = "BACKOUT_DB_PASSWORD", hide = true, hide_env_values = true)]
    pub password: Option<String>,
    #[arg(long, env = "BACKOUT_DB_TLS", value_enum, default_value_t = TlsArgument::VerifyIdentity)]
    pub tls: TlsArgument,
    /// File with the CAs (PEM) that vouch for the server [default: those of this machine]
    #[arg(long, env = "BACKOUT_DB_CA")]
    pub ca: Option<PathBuf>,
    /// Sessions that work at the same time.
    #[arg(long, env = "BACKOUT_DB_CONNECTIONS", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub connections: u8,
    /// Bytes of rows in each file of a point; K, M and G stand for powers of 1024.
    #[arg(long, env = "BACKOUT_DB_CHUNK", default_value = "16M", value_parser = super::bytes)]
    pub chunk: u64,
    /// Rest between statements of a load for as long as commits of others take more than twice as long as before it.
    #[arg(long)]
    pub gently: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TlsArgument {
    /// A trusted certificate that names the host.
    VerifyIdentity,
    /// A trusted certificate.
    VerifyCa,
    /// Encrypted, to whoever answers.
    Required,
    /// In plain text.
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}
