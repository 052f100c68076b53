//! The custom resource definitions, as they stand in `crds/`.

use std::path::Path;

use kube::CustomResourceExt;

use crate::api::{BackupPoint, Release};

/// File name in `crds/` and its YAML, for each kind.
pub fn files() -> Result<[(&'static str, String); 2], String> {
    let yaml = |crd| serde_saphyr::to_string(&crd).map_err(|error| error.to_string());
    Ok([("backout.dev_backuppoints.yaml", yaml(BackupPoint::crd())?), ("backout.dev_releases.yaml", yaml(Release::crd())?)])
}

/// Writes each file into `dir`.
pub fn write(dir: &Path) -> Result<(), String> {
    for (name, yaml) in files()? {
        let path = dir.join(name);
        std::fs::write(&path, yaml).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// All of them as one stream of documents.
pub fn yaml() -> Result<String, String> {
    Ok(files()?.iter().map(|(_, yaml)| format!("---\n{}\n", yaml.trim_end())).collect())
}
