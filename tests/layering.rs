//! The code map in `src/lib.rs` and the house rules that text can show, as tests. Each rule is also shown a text that breaks
//! it, so that it is known to be able to fail.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What each room may import: another room, or only a part of it. A room may always import itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("access", &["api", "cache", "cluster", "error", "mysql", "secret", "stores", "trust"]),
    ("api", &[]),
    ("cache", &["error", "secret"]),
    ("cli", &["api", "stores"]),
    ("cluster", &["error"]),
    (
        "controller",
        &["access", "api", "cli", "cluster", "error", "execute", "lease", "observe", "plan", "record", "stores", "telemetry", "webhook"],
    ),
    ("crd", &["api"]),
    ("db", &["api", "cli", "mysql", "secret", "stores", "trust"]),
    ("error", &[]),
    (
        "execute",
        &[
            "access",
            "api",
            "cache",
            "cluster",
            "error",
            "expression",
            "lease",
            "mysql",
            "plan::input",
            "plan::journal::Outcome",
            "plan::pace::Seen",
            "reach",
            "record",
            "target",
        ],
    ),
    ("expression", &[]),
    ("lease", &["cluster", "error"]),
    ("mysql", &["error", "secret"]),
    ("observe", &["access", "api", "cluster", "mysql", "plan::heeds_source", "plan::input", "secret"]),
    ("plan", &["api"]),
    ("reach", &[]),
    ("record", &["api", "cluster", "error", "lease", "plan::Verdict", "plan::journal", "plan::summary", "telemetry"]),
    ("secret", &[]),
    ("stores", &["reach", "secret"]),
    ("target", &["cluster", "error"]),
    ("telemetry", &["cli"]),
    ("trust", &[]),
    ("webhook", &["access", "api", "cluster", "secret", "telemetry"]),
];

/// The crate's root declares the rooms, and the binary starts them.
const ROOTS: [&str; 2] = ["lib", "main"];

/// A longer file is two files.
const LONGEST_FILE: usize = 600;

/// A source file: its path below `src/` and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The folder, or the name of a file that stands by itself.
    fn room(&self) -> &str {
        self.path.split('/').next().map_or("", |first| first.strip_suffix(".rs").unwrap_or(first))
    }

    /// The code that ships: without comments and without the tests at its end.
    fn code(&self) -> String {
        let shipped = self.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        shipped.lines().map(without_comment).collect::<Vec<_>>().join("\n")
    }

    /// Paths into this crate, without `crate::`.
    fn imports(&self) -> Vec<String> {
        let code = self.code();
        let mut found = Vec::new();
        let mut roots = vec!["crate::"];
        // In a room's own `mod.rs` the parent is the crate.
        if self.path.ends_with("/mod.rs") {
            roots.push("super::");
        } else {
            roots.push("super::super::");
        }
        for root in roots {
            for (start, _) in code.match_indices(root) {
                let part_of_a_longer_word =
                    code[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$');
                if !part_of_a_longer_word && !code[..start].ends_with("super::") {
                    expand("", &code[start + root.len()..], &mut found);
                }
            }
        }
        found
    }
}

/// A line up to its comment. A `//` inside a string, as in a URL, is none.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| line[..*at].matches('"').count().is_multiple_of(2));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// Reads a path or a tree of paths from the beginning of `text`; returns what is left.
fn expand<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if rest.is_empty() {
                return rest;
            }
            if let Some(rest) = rest.strip_prefix('}') {
                return rest;
            }
            let left = expand(prefix, rest, found);
            if left.len() == rest.len() {
                return left;
            }
            rest = left;
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    if let Some(rest) = rest.strip_prefix("::") {
        return expand(&path, rest, found);
    }
    found.push(path);
    // `x as y`: up to the end of the entry.
    let end = if rest.trim_start().starts_with("as ") { rest.find([',', '}', ';']).unwrap_or(rest.len()) } else { 0 };
    &rest[end..]
}

type Rule = fn(&Source) -> Vec<String>;

