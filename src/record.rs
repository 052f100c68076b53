//! The pen: the only writer of status, and the teller of events.
//!
//! Every write carries the `resourceVersion` of the decision behind it: if anything changed in between, the API server
//! refuses it, nothing was done, and the Release is looked at again. What a write makes of the status is computed by
//! `plan::journal` and `plan::summary`; this file adds no judgement.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::json;

use crate::{
    api::{
        BackupPoint, BackupPointStatus, Release, names,
        operation::{Approval, ApprovalState, Operation, OperationState, Scale, StepState},
        progress::Progress,
        status::ReleaseStatus,
    },
    cluster::{self, within},
    error::Class,
    lease::Leadership,
    plan::{
        Verdict,
        journal::{self, Look, Outcome, Request},
        summary::{self, ready_of},
    },
    telemetry::Metrics,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error("status.operation of Release {0} has no such step to run; annotate the Release with backout.dev/resetAt")]
    NoSuchStep(String),
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::NoSuchStep(_) => Class::Permanent,
        }
    }
}

/// Writes the status of Releases and BackupPoints.
#[derive(Clone)]
pub struct Pen {
    client: Client,
    recorder: Recorder,
    metrics: Metrics,
    leadership: Leadership,
}

impl Pen {
    pub fn new(client: Client, metrics: Metrics, leadership: Leadership) -> Self {
        let reporter = Reporter { controller: names::MANAGER.to_owned(), instance: None };
        Self { recorder: Recorder::new(client.clone(), reporter), client, metrics, leadership }
    }

    /// Writes down that the source was seen since a `requestedAt` token was set: a look that failed is no answer to it.
    pub async fn looked(&self, release: Release, now: Timestamp) -> Result<Release, Error> {
        let before = status(&release);
        let after = journal::answered(before.clone(), requested_at(&release));
        if after == before { Ok(release) } else { self.put(&release, after, now).await }
    }

    /// Writes a new operation down, all its steps pending.
    pub async fn begin_operation(&self, release: &Release, operation: Operation, now: Timestamp) -> Result<Release, Error> {
        let told = Told::new(EventType::Normal, format!("{}Begun", operation.kind.as_str()), describe(&operation));
        let verdict = Verdict::progressing(&operation);
        let mut status = with_look(release, journal::opened(status(release), operation));
        status.last_attempted_revision = status.operation.as_ref().map(|operation| operation.revision.clone());
        let written = self.write(release, status, &verdict, now).await?;
        self.tell(&written, told).await;
        Ok(written)
    }

    /// Writes a step down as started. Only after this may it have an effect.
    pub async fn begin(&self, release: &Release, step: usize, now: Timestamp) -> Result<Release, Error> {
        let status = journal::started(status(release), step, now).ok_or_else(|| Error::NoSuchStep(release.name_any()))?;
        let verdict = progressing(&status);
        let written = self.write(release, status, &verdict, now).await?;
        if let Some(begun) = operation(&written).and_then(|operation| operation.steps.get(step)).filter(|begun| begun.attempt == 1) {
            self.tell(
                &written,
                Told::new(EventType::Normal, format!("{}Started", begun.name.as_str()), format!("{} started", begun.name.as_str())),
            )
            .await;
        }
        Ok(written)
    }

    /// Writes down that a step waits for its turn, if that is not there already.
    pub async fn queue(&self, release: &Release, step: usize, message: String, now: Timestamp) -> Result<Release, Error> {
        let before = status(release);
        let after = journal::queued(before.clone(), step, message).ok_or_else(|| Error::NoSuchStep(release.name_any()))?;
        if after == before {
            return Ok(release.clone());
        }
        let verdict = progressing(&after);
        self.write(release, after, &verdict, now).await
    }

