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

/// Before release `number`, which waits for it.
pub async fn run(task: &Task<'_>, number: u64, point: &str) -> Result<Outcome, Error> {
    let (database, store) = (task.heard_database().await?, task.store().await?);
    let taken = mysql::capture(&database, &store, &task.prefix(point), &labels(task, number, point)).await?;
    record(task, PointReason::PreDeploy, (point, Some(number)), &taken).await
}

/// While release `number` runs, and beside whatever else is asked for.
pub async fn run_beside(task: &Task<'_>, number: u64, point: &str, reason: PointReason) -> Result<Outcome, Error> {
    let captures = &task.hands.captures;
    if let Some(ended) = captures.ended(task.uid(), point) {
        return record(task, reason, (point, None), &ended?).await;
    }
    if !captures.runs(task.uid(), point) {
        let (database, store) = (task.database().await?, task.store().await?);
        let (prefix, labels) = (task.prefix(point), labels(task, number, point));
        captures.begin(task, point, "capture", async move { mysql::capture(&database, &store, &prefix, &labels).await });
    }
    waiting(format!("BackupPoint {point} is being taken"))
}

fn labels(task: &Task<'_>, number: u64, point: &str) -> mysql::Capture {
    mysql::Capture { point: point.to_owned(), operation: task.operation(), release: number }
}

async fn record(task: &Task<'_>, reason: PointReason, (point, before): (&str, Option<u64>), taken: &Summary) -> Result<Outcome, Error> {
    let url = &task.database_spec()?.backup.store.url;
    let database = Some(task.database_spec()?.mysql.place());
    let spec = BackupPointSpec { release: task.name.clone(), before, reason, database };
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
    let status = facts(taken, task.location(url, &task.prefix(point)), revision);
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
