//! Version 1.2.1.

use liqui::{Build, Fault};

fn main() -> std::process::ExitCode {
    liqui::serve(Build { version: "1.2.1", fault: Fault::None })
}