fn against_the_arrows(source: &Source) -> Vec<String> {
    let room = source.room();
    if ROOTS.contains(&room) {
        return Vec::new();
    }
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == room) else {
        return vec![format!("room {room} is not in the table of tests/layering.rs")];
    };
    let within = |path: &str, part: &str| path == part || path.strip_prefix(part).is_some_and(|rest| rest.starts_with("::"));
    source
        .imports()
        .into_iter()
        .filter(|path| !within(path, room) && !allowed.iter().any(|part| within(path, part)))
        .map(|path| format!("{room} may not import {path}"))
        .collect()
}

fn containing(source: &Source, words: &[&str], why: &str) -> Vec<String> {
    let code = source.code();
    let is_word = |at: usize, word: &str| {
        let open = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let begins = !word.starts_with(char::is_alphanumeric) || open(code[..at].chars().next_back());
        let ends = !word.ends_with(char::is_alphanumeric) || open(code[at + word.len()..].chars().next());
        begins && ends
    };
    words
        .iter()
        .filter(|word| code.match_indices(**word).any(|(at, found)| is_word(at, found)))
        .map(|word| format!("{word} {why}"))
        .collect()
}

fn judgement_that_acts(source: &Source) -> Vec<String> {
    if source.room() != "plan" {
        return Vec::new();
    }
    let words = [
        "async",
        "await",
        "Timestamp::now",
        "Zoned::now",
        "SystemTime",
        "Instant",
        "std::env",
        "std::fs",
        "std::net",
        "tokio",
        "kube::",
        "sqlx",
        "redis",
        "git2",
        "reqwest",
        "rand",
    ];
    containing(source, &words, "has no place in plan: it is pure")
}

fn eyes_that_write(source: &Source) -> Vec<String> {
    if source.room() != "observe" {
        return Vec::new();
    }
    let words = [".patch(", ".patch_status(", ".patch_scale(", ".create(", ".delete(", ".replace("];
    containing(source, &words, "has no place in observe: it only reads")
}

fn status_written_elsewhere(source: &Source) -> Vec<String> {
    if source.path == "record.rs" {
        return Vec::new();
    }
    containing(source, &["patch_status", "replace_status"], "belongs to record.rs, the only writer of status")
}

fn giving_up(source: &Source) -> Vec<String> {
    let words = [".unwrap()", "panic!", "todo!", "unimplemented!", "unreachable!"];
    containing(source, &words, "stops the operator for everybody: return an error")
}

fn environment_read_elsewhere(source: &Source) -> Vec<String> {
    if source.path.starts_with("cli/") {
        return Vec::new();
    }
    containing(source, &["env::var", "env::vars", "env::var_os", "env::args", "env::temp_dir", "option_env!"], "belongs to cli/")
}

