//! Names that Backout gives and names that it reads: labels, annotations, child objects, schemas. All are deterministic,
//! so that a step repeated after a crash finds what it made before.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// Field manager of every server-side apply, and the reporter of every event.
pub const MANAGER: &str = "backout";
/// Label value that marks objects as Backout's own; its watch caches select by it.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "backout");
/// Label that names the Release an object belongs to.
pub const RELEASE_LABEL: &str = "backout.dev/release";
/// Annotation on a workload: the number of the release that it runs.
pub const NUMBER_ANNOTATION: &str = "backout.dev/release-number";
/// One-shot token on a Release: look at the source now.
pub const REQUESTED_AT: &str = "backout.dev/requestedAt";
/// One-shot token on a Release: forget failures and quarantine and decide anew.
pub const RESET_AT: &str = "backout.dev/resetAt";

/// One-shot token on a Release: take a backup point as soon as nothing else is to be done.
pub const BACKUP_AT: &str = "backout.dev/backupAt";
/// Agrees to the plan whose digest it names.
pub const APPROVE: &str = "backout.dev/approve";
/// Who set [`APPROVE`], as the admission policy in manifests/ sees to it.
pub const APPROVED_BY: &str = "backout.dev/approved-by";
/// One-shot token on a Release: swap back what the operation of this number replaced.
pub const UNDO: &str = "backout.dev/undo";
/// Keeps a deleted Release until what it holds is freed.
pub const FINALIZER: &str = "backout.dev/release";

/// `ControllerRevision` that keeps release `number`.
pub fn revision(release: &str, number: u64) -> String {
    format!("{release}-{number}")
}

/// `BackupPoint` taken before release `number` was deployed.
pub fn point(release: &str, number: u64) -> String {
    format!("{release}-{number}-predeploy")
}

/// `BackupPoint` that was due at `due`, or because there was none. Which database and store are part of the name: what was taken of another one
/// is never found under it, and what a capture that was cut off has left goes with the next try.
pub fn scheduled_point(release: &str, due: Option<Timestamp>, place: &str) -> String {
    let due = due.map_or_else(|| "first".to_owned(), |due| due.strftime("%Y%m%dt%H%M%S").to_string());
    format!("{release}-{due}-scheduled-{}", short(&Sha256::digest(place)))
}

/// `BackupPoint` that somebody asked for with `token`; the same holds.
pub fn manual_point(release: &str, token: &str, place: &str) -> String {
    format!("{release}-manual-{}", short(&Sha256::digest(format!("{token} {place}"))))
}

/// `BackupPoint` that an operation takes before it runs down scripts. Operations are counted anew in each life of a name.
pub fn emergency_point(release: &str, uid: &str, operation: u64) -> String {
    format!("{release}-{operation}-emergency-{}", short(&Sha256::digest(uid)))
}

/// Folder of a backup point below a store's URL: names of Releases repeat across namespaces and lives, uids don't.
pub fn folder(namespace: &str, uid: &str, point: &str) -> String {
    format!("{namespace}/{uid}/{point}")
}

/// The URL of a folder below a store's.
pub fn location(store: &str, folder: &str) -> String {
    format!("{}/{folder}", store.trim_end_matches('/'))
}

/// `ConfigMap` for one set of configuration values: the same values have the same name, other values another.
pub fn config_map(release: &str, config: &std::collections::BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for (key, value) in config {
        // Lengths keep {"A": "1B"} and {"A1": "B"} apart.
        hash.update((key.len() as u64).to_be_bytes());
        hash.update(key);
        hash.update((value.len() as u64).to_be_bytes());
        hash.update(value);
    }
    format!("{release}-{}", short(&hash.finalize()))
}

/// Schema into which a backup point is loaded: named by the point, so that whoever needs it next finds what is there. `uid`
/// keeps Releases that share a server apart.
pub fn shadow(database: &str, uid: &str, point: &str) -> String {
    format!("{database}_backout_{}_shadow", short(&Sha256::digest(format!("{uid}/{point}"))))
}

/// Schema that receives the replaced tables.
pub fn aside(database: &str, uid: &str, operation: u64) -> String {
    format!("{database}_backout_{}_{operation}_aside", short(&Sha256::digest(uid)))
}

/// An operation of a Release as the database knows it: unique for each operation of each Release that ever was.
pub fn operation(uid: &str, operation: u64) -> String {
    format!("{uid}/{operation}")
}

/// Names one plan of one operation of one Release: approving it approves nothing else.
pub fn plan_digest(uid: &str, operation: u64, actions: &[super::operation::Action]) -> String {
    let mut hash = Sha256::new();
    hash.update(uid);
    hash.update(operation.to_be_bytes());
    hash.update(serde_json::to_vec(actions).expect("strings, integers and enums always serialise"));
    short(&hash.finalize())
}

/// The first ten hex digits: enough to tell a Release's own few hundred objects apart.
fn short(digest: &[u8]) -> String {
    hex::encode(digest).chars().take(10).collect()
}
