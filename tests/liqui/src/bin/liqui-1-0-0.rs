//! Version 1.0.0.

use liqui::{Build, Fault};

fn main() -> std::process::ExitCode {
    liqui::serve(Build { version: "1.0.0", fault: Fault::None })
}
