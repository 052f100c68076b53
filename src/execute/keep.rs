//! Keep: the release as a ControllerRevision, so that it can be gone back to without git.
//!
//! Idempotent: the name holds the number, and a number is given once. One that is there is compared, never overwritten.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::PostParams;
use serde_json::json;

use super::{Error, Outcome, Task, done};
use crate::{
    access,
    api::{Kept, names},
    cluster::within,
    plan::input::Desired,
};

pub async fn run(task: &Task<'_>, number: u64, digest: &str, revision: &str, desired: Option<&Desired>) -> Result<Outcome, Error> {
    let name = names::revision(&task.name, number);
    match task.kept(number).await {
        Ok(kept) if kept.content.digest() == digest => return done(format!("ControllerRevision {name} holds the release")),
        Ok(_) => return Err(Error::Inconsistent(format!("ControllerRevision {name} holds another release than was planned; delete it"))),
        Err(Error::NotKept(_)) => {}
        Err(error) => return Err(error),
    }
    let Some(desired) = desired.filter(|desired| desired.digest == digest) else {
        return Ok(Outcome::Refused {
            message: format!("the source does not hold {revision} any more; waiting for it, or for something newer"),
        });
    };

    let mut secret_keys = BTreeMap::new();
    let mut problems = Vec::new();
    for secret in &desired.content.secrets {
        match task.hands.access.secret_keys(&task.namespace, secret).await {
            Ok(keys) => {
                secret_keys.insert(secret.clone(), keys);
            }
            Err(error @ access::Error::SecretMissing { .. }) => problems.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    if !problems.is_empty() {
        return Ok(Outcome::Refused { message: problems.join("; ") });
    }

    let kept = Kept { content: desired.content.clone(), revision: revision.to_owned(), secret_keys };
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": task.metadata(&name),
        "revision": number,
        "data": kept,
    });
    let object: ControllerRevision =
        serde_json::from_value(object).map_err(|error| Error::Inconsistent(format!("ControllerRevision {name}: {error}")))?;
    // If the answer to an earlier create was lost, this one is a conflict: the step is run again and compares.
    within(format!("creating ControllerRevision {name}"), task.revisions().create(&PostParams::default(), &object)).await?;
    done(format!("kept as ControllerRevision {name}"))
}
