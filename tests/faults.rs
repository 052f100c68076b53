//! docs/faults.md names a test for each fault: every one that it names is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Everything that is written below a folder, in one text.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("tests can be read") {
        let path = entry.expect("tests can be read").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

/// Names of functions in the last column: `cluster::…::a_sentence` or `a_sentence`.
fn named(page: &str) -> Vec<&str> {
    let cells = page.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.trim_end_matches(" |").rsplit('|').next());
    let quoted = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    quoted.filter_map(|name| name.rsplit("::").next()).filter(|name| is_sentence(name)).collect()
}

/// Tests are sentences; what else stands in code marks is not.
fn is_sentence(name: &str) -> bool {
    name.matches('_').count() > 1 && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}

#[test]
fn every_test_that_the_table_of_faults_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/faults.md")).expect("there is a table of faults");
    let mut tests = String::new();
    for folder in [root.join("tests"), root.join("src")] as [PathBuf; 2] {
        sources(&folder, &mut tests);
    }
    let names = named(&page);
    assert!(names.len() > 15, "the table is not read as it was meant to be: {names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !tests.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "docs/faults.md names {missing:?}, which are no tests");
}
