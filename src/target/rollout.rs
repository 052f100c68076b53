//! How far a rollout has come, judged from what was read. No requests here.
//!
//! Only pods of the ReplicaSet whose template is the Deployment's current one count: those of the release that is being
//! replaced may be in any trouble, which is often why it is replaced.

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Pod, PodTemplateSpec},
};

/// The ReplicaSet controller's own label, which no template of a Deployment has.
const HASH: &str = "pod-template-hash";

/// How far a rollout has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Rollout {
    Complete {
        message: String,
    },
    Progressing {
        message: String,
    },
    /// It will not come to an end by itself.
    Failed {
        message: String,
    },
}

/// What a rollout is judged from.
pub(super) struct Seen<'a> {
    pub deployment: &'a Deployment,
    pub sets: &'a [ReplicaSet],
    pub pods: &'a [Pod],
}

/// Whether the Deployment's controller has seen the newest spec. Until then its status tells of an older one.
pub(super) fn is_current(deployment: &Deployment) -> bool {
    deployment.status.as_ref().and_then(|status| status.observed_generation) >= deployment.metadata.generation
}

/// Whether a ReplicaSet is asked for no pod, and its controller knows.
pub(super) fn is_empty(set: &ReplicaSet) -> bool {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    wanted == 0 && set.status.as_ref().and_then(|status| status.observed_generation) >= set.metadata.generation
}

/// The rules of `kubectl rollout status`, and why new pods don't come up. A deadline that passed before `since` was that of
/// an earlier change.
pub(super) fn judge(name: &str, seen: &Seen<'_>, since: Option<Timestamp>) -> Rollout {
    let Seen { deployment, sets, pods } = seen;
    if !is_current(deployment) {
        return Rollout::Progressing { message: format!("Deployment {name} has not been looked at by its controller yet") };
    }
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let (total, updated, available) =
        (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    if updated == wanted && total == wanted && available == wanted {
        return Rollout::Complete { message: format!("Deployment {name}: {wanted} of {wanted} replicas updated and available") };
    }
    let message = format!("Deployment {name}: {updated} of {wanted} replicas updated, {available} available");
    let Some(newest) = newest(deployment, sets) else { return Rollout::Progressing { message } };
    let trouble = trouble(pods.iter().filter(|pod| belongs(pod, newest)));
    let detail = trouble.as_ref().map(|trouble| format!(": {}", trouble.detail)).unwrap_or_default();
    if trouble.is_some_and(|trouble| trouble.lasting) {
        return Rollout::Failed { message: format!("Deployment {name}{detail}") };
    }
    if is_overdue(deployment, newest, since) {
        return Rollout::Failed { message: format!("{message}; its progressDeadlineSeconds have passed{detail}") };
    }
    Rollout::Progressing { message: format!("{message}{detail}") }
}

/// The ReplicaSet of the Deployment's current template, found as its controller finds it: by comparing templates. `None`
/// while there is none yet.
fn newest<'a>(deployment: &Deployment, sets: &'a [ReplicaSet]) -> Option<&'a ReplicaSet> {
    let template = &deployment.spec.as_ref()?.template;
    let uid = deployment.metadata.uid.as_deref()?;
    sets.iter()
        .filter(|set| set.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid))
        .filter(|set| set.spec.as_ref().and_then(|spec| spec.template.as_ref()).is_some_and(|own| without_hash(own) == *template))
        .min_by_key(|set| set.metadata.creation_timestamp.as_ref().map(|created| created.0))
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(HASH);
    }
    template
}

fn belongs(pod: &Pod, set: &ReplicaSet) -> bool {
    pod.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
}

