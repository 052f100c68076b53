//! `backout db`: the data engine by hand.

mod call;
mod show;

use std::{
    fs,
    io::{IsTerminal as _, Write as _, stdin, stdout},
    path::Path,
    sync::Arc,
};

use object_store::{ObjectStore, local::LocalFileSystem, path::Path as Prefix};

use crate::{
    api::release::CarryForward,
    cli::{Db, DbCommand, Output, Server, TlsArgument},
    mysql::{self, Database, Endpoint, Sealing, Store, Summary, Tls},
    secret::Sensitive,
    stores,
    trust::public_cas,
};
use call::{Call, Folder};

type Result<T> = std::result::Result<T, String>;

/// Does what is asked for and prints what came of it.
///
/// # Errors
/// A sentence for standard error.
pub fn run(arguments: Db) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(command(arguments))
}

async fn command(Db { command, store: place, store_ca, identity, output }: Db) -> Result<()> {
    let objects = objects(&place, store_ca.as_deref(), &command)?;
    let call = Call { store: Store::new(objects).with_sealing(sealing(&command, identity.as_deref())?), output };
    match command {
        DbCommand::Capture { server, point, from, recipients: _ } => call.capture(&database(&server, output)?, point, from).await,
        DbCommand::List => call.list().await,
        DbCommand::Verify { point } => call.verify(&point).await,
        DbCommand::Rehearse { server, point } => call.rehearse(&database(&server, output)?, &point).await,
        DbCommand::Try { server, point, migrations } => call.try_migrations(&database(&server, output)?, &point, &migrations).await,
        DbCommand::Restore { server, point, yes, carry_forward } => {
            let carry = if carry_forward { CarryForward::Inserts } else { CarryForward::None };
            call.restore(&database(&server, output)?, &point, yes, carry).await
        }
        DbCommand::Undo { server, aside } => call.undo(&database(&server, output)?, &aside).await,
        DbCommand::Discard { server, schema } => call.discard(&database(&server, output)?, &schema).await,
        DbCommand::Export { point } => call.export(&point).await,
        DbCommand::RestoreScript { point } => {
            call.script(&point, if is_in_a_cloud(&place) { Folder::Away(&place) } else { Folder::Here(&place) }).await
        }
    }
}

/// The store that the arguments name; a folder is made for its first point.
fn objects(place: &str, ca: Option<&Path>, command: &DbCommand) -> Result<Arc<dyn ObjectStore>> {
    if is_in_a_cloud(place) {
        // Another call of this process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = ca.map(|file| fs::read(file).map_err(|error| format!("{}: {error}", file.display()))).transpose()?;
        return stores::by_hand(place, ca).map_err(|refused| refused.to_string());
    }
    if matches!(command, DbCommand::Capture { .. }) {
        fs::create_dir_all(place).map_err(|error| format!("{place}: {error}"))?;
    }
    let folder = LocalFileSystem::new_with_prefix(place)
        .map_err(|error| format!("{place} is no folder of backup points: {error}; name it with --store"))?;
    Ok(Arc::new(folder))
}

/// For whom files are encrypted, and with whose key they are opened.
fn sealing(command: &DbCommand, identity: Option<&Path>) -> Result<Sealing> {
    let recipients: &[String] = if let DbCommand::Capture { recipients, .. } = command { recipients } else { &[] };
    let sealing = Sealing::new(recipients).map_err(|error| format!("--recipient: {error}"))?;
    let Some(file) = identity else { return Ok(sealing) };
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = Sensitive::new(fs::read_to_string(file).map_err(|error| named(&error))?);
    sealing.with_identity(&text).map_err(|error| named(&error))
}

fn is_in_a_cloud(place: &str) -> bool {
    place.contains("://")
}

/// The database that the arguments name. How far a call has come is shown where somebody looks.
fn database(server: &Server, output: Output) -> Result<Database> {
    let Server { url, password_file, password, tls, ca, connections, chunk, gently } = server;
    let name = url.path().trim_matches('/');
    let host = url.host_str().filter(|_| matches!(url.scheme(), "mysql" | "mariadb") && !name.is_empty());
    let host = host.ok_or("--url has to be like mysql://user@host:3306/schema")?;
    if url.password().is_some() {
        return Err("leave the password out of --url, where others can read it: use --password-file or BACKOUT_DB_PASSWORD".to_owned());
    }
    let decoded =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().map(String::from).map_err(|error| error.to_string());
    let password = match (password_file, password) {
        (Some(file), _) => {
            let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text).to_owned()
        }
        (None, Some(password)) => password.clone(),
        (None, None) => String::new(),
    };
    let named = ca.as_ref().map(|file| fs::read(file).map_err(|error| format!("{}: {error}", file.display()))).transpose()?;
    let tls = match tls {
        TlsArgument::VerifyIdentity => Tls::VerifyIdentity { ca_pem: named.unwrap_or_else(public_cas) },
        TlsArgument::VerifyCa => Tls::VerifyCa { ca_pem: named.ok_or("--tls verify-ca needs --ca")? },
        TlsArgument::Required => Tls::Required,
        TlsArgument::Disabled => Tls::Disabled,
    };
    let database = Database::new(Endpoint {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(3306),
        database: decoded(name)?,
        user: decoded(url.username())?,
        password: Sensitive::new(password),
        tls,
    });
    let database = database.with_connections(usize::from(*connections)).with_chunk(*chunk);
    let database = if *gently { database.yielding() } else { database };
    Ok(if output == Output::Text && std::io::stderr().is_terminal() { database.with_progress(show::bars()) } else { database })
}

/// Every complete backup point below the store's folder, by name; and what is wrong with others.
async fn points(store: &Store) -> Result<(Vec<(Prefix, Summary)>, Vec<String>)> {
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    for prefix in mysql::points(store).await.map_err(|error| error.to_string())? {
        match mysql::read_summary(store, &prefix).await {
            Ok(summary) => found.extend(summary.map(|summary| (prefix, summary))),
            Err(error) => broken.push(error.to_string()),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((found, broken))
}

/// Asks whoever sits there; nobody there has not agreed.
fn agreed(question: &str) -> Result<bool> {
    if !stdin().is_terminal() {
        return Ok(false);
    }
    print!("{question} [y/N] ");
    stdout().flush().map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
