//! Expire: delete backup points whose time has passed.
//!
//! The object says first that the point is not to be restored any more, then the manifest goes, so that what is left after a crash is
//! no backup; the files next; the object last, because it is what names the rest. Idempotent: what is gone already is passed over.

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
};

use super::{Error, Outcome, Task, done};
use crate::{
    api::{BackupPoint, BackupPointStatus, operation::Expired},
    cluster::within,
    mysql,
};

pub async fn run(task: &Task<'_>, points: &[Expired]) -> Result<Outcome, Error> {
    let store = task.store().await?;
    let api: Api<BackupPoint> = Api::namespaced(task.hands.client.clone(), &task.namespace);
    let mut told = Vec::new();
    for Expired { point, why } in points {
        let object = within(format!("reading BackupPoint {point}"), api.get_opt(point)).await?;
        if let Some(object) = &object
            && !is_ours(task, object)
        {
            told.push(format!("BackupPoint {point} was left alone: it is being deleted, or belongs to another Release"));
            continue;
        }
        task.may_act()?;
        if let Some(object) = &object {
            let status = BackupPointStatus { verified: false, ..object.status.clone().unwrap_or_default() };
            task.hands.pen.point(object, &status).await?;
        }
        mysql::forget(&store, &task.prefix(point)).await?;
        if let Some(object) = object {
            task.may_act()?;
            // Never one that was made under its name since.
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
                ..DeleteParams::default()
            };
            match within(format!("deleting BackupPoint {point}"), api.delete(point, &params)).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        told.push(format!("deleted BackupPoint {point}: {why}"));
    }
    done(told.join("; "))
}

fn is_ours(task: &Task<'_>, point: &BackupPoint) -> bool {
    let of_release = point.spec.release == task.name && point.owner_references().iter().all(|owner| owner.uid == task.uid());
    of_release && point.metadata.deletion_timestamp.is_none()
}
