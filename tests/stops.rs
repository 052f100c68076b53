//! README says the way out of every stop that the code can give: the two lists are compared.

use std::{collections::BTreeSet, fs, path::Path};

/// The source without white space, so that a line break in a call does not hide its argument.
fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.chars().filter(|letter| !letter.is_whitespace()).collect()
}

/// The CamelCase words in quotes that follow `marker`.
fn after<'a>(text: &'a str, marker: &str) -> Vec<&'a str> {
    let quoted = text.match_indices(marker).filter_map(|(at, _)| text.get(at + marker.len()..)?.split('"').next());
    quoted.filter(|word| is_reason(word)).collect()
}

fn is_reason(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_uppercase()) && word.chars().all(|letter| letter.is_ascii_alphanumeric())
}

/// What the code can give as the reason of a Ready condition that is not True and not on its way.
pub fn given() -> BTreeSet<String> {
    let summary = source("plan/summary.rs");
    let mut reasons: Vec<&str> =
        ["Hindered", "Resting", "Stalled"].iter().flat_map(|ready| after(&summary, &format!("Ready::{ready},\""))).collect();
    let looks = ["observe/mod.rs", "observe/workload.rs", "plan/drift.rs", "plan/target.rs"].map(source);
    reasons.extend(looks.iter().flat_map(|text| after(text, "reason:\"")));
    let errors = ["observe/git_error.rs", "access.rs"].map(source);
    for text in &errors {
        let body = text.split("fnreason(&self)->&'staticstr{").nth(1).expect("the room's errors have reasons");
        let body = body.split("}}").next().unwrap_or_default();
        reasons.extend(after(body, "=>\""));
        reasons.extend(after(body, "=>{\""));
    }
    assert!(reasons.len() > 15, "the sources are not read as they were meant to be: {reasons:?}");
    reasons.into_iter().map(str::to_owned).collect()
}

/// The reasons in the first column of README's table of stops.
fn described() -> BTreeSet<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("there is a README");
    let section = readme.split("## Out of Stalled").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("README has the section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|line| line.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn readme_says_the_way_out_of_every_stop_that_the_code_can_give() {
    let (given, described) = (given(), described());
    let missing: Vec<_> = given.difference(&described).collect();
    let stale: Vec<_> = described.difference(&given).collect();
    assert!(missing.is_empty() && stale.is_empty(), "README lacks {missing:?}, and the code never gives {stale:?}");
}