fn untold(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") { Vec::new() } else { vec!["the first line does not say what the file is for (//!)".to_owned()] }
}

fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= LONGEST_FILE { Vec::new() } else { vec![format!("{lines} lines are more than {LONGEST_FILE}")] }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut folders = vec![root()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("it was found below src").to_string_lossy().into_owned();
                sources.push(Source { path: name, text: fs::read_to_string(&path).expect("a source file is text") });
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}

/// Nothing in `src/` breaks the rule, and each of the bad texts does.
fn holds(rule: Rule, bad: &[(&str, &str)], good: &[(&str, &str)]) {
    for (path, text) in bad {
        assert!(!rule(&Source::new(path, text)).is_empty(), "the rule does not see what is wrong in {path}: {text}");
    }
    for (path, text) in good {
        assert_eq!(rule(&Source::new(path, text)), Vec::<String>::new(), "{path}: {text}");
    }
    let sources = sources();
    assert!(sources.len() > 30, "only {} files were found", sources.len());
    let breaches: Vec<String> =
        sources.iter().flat_map(|source| rule(source).into_iter().map(|breach| format!("src/{}: {breach}", source.path))).collect();
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn rooms_import_only_along_the_arrows_of_the_code_map() {
    holds(
        against_the_arrows,
        &[
            ("api/span.rs", "use crate::plan::Decision;"),
            ("plan/mod.rs", "use super::record::Pen;"),
            ("plan/deploy.rs", "fn f() { crate::mysql::capture() }"),
            ("plan/deploy.rs", "use crate::{\n    api::{Content, names},\n    execute::{self, Hands},\n};"),
            ("observe/git.rs", "use crate::plan::journal::settled;"),
            ("execute/mod.rs", "use crate::plan::{decide, input::Desired};"),
            ("mysql/swap.rs", "pub use crate::cache::Cache as Other;"),
            ("target/mod.rs", "use crate::api::Release;"),
            ("newroom/mod.rs", "use crate::api::Release;"),
        ],
        &[
            ("plan/deploy.rs", "use super::{Decision, input::World};\nuse crate::api::{self, names as other, operation::{Kind, Step}};"),
            ("execute/mod.rs", "use crate::plan::{input::Desired, journal::Outcome};"),
            ("api/span.rs", "//! See [`crate::plan`].\nuse kube::KubeSchema;"),
            ("api/span.rs", "struct A;\n#[cfg(test)]\nmod tests {\n    use crate::plan::decide;\n}"),
        ],
    );
}

#[test]
fn judgement_is_pure() {
    holds(
        judgement_that_acts,
        &[
            ("plan/a.rs", "async fn f() {}"),
            ("plan/a.rs", "let now = Timestamp::now();"),
            ("plan/a.rs", "use std::time::{Duration, Instant};"),
            ("plan/a.rs", "use kube::Client;"),
            ("plan/a.rs", "sqlx::query(sql)"),
            ("plan/a.rs", "let home = std::env::var(name);"),
        ],
        &[
            ("plan/a.rs", "// No async here.\nuse std::time::Duration;"),
            ("plan/a.rs", "fn instant_of(operand: u8) {}"),
            ("mysql/a.rs", "async fn f() {}"),
        ],
    );
}

#[test]
fn eyes_only_read() {
    holds(
        eyes_that_write,
        &[
            ("observe/a.rs", "api.patch(name, &params, &patch)"),
            ("observe/a.rs", "api.create(&params, &x)"),
            ("observe/a.rs", "api\n.delete(name)"),
        ],
        &[("observe/a.rs", "api.get(name)"), ("execute/a.rs", "api.delete(name)")],
    );
}

#[test]
fn only_the_pen_writes_status() {
    holds(
        status_written_elsewhere,
        &[("execute/a.rs", "api.patch_status(name, &params, &patch)"), ("controller.rs", "api.replace_status(name, &params, &x)")],
        &[("record.rs", "api.patch_status(name, &params, &patch)")],
    );
}

#[test]
fn nothing_gives_up_in_the_middle() {
    holds(
        giving_up,
        &[
            ("cli.rs", "x.unwrap()"),
            ("cli.rs", "panic!(\"no\")"),
            ("cli.rs", "_ => unreachable!()"),
            ("cli.rs", "todo!()"),
            ("cli.rs", "unimplemented!()"),
        ],
        &[
            ("cli.rs", "x.unwrap_or(1)"),
            ("cli.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() { x.unwrap() }\n}"),
            ("cli.rs", "// a panic! would end it"),
        ],
    );
}

#[test]
fn only_the_command_line_reads_the_environment() {
    holds(
        environment_read_elsewhere,
        &[("mysql/a.rs", "std::env::var(\"HOME\")"), ("main.rs", "env::args()"), ("cli.rs", "env::args()")],
        &[("cli/mod.rs", "std::env::var(\"HOME\")"), ("telemetry.rs", "env!(\"CARGO_PKG_VERSION\")")],
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    holds(untold, &[("a.rs", "use std::fmt;"), ("a.rs", "// A comment.\n")], &[("a.rs", "//! What it is for.\n")]);
}

#[test]
fn no_file_is_too_long() {
    let long = "x\n".repeat(LONGEST_FILE + 1);
    holds(too_long, &[("a.rs", &long)], &[("a.rs", "x\n")]);
}