    /// Writes down how far a step has come, and gives back what it wrote: the step's end is written over that. Where somebody else
    /// wrote meanwhile this is refused like any other write.
    pub async fn progress(&self, release: &Release, step: usize, progress: Progress, now: Timestamp) -> Result<Release, Error> {
        let status = journal::progressed(status(release), step, progress).ok_or_else(|| Error::NoSuchStep(release.name_any()))?;
        let verdict = progressing(&status);
        self.write(release, status, &verdict, now).await
    }

    /// Writes down how a step went.
    pub async fn finish(&self, release: &Release, step: usize, outcome: &Outcome, now: Timestamp) -> Result<Release, Error> {
        let spec = &release.spec;
        let before = status(release);
        let after = journal::settled(before.clone(), step, outcome, spec.retry_interval, spec.timeout, now)
            .ok_or_else(|| Error::NoSuchStep(release.name_any()))?;
        if after == before {
            return Ok(release.clone());
        }
        let verdict = progressing(&after);
        let written = self.write(release, after, &verdict, now).await?;
        let Some(run) = operation(&written).and_then(|operation| operation.steps.get(step)) else { return Ok(written) };
        let name = run.name.as_str();
        let message = run.message.clone().unwrap_or_default();
        if let (StepState::Done | StepState::Failed, Some(started)) = (run.state, run.started_at) {
            let result = if run.state == StepState::Done { "done" } else { "failed" };
            self.metrics.step(name, result, now.duration_since(started));
        }
        let told = match (run.state, outcome) {
            (StepState::Done, _) => Told::new(EventType::Normal, format!("{name}Done"), message),
            (StepState::Failed, _) => Told::new(EventType::Warning, format!("{name}Failed"), message),
            (_, Outcome::Retry { .. }) => Told::new(EventType::Warning, format!("{name}Retrying"), message),
            (_, Outcome::Refused { .. }) => Told::new(EventType::Warning, format!("{name}Refused"), message),
            (_, Outcome::Measured { .. }) if asks_for_the_first_time(&before) => {
                Told::new(EventType::Warning, "LossMeasured".to_owned(), message)
            }
            (StepState::Started | StepState::Pending, _) => return Ok(written),
        };
        self.tell(&written, told).await;
        Ok(written)
    }

    /// Writes down that the gate before a loss of data opened, and by whom.
    pub async fn grant(&self, release: &Release, step: usize, approval: Approval, now: Timestamp) -> Result<Release, Error> {
        let status = journal::granted(status(release), step, approval, now).ok_or_else(|| Error::NoSuchStep(release.name_any()))?;
        let verdict = progressing(&status);
        let written = self.write(release, status, &verdict, now).await?;
        if let Some(gate) = operation(&written).and_then(|operation| operation.steps.get(step)) {
            let told = Told::new(EventType::Normal, "ApproveDone".to_owned(), gate.message.clone().unwrap_or_default());
            self.tell(&written, told).await;
        }
        Ok(written)
    }

    /// Writes down that the operation that runs puts up a fence before it ends.
    pub async fn contain(&self, release: &Release, workloads: Vec<Scale>, now: Timestamp) -> Result<Release, Error> {
        let status = journal::contained(status(release), workloads).ok_or_else(|| Error::NoSuchStep(release.name_any()))?;
        let verdict = progressing(&status);
        self.write(release, status, &verdict, now).await
    }

    /// Answers a request by annotation that can't be met.
    pub async fn refuse(&self, release: &Release, request: Request, message: String, now: Timestamp) -> Result<Release, Error> {
        let reason = match &request {
            Request::Undo(_) => "UndoRefused",
            Request::BackUp(_) => "BackUpRefused",
        };
        let written = self.put(release, journal::refused(status(release), request), now).await?;
        self.tell(&written, Told::new(EventType::Warning, reason.to_owned(), message)).await;
        Ok(written)
    }

    /// Keeps the object from vanishing before [`Pen::farewell`]: from the first operation on there is something to free.
    pub async fn hold(&self, release: &Release) -> Result<(), Error> {
        let mut finalizers = release.finalizers().to_vec();
        finalizers.push(names::FINALIZER.to_owned());
        self.finalizers(release, finalizers).await
    }

