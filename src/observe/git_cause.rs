//! Who asked for a release and how, out of a commit, in one line. Pure.
//!
//! It is only said to people: what is gone back to is recognised by content, never by what a message says.

/// What a condition, an event and a report have room for.
const LONGEST: usize = 240;
/// The text of the commit, so that author and reverted commits still fit behind it.
const LONGEST_TEXT: usize = 120;
const LONGEST_AUTHOR: usize = 60;
/// The subject of a reverted commit.
const LONGEST_SUBJECT: usize = 50;
const SHORT_ID: usize = 7;
/// git names a commit by 40 digits; what a person shortened by hand has at least this many.
const LEAST_DIGITS: usize = 7;
const TRAILER: &str = "backout-cause:";

/// What a commit says about itself.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub author: &'a str,
    pub message: &'a str,
    /// Who signed it, where signatures are checked.
    pub signer: Option<&'a str>,
}

/// `"<cause or subject>" by <author>`, then who signed it and which commits it reverts. `subject` knows the subject of a
/// commit that is there.
pub fn cause(said: Said<'_>, subject: impl Fn(&str) -> Option<String>) -> String {
    let Said { author, message, signer } = said;
    let text = trailer(message).or_else(|| message.lines().map(clean).find(|line| !line.is_empty()));
    let author = Some(clean(author)).filter(|author| !author.is_empty());
    let mut line = format!(
        "\"{}\" by {}",
        cut(&text.unwrap_or_else(|| "no subject".to_owned()), LONGEST_TEXT),
        cut(author.as_deref().unwrap_or("somebody"), LONGEST_AUTHOR)
    );
    if let Some(signer) = signer {
        line.push_str(&format!(", signed by {}", cut(&clean(signer), LONGEST_AUTHOR)));
    }
    for (index, id) in reverted(message).iter().enumerate() {
        line.push_str(if index == 0 { ", reverts " } else { ", " });
        line.extend(id.chars().take(SHORT_ID));
        if let Some(subject) = subject(id) {
            line.push_str(&format!(" \"{}\"", cut(&clean(&subject), LONGEST_SUBJECT)));
        }
    }
    cut(&line, LONGEST)
}

/// The commits that git's own words in the message say are reverted, in their order, each once.
pub fn reverted(message: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let words: Vec<&str> = message.split_whitespace().collect();
    for (at, window) in words.windows(3).enumerate() {
        let [this, reverts, commit] = window else { continue };
        if !(this.eq_ignore_ascii_case("this") && *reverts == "reverts" && matches!(*commit, "commit" | "commits")) {
            continue;
        }
        // "commits a, b and c": a person's list. "reversing changes made to" tells of a merge's other side, which stays.
        for word in words.iter().skip(at + 3) {
            let id = word.trim_matches([',', '.', ';', ':', '(', ')', '"', '\'']).to_ascii_lowercase();
            if id.len() >= LEAST_DIGITS && id.len() <= 64 && id.chars().all(|c| c.is_ascii_hexdigit()) {
                if !found.contains(&id) {
                    found.push(id);
                }
            } else if id != "and" {
                break;
            }
            if *commit == "commit" {
                break;
            }
        }
    }
    found
}

/// The last `Backout-Cause:` in the last paragraph, with the indented lines that go on with it.
fn trailer(message: &str) -> Option<String> {
    let lines: Vec<&str> = message.trim_end().lines().collect();
    let last: Vec<&str> = lines.rsplit(|line| line.trim().is_empty()).next()?.to_vec();
    let at = last.iter().rposition(|line| line.get(..TRAILER.len()).is_some_and(|key| key.eq_ignore_ascii_case(TRAILER)))?;
    let first = last.get(at)?.get(TRAILER.len()..)?;
    let more = last.iter().skip(at + 1).take_while(|line| line.starts_with([' ', '\t']));
    let whole = std::iter::once(first).chain(more.copied()).collect::<Vec<_>>().join(" ");
    Some(clean(&whole)).filter(|text| !text.is_empty())
}

