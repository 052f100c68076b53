//! The `backout` command.

use std::process::ExitCode;

use backout::{
    cli::{Cli, Command},
    controller, crd, db, expression, telemetry,
};
use clap::Parser;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Crd { dir: None } => crd::yaml().map(|yaml| print!("{yaml}")),
        Command::Crd { dir: Some(dir) } => crd::write(&dir),
        Command::Db(arguments) => db::run(*arguments),
        Command::Evaluate => expression::answer(),
        Command::Run(settings) => telemetry::log(settings.log_format, &settings.log).and_then(|()| {
            let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
            let result = runtime.block_on(controller::run(*settings)).map_err(|error| error.to_string());
            // Without waiting for a git fetch that hangs: when this process has to end, it ends now.
            runtime.shutdown_background();
            result.inspect_err(|error| tracing::error!("{error}"))
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("backout: {message}");
            ExitCode::FAILURE
        }
    }
}