/// The controller leaves `ProgressDeadlineExceeded` standing when it goes back to a ReplicaSet that it has kept: the message
/// still names the other one.
fn is_overdue(deployment: &Deployment, newest: &ReplicaSet, since: Option<Timestamp>) -> bool {
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut exceeded =
        conditions.filter(|condition| condition.type_ == "Progressing" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    let named = format!("\"{}\"", newest.metadata.name.as_deref().unwrap_or_default());
    exceeded.any(|condition| {
        let earlier = since.is_some_and(|since| condition.last_update_time.as_ref().is_some_and(|at| at.0 < since));
        let other = condition.message.as_ref().is_some_and(|message| message.contains("ReplicaSet \"") && !message.contains(&named));
        !earlier && !other
    })
}

/// Why pods don't come up.
struct Trouble {
    detail: String,
    lasting: bool,
}

/// What a kubelet says that has not got a Secret or ConfigMap from the API server in time.
const BUSY_NODE: &str = "failed to sync";
/// So many restarts are no start-up hiccup any more.
const RESTARTS_THAT_TELL: i32 = 3;

fn trouble<'a>(pods: impl Iterator<Item = &'a Pod>) -> Option<Trouble> {
    let mut found: Vec<Trouble> = pods
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .flat_map(|pod| pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()))
        .filter_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.as_deref()?;
            let lasting = match reason {
                "ErrImageNeverPull" | "InvalidImageName" => true,
                // A key or Secret that is not there; but also a node that is too busy to read one, and then it tries again.
                "CreateContainerConfigError" => !waiting.message.as_ref().is_some_and(|message| message.contains(BUSY_NODE)),
                "CrashLoopBackOff" => container.restart_count >= RESTARTS_THAT_TELL,
                "ErrImagePull" | "ImagePullBackOff" => false,
                _ => return None,
            };
            Some(Trouble { detail: format!("container {} ({}): {reason}", container.name, container.image), lasting })
        })
        .collect();
    found.sort_by(|one, other| (other.lasting, &other.detail).cmp(&(one.lasting, &one.detail)));
    found.into_iter().next()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const BEFORE: &str = "2026-01-01T00:00:00Z";
    const STARTED: &str = "2026-01-01T00:01:00Z";
    const AFTER: &str = "2026-01-01T00:02:00Z";

    fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("the fixture is valid")
    }

    fn template(config: &str, hash: Option<&str>) -> Value {
        let mut labels = json!({"app": "api"});
        if let Some(hash) = hash {
            labels[HASH] = json!(hash);
        }
        let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": config, "key": "A"}}}]);
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "api", "image": "api:1", "env": env}]}})
    }

    /// Runs `good` now; `bad` was there before. Two replicas, one of the new ones is up.
    fn deployment(observed: i64, exceeded: Option<(&str, &str)>) -> Deployment {
        let conditions: Vec<Value> = exceeded
            .map(|(set, at)| {
                let message = format!("ReplicaSet \"{set}\" has timed out progressing.");
                json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": message, "lastUpdateTime": at})
            })
            .into_iter()
            .collect();
        parse(json!({
            "metadata": {"name": "api", "uid": "deployment", "generation": 2},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "api"}}, "template": template("good", None)},
            "status": {"observedGeneration": observed, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 1, "conditions": conditions},
        }))
    }

    fn set(config: &str, owner: &str) -> ReplicaSet {
        parse(json!({
            "metadata": {"name": format!("api-{config}"), "uid": config,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "api", "uid": owner, "controller": true}]},
            "spec": {"selector": {}, "template": template(config, Some(config))},
        }))
    }

    fn pod(set: &str, reason: &str, restarts: i32) -> Pod {
        let (reason, message) = reason.split_once(": ").unwrap_or((reason, ""));
        parse(json!({
            "metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": set, "controller": true}]},
            "status": {"containerStatuses": [{"name": "api", "image": "api:1", "imageID": "", "ready": false, "restartCount": restarts,
                "state": {"waiting": {"reason": reason, "message": message}}}]},
        }))
    }

    #[test]
    fn only_the_newest_pods_and_this_rollouts_deadline_fail_it() {
        let crashing = "CrashLoopBackOff";
        let both = || vec![set("bad", "deployment"), set("good", "deployment")];
        for (row, deployment, sets, pods, fails) in [
            ("the replaced pods crash", deployment(2, None), both(), vec![pod("bad", crashing, 9)], false),
            ("the new pods crash", deployment(2, None), both(), vec![pod("bad", crashing, 9), pod("good", crashing, 3)], true),
            (
                "a key is missing",
                deployment(2, None),
                both(),
                vec![pod("good", "CreateContainerConfigError: couldn't find key A", 0)],
                true,
            ),
            (
                "the node is busy",
                deployment(2, None),
                both(),
                vec![pod("good", "CreateContainerConfigError: failed to sync secret cache", 0)],
                false,
            ),
            ("the new pods have a hiccup", deployment(2, None), both(), vec![pod("good", crashing, 2)], false),
            ("the newest spec is not looked at yet", deployment(1, None), both(), vec![pod("good", crashing, 9)], false),
            ("no new ReplicaSet yet", deployment(2, None), vec![set("bad", "deployment")], vec![pod("bad", crashing, 9)], false),
            ("somebody else's ReplicaSet", deployment(2, None), vec![set("good", "other")], vec![pod("good", crashing, 9)], false),
            ("its own deadline", deployment(2, Some(("api-good", AFTER))), both(), vec![], true),
            ("a deadline from before", deployment(2, Some(("api-good", BEFORE))), both(), vec![], false),
            ("the replaced one's deadline", deployment(2, Some(("api-bad", AFTER))), both(), vec![], false),
        ] {
            let seen = Seen { deployment: &deployment, sets: &sets, pods: &pods };
            let rollout = judge("api", &seen, Some(STARTED.parse().expect("a time")));
            assert_eq!(matches!(rollout, Rollout::Failed { .. }), fails, "{row}: {rollout:?}");
            assert!(!matches!(rollout, Rollout::Complete { .. }), "{row}: {rollout:?}");
        }
    }
}