    async fn finalizers(&self, release: &Release, finalizers: Vec<String>) -> Result<(), Error> {
        let name = release.name_any();
        let api: Api<Release> = Api::namespaced(self.client.clone(), &release.namespace().unwrap_or_default());
        let patch = json!({"metadata": {"resourceVersion": release.resource_version(), "finalizers": finalizers}});
        let params = PatchParams { field_manager: Some(names::MANAGER.to_owned()), ..PatchParams::default() };
        match within(format!("writing the finalizers of Release {name}"), api.patch(&name, &params, &Patch::Merge(&patch))).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a deleted Release go, and says what stays.
    pub async fn farewell(&self, release: &Release) -> Result<(), Error> {
        let status = status(release);
        let type_ = if journal::open_fence(&status).is_some() { EventType::Warning } else { EventType::Normal };
        self.metrics.forget(&release.namespace().unwrap_or_default(), &release.name_any());
        self.tell(release, Told::new(type_, "Released".to_owned(), summary::farewell(&status))).await;
        let finalizers = release.finalizers().iter().filter(|name| *name != names::FINALIZER).cloned().collect();
        self.finalizers(release, finalizers).await
    }

    /// Writes down that the operation that runs has ended.
    pub async fn close(&self, release: &Release, end: OperationState, now: Timestamp) -> Result<Release, Error> {
        let status = journal::closed(status(release), end, now).ok_or_else(|| Error::NoSuchStep(release.name_any()))?;
        let verdict = progressing(&status);
        let written = self.write(release, status, &verdict, now).await?;
        if let Some(ended) = operation(&written) {
            let (type_, word, result) = match end {
                OperationState::Succeeded => (EventType::Normal, "Succeeded", "succeeded"),
                OperationState::Failed => (EventType::Warning, "Failed", "failed"),
                OperationState::Superseded => (EventType::Normal, "Superseded", "superseded"),
                OperationState::Running => (EventType::Normal, "Running", "running"),
            };
            self.metrics.operation(ended.kind.as_str(), result, now.duration_since(ended.started_at));
            self.tell(&written, Told::new(type_, format!("{}{word}", ended.kind.as_str()), describe(ended))).await;
        }
        Ok(written)
    }

    /// Writes down that failures were forgotten.
    pub async fn reset(&self, release: &Release, token: String, now: Timestamp) -> Result<Release, Error> {
        let status = journal::reset(status(release), token.clone());
        let written = self.put(release, with_look(release, status), now).await?;
        self.tell(
            &written,
            Told::new(
                EventType::Normal,
                "Reset".to_owned(),
                format!("failures and quarantine forgotten as {} {token} asks", names::RESET_AT),
            ),
        )
        .await;
        Ok(written)
    }

    /// Writes down what a look came to, if it says anything new. `revision` is what the source holds, where it was seen.
    pub async fn observed(&self, release: &Release, verdict: &Verdict, revision: Option<String>, now: Timestamp) -> Result<Release, Error> {
        let before = status(release);
        let mut status = with_look(release, before.clone());
        if revision.is_some() {
            status = journal::answered(status, requested_at(release));
            status.last_attempted_revision = revision;
        }
        let generation = release.metadata.generation.unwrap_or_default();
        let after = summary::apply(status, verdict, generation, now);
        let ready = ready_of(&after).cloned();
        let is_ready = ready.as_ref().is_some_and(|ready| ready.status == "True");
        self.metrics.ready(&release.namespace().unwrap_or_default(), &release.name_any(), is_ready);
        if after == before {
            return Ok(release.clone());
        }
        let written = self.put(release, after, now).await?;
        if let Some(ready) = ready.filter(|ready| ready_of(&before).is_none_or(|before| before.reason != ready.reason)) {
            let type_ = if is_ready { EventType::Normal } else { EventType::Warning };
            self.tell(&written, Told::new(type_, ready.reason, ready.message)).await;
        }
        Ok(written)
    }

    /// Marks a Release that can't be read. Its other fields are not known, so only the conditions are written.
    pub async fn unreadable(&self, metadata: &ObjectMeta, error: &str, now: Timestamp) -> Result<(), Error> {
        let generation = metadata.generation.unwrap_or_default();
        let status = summary::apply(ReleaseStatus::default(), &Verdict::invalid(error), generation, now);
        let patch = json!({
            "metadata": {"resourceVersion": metadata.resource_version},
            "status": {"conditions": status.conditions, "observedGeneration": generation, "phase": status.phase},
        });
        let (name, api) = self.untyped(metadata);
        within(format!("writing the status of Release {name}"), api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)))
            .await?;
        Ok(())
    }

    /// Lets a deleted Release go that can't be read: what it holds is not known, so nobody could ever free it.
    pub async fn abandon(&self, metadata: &ObjectMeta, error: &str) -> Result<(), Error> {
        let (mine, others): (Vec<_>, Vec<_>) = metadata.finalizers.iter().flatten().partition(|name| *name == names::FINALIZER);
        if mine.is_empty() {
            return Ok(());
        }
        let (name, api) = self.untyped(metadata);
        let event = Event {
            type_: EventType::Warning,
            action: "Release".to_owned(),
            reason: "Abandoned".to_owned(),
            note: Some(shortened(summary::abandoned(error))),
            secondary: None,
        };
        let object = ObjectReference {
            api_version: Some(Release::api_version(&()).into_owned()),
            kind: Some(Release::kind(&()).into_owned()),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            ..ObjectReference::default()
        };
        self.publish(&name, &event, &object).await;
        let patch = json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": others}});
        match within(format!("writing the finalizers of Release {name}"), api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn untyped(&self, metadata: &ObjectMeta) -> (String, Api<DynamicObject>) {
        let resource = ApiResource::erase::<Release>(&());
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        (metadata.name.clone().unwrap_or_default(), Api::namespaced_with(self.client.clone(), namespace, &resource))
    }

    /// Writes the facts of a backup point, as its manifest has them.
    pub async fn point(&self, point: &BackupPoint, status: &BackupPointStatus) -> Result<(), Error> {
        let name = point.name_any();
        let api: Api<BackupPoint> = Api::namespaced(self.client.clone(), &point.namespace().unwrap_or_default());
        let patch = json!({"apiVersion": BackupPoint::api_version(&()), "kind": BackupPoint::kind(&()), "metadata": {"name": name}, "status": status});
        within(
            format!("writing the status of BackupPoint {name}"),
            api.patch_status(&name, &PatchParams::apply(names::MANAGER).force(), &Patch::Apply(&patch)),
        )
        .await?;
        Ok(())
    }

    async fn write(&self, release: &Release, status: ReleaseStatus, verdict: &Verdict, now: Timestamp) -> Result<Release, Error> {
        let generation = release.metadata.generation.unwrap_or_default();
        self.put(release, summary::apply(status, verdict, generation, now), now).await
    }

    async fn put(&self, release: &Release, status: ReleaseStatus, now: Timestamp) -> Result<Release, Error> {
        let name = release.name_any();
        let api: Api<Release> = Api::namespaced(self.client.clone(), &release.namespace().unwrap_or_default());
        if is_marked_unreadable(release) {
            // Those conditions were merged in, and what an apply does not own it can't remove.
            let patch = json!({
                "metadata": {"resourceVersion": release.resource_version()},
                "status": {"conditions": status.conditions},
            });
            let doing = format!("writing the status of Release {name}");
            let merged = within(doing, api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))).await?;
            return Box::pin(self.put(&merged, status, now)).await;
        }
        let patch = json!({
            "apiVersion": Release::api_version(&()),
            "kind": Release::kind(&()),
            // With the version of the decision: a newer object is never overwritten.
            "metadata": {"name": name, "uid": release.uid(), "resourceVersion": release.resource_version()},
            "status": status,
        });
        let params = PatchParams::apply(names::MANAGER).force();
        let written =
            within(format!("writing the status of Release {name}"), api.patch_status(&name, &params, &Patch::Apply(&patch))).await?;
        tracing::debug!(release = name, at = %now, phase = status.phase.as_deref(), "status written");
        Ok(written)
    }

    /// Tells people.
    async fn tell(&self, release: &Release, told: Told) {
        let Told { type_, reason, note } = told;
        // Events with the same reason and action are counted together under the first one's text. Each operation's are its own.
        let operation = operation(release).map_or(0, |operation| operation.id);
        tracing::info!(namespace = release.namespace(), release = release.name_any(), reason, "{note}");
        let event = Event { type_, action: format!("Operation{operation}"), reason, note: Some(shortened(note)), secondary: None };
        self.publish(&release.name_any(), &event, &release.object_ref(&())).await;
    }

    /// An event that can't be sent changes nothing about what was done. Nor is one sent by a process that was stopped before it could tell
    /// of its last write and wakes when another leads: it would be read as news.
    async fn publish(&self, release: &str, event: &Event, object: &ObjectReference) {
        if !self.leadership.holds() {
            return tracing::warn!(release, reason = event.reason, "an event was not sent: another process leads");
        }
        if let Err(error) = within("publishing an event", self.recorder.publish(event, object)).await {
            tracing::warn!(release, %error, "an event was lost");
        }
    }
}

