//! Fence and Unfence: no pod of the application runs while the database changes under it.
//!
//! Idempotent: scaling to a number that is already set changes nothing; both wait for what the cluster really shows.

use super::{Error, Outcome, Task, done, waiting};
use crate::{
    api::operation::{Action, Scale, Step},
    target::{kubernetes::Standing, rollout::Rollout},
};

/// Scales to zero and waits until the last pod is gone, terminating ones included.
pub async fn up(task: &Task<'_>, workloads: &[Scale]) -> Result<Outcome, Error> {
    match Box::pin(lower(task, workloads)).await? {
        Lowered { left: 0, raised } if raised.is_empty() => done(format!("no pod of {} runs", names(workloads))),
        Lowered { .. } => waiting(format!("waiting for the pods of {} to end", names(workloads))),
    }
}

/// Whether the fence stands, for a step that is about to change the database. Somebody may have scaled up behind it: those
/// pods are sent away again, and the step waits with what is said here.
pub async fn holds(task: &Task<'_>, workloads: &[Scale]) -> Result<Result<(), Outcome>, Error> {
    let Lowered { left, raised } = Box::pin(lower(task, workloads)).await?;
    if left == 0 && raised.is_empty() {
        return Ok(Ok(()));
    }
    waiting(if raised.is_empty() {
        format!("pods of {} have come up behind the fence: waiting until they have ended, before the database changes", names(workloads))
    } else {
        format!(
            "somebody scaled up behind the fence: {}; scaled to zero again before the database changes. Stop what does it, such as an autoscaler",
            raised.join(", ")
        )
    })
    .map(Err)
}

/// The workloads that this operation keeps fenced: those that it means to scale back.
pub fn planned(task: &Task<'_>) -> Vec<Scale> {
    let operation = task.release.status.as_ref().and_then(|status| status.operation.as_ref());
    let actions = operation.into_iter().flat_map(|operation| &operation.steps).map(|step| &step.action);
    let mut unfence = actions.filter_map(|action| if let Action::Unfence { workloads } = action { Some(workloads) } else { None });
    unfence.next_back().cloned().unwrap_or_default()
}

/// What was found of the workloads.
struct Lowered {
    /// Pods that have not ended yet.
    left: usize,
    /// Deployments that asked for pods, with how many.
    raised: Vec<String>,
}

async fn lower(task: &Task<'_>, workloads: &[Scale]) -> Result<Lowered, Error> {
    let kubernetes = task.kubernetes();
    let mut lowered = Lowered { left: 0, raised: Vec::new() };
    for workload in workloads {
        match kubernetes.standing(&workload.name).await? {
            Standing::Wanted { replicas, deployment } => {
                task.may_act()?;
                kubernetes.scale(*deployment, 0).await?;
                lowered.raised.push(format!("Deployment {} to {replicas}", workload.name));
            }
            // At least one, since there may be one to come.
            Standing::Ending { left } => lowered.left += left.max(1),
            Standing::Gone => {}
        }
    }
    Ok(lowered)
}

fn names(workloads: &[Scale]) -> String {
    let names: Vec<&str> = workloads.iter().map(|workload| workload.name.as_str()).collect();
    names.join(", ")
}

/// Scales back and waits until the pods are there.
pub async fn down(task: &Task<'_>, step: &Step, workloads: &[Scale]) -> Result<Outcome, Error> {
    let kubernetes = task.kubernetes();
    let mut messages = Vec::new();
    for workload in workloads {
        if let Some(deployment) = kubernetes.deployment(&workload.name).await?
            && deployment.spec.as_ref().and_then(|spec| spec.replicas) != Some(workload.replicas)
        {
            task.may_act()?;
            kubernetes.scale(deployment, workload.replicas).await?;
        }
        match kubernetes.rollout(&workload.name, step.started_at).await? {
            Rollout::Complete { message } => messages.push(message),
            Rollout::Progressing { message } => return waiting(message),
            Rollout::Failed { message } => return Ok(Outcome::Failed { message }),
        }
    }
    done(messages.join("; "))
}
