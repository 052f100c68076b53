//! A folder of the operator's volume as a backup store.

use std::{
    path::{Component, Path},
    sync::Arc,
};

use object_store::{ObjectStore, local::LocalFileSystem};
use url::Url;

use super::Refused;

/// Opens the folder that `url` (`file:///…`) names below `root`; both are made if they are not there.
pub fn open(root: &Path, url: &str) -> Result<Arc<dyn ObjectStore>, Refused> {
    let fail = |detail: String| Refused::new(url, detail);
    let outside = || fail(format!("it must lie inside the operator's folder for backups, {}", root.display()));
    let parsed = Url::parse(url).map_err(|error| fail(error.to_string()))?;
    let path = parsed.to_file_path().map_err(|()| fail("not a file:///… URL".to_owned()))?;
    let below = path.strip_prefix(root).map_err(|_| outside())?;
    // A URL's `..` are resolved already; one that is percent-encoded comes back as it was.
    if below.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(outside());
    }
    let made = |error: std::io::Error| fail(format!("the folder can't be made: {error}; give the operator a volume there"));
    if !root.exists() {
        std::fs::create_dir_all(root).and_then(|()| lasting(root)).map_err(made)?;
    }
    let root = root.canonicalize().map_err(made)?;
    // Part by part: through a symbolic link that leads elsewhere not even a folder is made.
    let mut folder = root.clone();
    for part in below {
        folder.push(part);
        if !folder.exists() {
            std::fs::create_dir(&folder).or_else(already_there).and_then(|()| lasting(&folder)).map_err(made)?;
        }
        folder = folder.canonicalize().map_err(made)?;
        if !folder.starts_with(&root) {
            return Err(outside());
        }
    }
    let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| fail(error.to_string()))?;
    // A file is told to be written once it and its name are on the disk: after a power cut a manifest is there only with all the
    // files that it names.
    Ok(Arc::new(store.with_fsync(true)))
}

/// Puts a folder's name onto the disk.
fn lasting(folder: &Path) -> std::io::Result<()> {
    folder.parent().map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
}

/// Another Release may make the same folder at the same moment.
fn already_there(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use crate::stores::Stores;

    #[test]
    fn a_store_lies_inside_the_folder_for_backups_whatever_its_url_looks_like() {
        let home = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (home.path().join("backups"), home.path().join("elsewhere"));
        fs::create_dir_all(root.join("deep")).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        symlink(&elsewhere, root.join("away")).unwrap();
        symlink(root.join("deep"), root.join("within")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let stores = Stores::new(root.clone(), Vec::new());
        let url = |below: &str| format!("file://{}{below}", root.display());
        for (url, opens) in [
            (url(""), true),
            (url("/"), true),
            (url("/liqui/api"), true),
            (url("/deep/../deep"), true),
            (url("/within/liqui"), true),
            (url("/../backups/liqui"), true),
            (url("-beside"), false),
            (url("/../elsewhere"), false),
            (url("/%2e%2e/elsewhere"), false),
            (url("/..%2felsewhere"), false),
            (url("/away"), false),
            (url("/away/liqui"), false),
            (url("/file/liqui"), false),
            ("file:///etc".to_owned(), false),
            ("file:///".to_owned(), false),
            ("file://host/var/lib".to_owned(), false),
        ] {
            let opened = stores.open(&url, None).map(drop).map_err(|refused| refused.to_string());
            assert_eq!(opened.is_ok(), opens, "{url}: {opened:?}");
            if let Err(message) = opened {
                assert!(message.contains(&url), "{message}");
            }
        }
        let store = format!("{:?}", stores.open(&url("/liqui"), None));
        assert!(store.contains("fsync: true"), "a manifest could outlive the files that it names: {store}");
        let left = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!(left(&elsewhere), 0, "nothing is made outside");
        assert!(root.join("liqui/api").is_dir());
    }
}
