//! Version 1.2.0, the faulty one: it never becomes healthy.

use liqui::{Build, Fault};

fn main() -> std::process::ExitCode {
    liqui::serve(Build { version: "1.2.0", fault: Fault::HealthFails })
}
