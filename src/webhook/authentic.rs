//! Whether a message comes from who it says, and whether it has anything to say. Pure: what to do about it is decided elsewhere.

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sha2::Sha256;

use crate::api::release::GitRef;

/// A signed message that is older, or from further in the future, is a repetition: what the convention recommends.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// Whether the message carries proof of the token, in any of the ways that git servers have. Compared in constant time.
pub fn authentic(token: &str, headers: &HeaderMap, body: &[u8], now: Timestamp) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // GitHub, Gitea and Forgejo; and the same for those who sign by themselves.
    let hex = |name| {
        let claimed = header(name).and_then(|value| value.strip_prefix("sha256=")).and_then(|value| hex::decode(value).ok());
        claimed.is_some_and(|claimed| signed(token.as_bytes(), &[body], &claimed))
    };
    // GitLab's secret token is shown, not used: both are signed with it, so that the comparison takes equally long.
    let shown = || {
        header("x-gitlab-token").is_some_and(|shown| {
            mac(token.as_bytes(), &[token.as_bytes()]).is_some_and(|ours| signed(token.as_bytes(), &[shown.as_bytes()], &ours))
        })
    };
    hex("x-hub-signature-256") || hex("x-signature") || standard(token, headers, body, now) || shown()
}

/// GitLab's signing token: id, time and body are signed, by the convention of standardwebhooks.com.
fn standard(token: &str, headers: &HeaderMap, body: &[u8], now: Timestamp) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(time), Some(signatures)) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature")) else {
        return false;
    };
    let fresh = time.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    if fresh.is_none_or(|sent| now.duration_since(sent).abs() > TOLERANCE) {
        return false;
    }
    let key = match token.strip_prefix("whsec_").map(|encoded| STANDARD.decode(encoded)) {
        Some(Ok(key)) if !key.is_empty() => key,
        Some(_) => return false,
        None => token.as_bytes().to_vec(),
    };
    signatures
        .split_ascii_whitespace()
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .any(|claimed| signed(&key, &[id.as_bytes(), b".", time.as_bytes(), b".", body], &claimed))
}

fn signed(key: &[u8], message: &[&[u8]], claimed: &[u8]) -> bool {
    hmac(key, message).is_some_and(|hmac| hmac.verify_slice(claimed).is_ok())
}

fn mac(key: &[u8], message: &[&[u8]]) -> Option<Vec<u8>> {
    hmac(key, message).map(|hmac| hmac.finalize().into_bytes().to_vec())
}

fn hmac(key: &[u8], message: &[&[u8]]) -> Option<Hmac<Sha256>> {
    // Everybody can sign with nothing.
    if key.is_empty() {
        return None;
    }
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    message.iter().for_each(|part| hmac.update(part));
    Some(hmac)
}

/// What GitHub's and GitLab's messages about pushes have in common.
#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
}

