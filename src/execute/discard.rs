//! Discard: drop schemas beside the live one that are not needed any more.
//!
//! Idempotent: a schema that is gone is passed over. The engine refuses one that it did not make.

use super::{Error, Outcome, Task, done};
use crate::{api::operation::Ownership, mysql};

pub async fn run(task: &Task<'_>, schemas: &[String], ownership: Ownership) -> Result<Outcome, Error> {
    let database = task.database().await?;
    for schema in schemas {
        mysql::discard(&database, schema).await?;
    }
    match ownership {
        Ownership::Kept => {}
        Ownership::Released => mysql::release_ownership(&database, task.uid()).await?,
    }
    done(if schemas.is_empty() { "nothing was left to drop".to_owned() } else { format!("dropped {}", schemas.join(", ")) })
}