struct Told {
    type_: EventType,
    reason: String,
    note: String,
}

impl Told {
    fn new(type_: EventType, reason: String, note: String) -> Self {
        Self { type_, reason, note }
    }
}

fn status(release: &Release) -> ReleaseStatus {
    release.status.clone().unwrap_or_default()
}

fn operation(release: &Release) -> Option<&Operation> {
    release.status.as_ref()?.operation.as_ref()
}

fn progressing(status: &ReleaseStatus) -> Verdict {
    status.operation.as_ref().map_or_else(Verdict::suspended, Verdict::progressing)
}

/// What the object says, as far as it is remembered.
fn with_look(release: &Release, status: ReleaseStatus) -> ReleaseStatus {
    let pinned_point = release.spec.rollback_to.as_ref().and_then(|pin| pin.backup_point.as_deref());
    journal::looked(status, Look { undo: release.annotations().get(names::UNDO).map(String::as_str), pinned_point })
}

fn requested_at(release: &Release) -> Option<&str> {
    release.annotations().get(names::REQUESTED_AT).map(String::as_str)
}

fn is_marked_unreadable(release: &Release) -> bool {
    let conditions = release.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|condition| condition.reason == "InvalidSpec").any(|condition| condition.type_ == "Stalled")
}

fn asks_for_the_first_time(before: &ReleaseStatus) -> bool {
    before.operation.as_ref().is_none_or(|operation| operation.loss.is_none())
}

fn describe(operation: &Operation) -> String {
    let steps: Vec<&str> = operation.steps.iter().map(|step| step.name.as_str()).collect();
    let Operation { to, version, revision, cause, .. } = operation;
    let approved = operation.approval.as_ref().filter(|approval| approval.state == ApprovalState::Approved);
    let approved = approved.map(|approval| format!(" Approved by {}.", approval.by.as_deref().unwrap_or("somebody"))).unwrap_or_default();
    format!("release {to} ({version}) at {revision}: {cause}.{approved} Steps: {}", steps.join(", "))
}

/// The API server refuses longer notes.
const LONGEST_NOTE: usize = 1_000;

fn shortened(note: String) -> String {
    if note.len() <= LONGEST_NOTE {
        return note;
    }
    let end = (0..LONGEST_NOTE).rev().find(|index| note.is_char_boundary(*index)).unwrap_or(0);
    format!("{}…", &note[..end])
}
