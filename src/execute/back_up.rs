//! BackUp: capture the database and say so in a BackupPoint.
//!
//! Idempotent: a capture whose manifest is complete is not taken again; the manifest is the truth, the object its image.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Error, Outcome, Task, done, waiting};
use crate::{
    api::{BackupPoint, BackupPointSpec, BackupPointStatus, backup_point::PointReason, names},
    cluster::within,
    mysql::{self, Summary},
};

/// A capture that is complete, and of what and into what it was taken: the spec may have changed meanwhile.
pub struct Taken {
    summary: Summary,
    /// The database, as a BackupPoint names it.
    database: String,
    /// The URL of the point's folder.
    location: String,
}

/// Before the next step, which waits for it: of release `number`, or of one that takes the database back from it.
pub async fn run(task: &Task<'_>, number: u64, point: &str, reason: PointReason) -> Result<Outcome, Error> {
    let database = task.heard_database().await?;
    let taken = capture(task, database, number, point).await?.await?;
    let before = (reason == PointReason::PreDeploy).then_some(number);
    record(task, reason, (point, before), taken).await
}

/// While release `number` runs, and beside whatever else is asked for.
pub async fn run_beside(task: &Task<'_>, number: u64, point: &str, reason: PointReason) -> Result<Outcome, Error> {
    let captures = &task.hands.captures;
    if let Some(ended) = captures.ended(task.release) {
        return record(task, reason, (point, None), ended?).await;
    }
    if let Some(place) = task.take_place() {
        captures.begin(
            task.release,
            place,
            task.release.spec.timeout.0,
            "capture",
            capture(task, task.database().await?, number, point).await?,
        );
    }
    waiting(format!("BackupPoint {point} is being taken"))
}

/// The capture, as work that needs the task no more.
async fn capture(
    task: &Task<'_>,
    database: mysql::Database,
    number: u64,
    point: &str,
) -> Result<impl Future<Output = mysql::Result<Taken>> + Send + use<>, Error> {
    let (store, spec, prefix) = (task.store().await?, task.database_spec()?, task.prefix(point));
    let (place, location) = (spec.mysql.place(), names::location(&spec.backup.store.url, prefix.as_ref()));
    let what = mysql::Capture { point: point.to_owned(), operation: task.operation(), release: number };
    Ok(async move {
        let summary = mysql::capture(&database, &store, &prefix, &what).await?;
        Ok(Taken { summary, database: place, location })
    })
}

async fn record(task: &Task<'_>, reason: PointReason, (point, before): (&str, Option<u64>), taken: Taken) -> Result<Outcome, Error> {
    let Taken { summary, database, location } = taken;
    let spec = BackupPointSpec { release: task.name.clone(), before, reason, database: Some(database) };
    let api: Api<BackupPoint> = Api::namespaced(task.hands.client.clone(), &task.namespace);
    let object = json!({
        "apiVersion": "backout.dev/v1alpha1",
        "kind": "BackupPoint",
        "metadata": task.metadata(point),
        "spec": spec,
    });
    let object = within(
        format!("applying BackupPoint {point}"),
        api.patch(point, &PatchParams::apply(names::MANAGER).force(), &Patch::Apply(&object)),
    )
    .await?;
    let revision = task.release.status.as_ref().and_then(|status| status.last_applied_revision.clone());
    let status = facts(&summary, location, revision);
    task.hands.pen.point(&object, &status).await?;
    done(format!(
        "BackupPoint {point}: {} tables, {} rows, {} bytes",
        status.tables.unwrap_or_default(),
        status.rows.unwrap_or_default(),
        status.bytes.unwrap_or_default()
    ))
}

fn facts(summary: &Summary, location: String, revision: Option<String>) -> BackupPointStatus {
    let head = &summary.head;
    BackupPointStatus {
        verified: true,
        location: Some(location),
        digest: Some(head.digest.clone()),
        taken_at: head.taken_at.parse().ok(),
        position: head.position.as_ref().map(|position| format!("{}:{}", position.file, position.offset)),
        gtid: head.position.as_ref().and_then(|position| position.gtid.clone()),
        schema_version: head.schema_version,
        migrations: head.migrations.clone(),
        tables: Some(summary.tables),
        rows: Some(summary.rows),
        bytes: Some(summary.bytes()),
        revision,
        rehearsed: None,
    }
}
