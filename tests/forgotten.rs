//! A test file that no `mod` names is never compiled and never fails: there is none.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The sample application is a package of its own.
const ANOTHER_PACKAGE: &str = "liqui";

/// Every `.rs` file below the folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("tests can be read") {
        let path = entry.expect("tests can be read").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != ANOTHER_PACKAGE) {
                found.extend(files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path);
        }
    }
    found
}

/// The file and all that its `mod` lines lead to.
fn reachable(file: &Path, found: &mut BTreeSet<PathBuf>) {
    if !found.insert(file.to_owned()) {
        return;
    }
    let text = fs::read_to_string(file).unwrap_or_default();
    let stem = file.file_stem().unwrap_or_default();
    let beside = file.parent().expect("a file is in a folder");
    let folder = if stem == "main" || stem == "mod" { beside.to_owned() } else { beside.join(stem) };
    for name in text.lines().filter_map(declared) {
        for candidate in [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")] {
            if candidate.exists() {
                reachable(&candidate, found);
            }
        }
    }
}

/// The name in `mod name;`, whoever may see it.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim().strip_suffix(';')?;
    let (before, name) = line.split_once("mod ")?;
    (before.is_empty() || before.starts_with("pub")).then_some(name)
}

#[test]
fn every_test_file_is_part_of_the_test_binary() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut used = BTreeSet::new();
    reachable(&tests.join("main.rs"), &mut used);
    let forgotten: Vec<PathBuf> = files(&tests).difference(&used).cloned().collect();
    assert!(forgotten.is_empty(), "no mod names {forgotten:?}");
}

#[test]
fn a_declaration_is_told_from_a_mention() {
    for (line, name) in [
        ("mod plan;", Some("plan")),
        ("    pub(crate) mod plan;", Some("plan")),
        ("mod tests {", None),
        ("//! mod plan;", None),
        ("let mod_plan = 1;", None),
    ] {
        assert_eq!(declared(line), name, "{line}");
    }
}
