//! Fence and Unfence: no pod of the application runs while the database changes under it.
//!
//! Idempotent: scaling to a number that is already set changes nothing; both wait for what the cluster really shows.

use super::{Error, Outcome, Task, done, waiting};
use crate::{
    api::operation::{Scale, Step},
    target::rollout::Rollout,
};

/// Scales to zero and waits until the last pod is gone, terminating ones included.
pub async fn up(task: &Task<'_>, workloads: &[Scale]) -> Result<Outcome, Error> {
    let kubernetes = task.kubernetes();
    let mut left = 0;
    for workload in workloads {
        let replicas = kubernetes.deployment(&workload.name).await?.and_then(|deployment| deployment.spec).and_then(|spec| spec.replicas);
        if replicas != Some(0) {
            kubernetes.scale(&workload.name, 0).await?;
        }
        left += kubernetes.pods_left(&workload.name).await?;
    }
    let names: Vec<&str> = workloads.iter().map(|workload| workload.name.as_str()).collect();
    if left == 0 {
        done(format!("no pod of {} runs", names.join(", ")))
    } else {
        waiting(format!("waiting for the pods of {} to end", names.join(", ")))
    }
}

/// Scales back and waits until the pods are there.
pub async fn down(task: &Task<'_>, step: &Step, workloads: &[Scale]) -> Result<Outcome, Error> {
    let kubernetes = task.kubernetes();
    let mut messages = Vec::new();
    for workload in workloads {
        let replicas = kubernetes.deployment(&workload.name).await?.and_then(|deployment| deployment.spec).and_then(|spec| spec.replicas);
        if replicas != Some(workload.replicas) {
            kubernetes.scale(&workload.name, workload.replicas).await?;
        }
        match kubernetes.rollout(&workload.name, step.started_at).await? {
            Rollout::Complete { message } => messages.push(message),
            Rollout::Progressing { message } => return waiting(message),
            Rollout::Failed { message } => return Ok(Outcome::Failed { message }),
        }
    }
    done(messages.join("; "))
}
