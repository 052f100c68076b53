//! What must hold before anything is begun: refusals that name the object and the remedy.

use super::input::DatabaseSeen;
use crate::api::{
    Content, Migration,
    release::{Method, ReleaseSpec},
};

/// Every image of the release has a container to go to, and a container that has its image from the release that runs gets
/// another: what was there before nobody knows any more, and without any the API server refuses the Deployment.
pub fn containers(spec: &ReleaseSpec, content: &Content, current: Option<&Content>) -> Vec<String> {
    let known: Vec<&str> = spec.target.kubernetes.workloads.iter().map(|workload| workload.container.as_str()).collect();
    let bereft = known.iter().filter(|container| {
        current.is_some_and(|current| current.images.contains_key(**container)) && !content.images.contains_key(**container)
    });
    let bereft = bereft.map(|container| {
        format!("the release names no image for container {container:?}, which has one from the release that runs: name it in images")
    });
    let homeless = content.images.keys().filter(|container| !known.contains(&container.as_str())).map(|container| {
        format!("the release has an image for container {container:?}, but spec.target.kubernetes.workloads has only {}", known.join(", "))
    });
    bereft.chain(homeless).collect()
}

/// Versions of the migrations that the release would apply, ascending, or why it can't.
pub fn pending(spec: &ReleaseSpec, database: &DatabaseSeen, content: &Content) -> Result<Vec<u64>, Vec<String>> {
    let mut problems: Vec<String> = database.applied.iter().filter_map(|applied| applied.trouble.clone()).collect();
    for applied in &database.applied {
        match content.migrations.iter().find(|migration| migration.version == applied.version) {
            None => problems.push(format!(
                "migration {:04}_{} is applied but not in the release: keep its files and undo it by a newer migration, or go back by reverting the commit that brought it",
                applied.version, applied.name
            )),
            Some(migration) if migration.checksum() != applied.checksum => problems.push(format!(
                "migration {} was changed after it was applied: put its old text back and make a new migration",
                migration.label()
            )),
            Some(_) => {}
        }
    }
    let pending: Vec<&Migration> =
        content.migrations.iter().filter(|migration| database.applied.iter().all(|applied| applied.version != migration.version)).collect();
    if !pending.is_empty() {
        let restorable = spec.rollback.database.contains(&Method::Restore);
        if restorable && !database.uncarried.is_empty() {
            problems.push(format!(
                "a backup point can't carry {}: remove them, or take Restore out of spec.rollback.database",
                database.uncarried.join(", ")
            ));
        }
        if !restorable && spec.rollback.database.contains(&Method::RevertSchema) {
            problems.extend(pending.iter().filter(|migration| migration.down.is_none()).map(|migration| {
                format!(
                    "migration {0} has no down script and spec.rollback.database has no Restore, so it could not be taken back: add {0}.down.sql or Restore",
                    migration.label()
                )
            }));
        }
        if !database.prepared.is_empty() {
            problems.push(prepared(&database.prepared));
        }
        if !database.missing_grants.is_empty() {
            problems.push(grants(&database.missing_grants));
        }
    }
    if problems.is_empty() { Ok(pending.iter().map(|migration| migration.version).collect()) } else { Err(problems) }
}

/// A prepared transaction holds its locks until somebody ends it, and whoever did may be gone.
pub fn prepared(transactions: &[String]) -> String {
    format!("prepared XA transactions hold locks: {}; end each with XA COMMIT or XA ROLLBACK", transactions.join(", "))
}

/// Says which statements give the account what it lacks.
pub fn grants(missing: &[String]) -> String {
    format!("the database account lacks privileges; run: {}", missing.join("; "))
}