/// Whether to look. In doubt, yes: a look costs little, and a push that is passed over waits for the next interval.
pub fn concerns(followed: &GitRef, headers: &HeaderMap, body: &[u8]) -> bool {
    let event = headers.get("x-github-event").or_else(|| headers.get("x-gitlab-event")).and_then(|event| event.to_str().ok());
    if event.is_some_and(|event| !matches!(event, "push" | "create" | "Push Hook" | "Tag Push Hook" | "System Hook")) {
        return false;
    }
    let Ok(Push { reference }) = serde_json::from_slice(body) else { return true };
    let GitRef { branch, tag, commit: _ } = followed;
    let is = |kind: &str, name: &String| reference == *name || reference.strip_prefix(kind) == Some(name);
    match (branch, tag) {
        (Some(branch), _) => is("refs/heads/", branch),
        (None, Some(tag)) => is("refs/tags/", tag),
        // A commit may come with any branch.
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "whsec_c29tZSB0b2tlbiBmb3IgdGVzdHM=";
    const BODY: &[u8] = br#"{"ref":"refs/heads/main"}"#;
    const NOW: i64 = 1_800_000_000;

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn sha256(key: &str, body: &[u8]) -> String {
        format!("sha256={}", hex::encode(mac(key.as_bytes(), &[body]).unwrap()))
    }

    fn standard(key: &[u8], time: i64) -> String {
        format!("v1,{}", STANDARD.encode(mac(key, &[b"msg_1.", time.to_string().as_bytes(), b".", BODY]).unwrap()))
    }

    #[test]
    fn only_a_message_signed_with_the_token_is_authentic() {
        let gitlab = |signature: String, time: i64| {
            vec![("webhook-id", "msg_1".to_owned()), ("webhook-timestamp", time.to_string()), ("webhook-signature", signature)]
        };
        let key = b"some token for tests";
        for (name, sent, expected) in [
            ("nothing", vec![], false),
            ("GitHub", vec![("x-hub-signature-256", sha256(TOKEN, BODY))], true),
            ("GitHub, in capitals", vec![("x-hub-signature-256", sha256(TOKEN, BODY).replace(char::is_lowercase, "A"))], false),
            ("GitHub, another token", vec![("x-hub-signature-256", sha256("other", BODY))], false),
            ("GitHub, another body", vec![("x-hub-signature-256", sha256(TOKEN, b"{}"))], false),
            ("GitHub, cut short", vec![("x-hub-signature-256", sha256(TOKEN, BODY)[..39].to_owned())], false),
            ("GitHub, empty", vec![("x-hub-signature-256", "sha256=".to_owned())], false),
            ("GitHub, SHA-1", vec![("x-hub-signature-256", sha256(TOKEN, BODY).replace("sha256", "sha1"))], false),
            ("GitHub's old header", vec![("x-hub-signature", sha256(TOKEN, BODY))], false),
            ("generic", vec![("x-signature", sha256(TOKEN, BODY))], true),
            ("generic, without the kind", vec![("x-signature", sha256(TOKEN, BODY)[7..].to_owned())], false),
            ("GitLab's token", vec![("x-gitlab-token", TOKEN.to_owned())], true),
            ("GitLab, another token", vec![("x-gitlab-token", TOKEN.replace('c', "d"))], false),
            ("GitLab, a part of the token", vec![("x-gitlab-token", TOKEN[..10].to_owned())], false),
            ("GitLab, empty", vec![("x-gitlab-token", String::new())], false),
            ("GitLab's signature", gitlab(standard(key, NOW), NOW), true),
            ("one of two signatures", gitlab(format!("{} {}", standard(b"old", NOW), standard(key, NOW)), NOW), true),
            ("GitLab, five minutes old", gitlab(standard(key, NOW - 300), NOW - 300), true),
            ("GitLab, older", gitlab(standard(key, NOW - 301), NOW - 301), false),
            ("GitLab, from the future", gitlab(standard(key, NOW + 301), NOW + 301), false),
            ("GitLab, another time", gitlab(standard(key, NOW), NOW + 1), false),
            ("GitLab, another version", gitlab(standard(key, NOW).replace("v1,", "v2,"), NOW), false),
            ("a wrong one beside a right one", vec![("x-gitlab-token", "x".to_owned()), ("x-signature", sha256(TOKEN, BODY))], true),
        ] {
            let now = Timestamp::from_second(NOW).unwrap();
            assert_eq!(authentic(TOKEN, &headers(&sent), BODY, now), expected, "{name}");
        }
    }

    #[test]
    fn an_empty_token_proves_nothing() {
        let now = Timestamp::from_second(NOW).unwrap();
        assert!(!authentic("", &headers(&[("x-gitlab-token", String::new())]), BODY, now));
        assert!(!signed(b"", &[BODY], b""));
        for token in ["whsec_", "whsec_?"] {
            let sent = [
                ("webhook-id", "msg_1".to_owned()),
                ("webhook-timestamp", NOW.to_string()),
                ("webhook-signature", standard(token.as_bytes(), NOW)),
            ];
            assert!(!authentic(token, &headers(&sent), BODY, now), "{token}");
        }
    }

    #[test]
    fn a_push_to_another_branch_is_no_reason_to_look() {
        let follows = |branch: Option<&str>, tag: Option<&str>, commit: Option<&str>| GitRef {
            branch: branch.map(str::to_owned),
            tag: tag.map(str::to_owned),
            commit: commit.map(str::to_owned),
        };
        let main = || follows(Some("main"), None, None);
        let github = |event: &str| vec![("x-github-event", event.to_owned())];
        for (name, followed, sent, body, expected) in [
            ("its branch", main(), github("push"), r#"{"ref":"refs/heads/main"}"#, true),
            ("another branch", main(), github("push"), r#"{"ref":"refs/heads/other"}"#, false),
            ("a branch that ends alike", main(), github("push"), r#"{"ref":"refs/heads/feature/main"}"#, false),
            ("a tag of the same name", main(), github("push"), r#"{"ref":"refs/tags/main"}"#, false),
            ("its tag", follows(None, Some("v1"), None), github("push"), r#"{"ref":"refs/tags/v1"}"#, true),
            ("a new tag, by its name", follows(None, Some("v1"), None), github("create"), r#"{"ref":"v1"}"#, true),
            ("a commit follows no branch", follows(None, None, Some("abc")), github("push"), r#"{"ref":"refs/heads/x"}"#, true),
            ("a ping", main(), github("ping"), r#"{"zen":"x"}"#, false),
            ("an issue", main(), github("issues"), r#"{"ref":"refs/heads/main"}"#, false),
            ("GitLab", main(), vec![("x-gitlab-event", "Push Hook".to_owned())], r#"{"ref":"refs/heads/main"}"#, true),
            ("GitLab, an issue", main(), vec![("x-gitlab-event", "Issue Hook".to_owned())], "{}", false),
            ("no reference", main(), vec![], "{}", true),
            ("no JSON", main(), github("push"), "payload=%7B%7D", true),
            ("nothing", main(), vec![], "", true),
        ] {
            assert_eq!(concerns(&followed, &headers(&sent), body.as_bytes()), expected, "{name}");
        }
    }
}
