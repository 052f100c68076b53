//! What happened, in words.

use backout::{
    api::operation::Operation,
    plan::{Decision, journal::Outcome},
};

pub fn decision(decision: &Decision) -> String {
    match decision {
        Decision::LookAtDatabase => "look at the database".to_owned(),
        Decision::Rest { verdict, again } => {
            format!("rest {again:?}: {} {}", verdict.reason, verdict.message)
        }
        Decision::Tell { verdict } => format!("tell {}: {}", verdict.reason, verdict.message),
        Decision::Reset { token } => format!("reset {token}"),
        Decision::Begin(operation) => format!("begin {}", self::operation(operation)),
        Decision::Run { step } => format!("run step {step}"),
        Decision::Close(end) => format!("close {end:?}"),
        Decision::Grant { approval, .. } => format!("grant {approval:?}"),
        Decision::Contain { .. } => "put up a fence before it ends".to_owned(),
        Decision::Refuse { message, .. } => format!("refuse: {message}"),
        Decision::Farewell => "farewell".to_owned(),
    }
}

fn operation(operation: &Operation) -> String {
    let steps: Vec<&str> = operation.steps.iter().map(|step| step.name.as_str()).collect();
    format!("{:?} {} to {} ({}): {}", operation.kind, operation.id, operation.to, operation.cause, steps.join(" "))
}

pub fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { .. } => "done".to_owned(),
        Outcome::Waiting { .. } => "waiting".to_owned(),
        Outcome::Retry { message } => format!("retry: {message}"),
        Outcome::Refused { message } => format!("refused: {message}"),
        Outcome::Failed { message } => format!("failed: {message}"),
        Outcome::Measured { loss } => format!("measured: {loss:?}"),
        Outcome::Unapproved { message } => format!("unapproved: {message}"),
    }
}