/// One line without control characters, and without those that turn the direction of what follows or can't be seen.
pub fn clean(text: &str) -> String {
    let is_hidden = |c: char| matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let visible: String = text.chars().filter(|c| c.is_whitespace() || !(c.is_control() || is_hidden(*c))).collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678";
    const B: &str = "b1b2c3d4e5f60718293a4b5c6d7e8f9012345678";

    /// The mirror holds A, whose subject is "Cache for longer", and not B.
    fn told(message: &str) -> String {
        cause(Said { author: "Ada", message, signer: None }, |id| A.starts_with(id).then(|| "Cache for longer".to_owned()))
    }

    #[test]
    fn a_cause_says_what_who_and_what_is_reverted() {
        for (name, message, expected) in [
            ("a subject", "Cache for longer\n\nBecause.\n", "\"Cache for longer\" by Ada".to_owned()),
            ("no message", "\n \n", "\"no subject\" by Ada".to_owned()),
            ("a trailer", "Go back\n\nbackout-cause: Guests can't pay\nSigned-off-by: Ada", "\"Guests can't pay\" by Ada".to_owned()),
            ("a trailer of two lines", "Go back\n\nBackout-Cause: Guests\n  can't pay\n", "\"Guests can't pay\" by Ada".to_owned()),
            ("the last of two trailers", "x\n\nBackout-Cause: one\nBackout-Cause: two", "\"two\" by Ada".to_owned()),
            ("an empty trailer", "Subject\n\nBackout-Cause:  \n", "\"Subject\" by Ada".to_owned()),
            ("a trailer before the last paragraph", "Subject\n\nBackout-Cause: no\n\nMore.", "\"Subject\" by Ada".to_owned()),
            (
                "a revert",
                &format!("Revert \"Cache for longer\"\n\nThis reverts commit {A}."),
                "\"Revert \"Cache for longer\"\" by Ada, reverts a1b2c3d \"Cache for longer\"".to_owned(),
            ),
            (
                "a revert with a cause",
                &format!("Revert\n\nThis reverts commit {A}.\n\nBackout-Cause: Guests can't pay\n"),
                "\"Guests can't pay\" by Ada, reverts a1b2c3d \"Cache for longer\"".to_owned(),
            ),
            (
                "several reverts in one, one of them not there",
                &format!("Undo\n\nThis reverts commit {B}.\nThis reverts commit {A}.\n"),
                "\"Undo\" by Ada, reverts b1b2c3d, a1b2c3d \"Cache for longer\"".to_owned(),
            ),
            (
                "a list",
                &format!("Undo\n\nThis reverts commits {B} and\n{A}."),
                "\"Undo\" by Ada, reverts b1b2c3d, a1b2c3d \"Cache for longer\"".to_owned(),
            ),
            (
                "a revert of a revert",
                &format!("Reapply \"Cache for longer\"\n\nThis reverts commit {B}."),
                "\"Reapply \"Cache for longer\"\" by Ada, reverts b1b2c3d".to_owned(),
            ),
            (
                "a revert of a merge",
                &format!("Revert \"Merge\"\n\nThis reverts commit {A}, reversing\nchanges made to {B}."),
                "\"Revert \"Merge\"\" by Ada, reverts a1b2c3d \"Cache for longer\"".to_owned(),
            ),
            (
                "the same twice",
                &format!("x\n\nThis reverts commit {B}.\nThis reverts commit {B}."),
                "\"x\" by Ada, reverts b1b2c3d".to_owned(),
            ),
            ("words that name no commit", "x\n\nThis reverts commit by Ada, and commit 12.", "\"x\" by Ada".to_owned()),
            ("control characters", "Re\u{1b}[31m\u{202e}d\u{7}\tone\u{0}", "\"Re[31md one\" by Ada".to_owned()),
        ] {
            assert_eq!(told(message), expected, "{name}");
        }
    }

    #[test]
    fn a_cause_is_one_line_of_at_most_240_characters() {
        let many: String = (0..40).map(|n| format!("This reverts commit {n:040x}.\n")).collect();
        let message = format!("{}\n\n{many}", "ü".repeat(500));
        let author = "Å".repeat(300);
        let line = cause(Said { author: &author, message: &message, signer: Some("ada@liqui.example") }, |_| Some("x\ny".repeat(90)));
        assert!((LONGEST - 1..=LONGEST).contains(&line.chars().count()), "{line}");
        assert!(!line.contains('\n') && line.ends_with('…'), "{line}");
        assert!(line.contains("by ÅÅ") && line.contains("signed by ada@liqui.example, reverts 0000000 \"x yx"), "{line}");
    }

    #[test]
    fn an_author_without_a_name_is_somebody() {
        assert_eq!(cause(Said { author: " \n", message: "x", signer: None }, |_| None), "\"x\" by somebody");
    }
}
