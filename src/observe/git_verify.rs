//! Whether a revision was signed by somebody whom the Release trusts. Pure: bytes in, signer or refusal out.
//!
//! Called before anything of the revision's tree is read. The keys come from a Secret that the Release names; nothing that
//! stands in the repository can add one.

use jiff::Timestamp;

use super::{git_openpgp, git_signers};
use crate::{access::GitTrust, api::release::VerifyMode};

/// A commit or an annotated tag, as git stores it.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// For people: `commit <id>`, `tag <name>`.
    pub name: &'a str,
    pub raw: &'a [u8],
    /// When it says that it was made: what signatures' validity is measured by, as git itself does it.
    pub made: Timestamp,
}

/// What a reference resolved to.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    pub commit: Object<'a>,
    /// `None`: the reference is no annotated tag.
    pub tag: Option<Object<'a>>,
}

/// Why a revision is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("{0} is not signed: sign it (git commit -S, git tag -s)")]
    Unsigned(String),
    #[error("{0} is signed in a form that can't be read; SSH and OpenPGP signatures can")]
    Unreadable(String),
    #[error("the reference is no annotated tag, so there is no signature on it: make it with git tag -s")]
    NoTag,
    #[error("the tag was made under the name {0:?}, so its signature says nothing about this one: make it anew")]
    Renamed(String),
    #[error(
        "{object} is signed by {key}, which key {place} of Secret {secret} does not have: add the key there, or sign with one that is in it"
    )]
    Foreign { object: String, key: String, place: &'static str, secret: String },
    #[error("{object}: the signature by {key} does not fit what is signed: it was tampered with or is damaged; sign it again")]
    Tampered { object: String, key: String },
    #[error("{object} is signed by {key}, but {why}")]
    Unfit { object: String, key: String, why: String },
    #[error("Secret {secret}: {detail}")]
    Keys { secret: String, detail: String },
}

/// Checks what `mode` asks for; who signed, each once. `now` is the time that keys may have expired at.
pub fn verify(mode: VerifyMode, signed: Signed<'_>, trust: &GitTrust, now: Timestamp) -> Result<String, Distrust> {
    let mut signers = Vec::new();
    match mode {
        VerifyMode::Head => signers.push(check(signed.commit, commit(signed.commit.raw), trust, now)?),
        VerifyMode::Tag => signers.push(check_tag(signed.tag, trust, now)?),
        VerifyMode::TagAndHead => {
            signers.push(check_tag(signed.tag, trust, now)?);
            signers.push(check(signed.commit, commit(signed.commit.raw), trust, now)?);
        }
    }
    signers.dedup();
    Ok(signers.join(" and "))
}

fn check_tag(object: Option<Object<'_>>, trust: &GitTrust, now: Timestamp) -> Result<String, Distrust> {
    let object = object.ok_or(Distrust::NoTag)?;
    check(object, tag(object.raw), trust, now)
}

/// A signature, and the bytes that it was made over.
#[derive(Debug, PartialEq, Eq)]
struct Parted {
    signature: String,
    payload: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Parting {
    Signed(Parted),
    Unsigned,
    Unreadable,
}

fn check(object: Object<'_>, parting: Parting, trust: &GitTrust, now: Timestamp) -> Result<String, Distrust> {
    let name = || object.name.to_owned();
    let Parted { signature, payload } = match parting {
        Parting::Signed(parted) => parted,
        Parting::Unsigned => return Err(Distrust::Unsigned(name())),
        Parting::Unreadable => return Err(Distrust::Unreadable(name())),
    };
    if signature.starts_with(git_signers::BEGIN) {
        git_signers::verify(object, &signature, &payload, trust)
    } else if signature.starts_with(git_openpgp::BEGIN) {
        git_openpgp::verify(object, &signature, &payload, trust, now)
    } else {
        Err(Distrust::Unreadable(name()))
    }
}

/// A commit has its signature in the header `gpgsig`, and is signed without that.
fn commit(raw: &[u8]) -> Parting {
    let (mut signature, mut payload) = (None::<Vec<u8>>, Vec::with_capacity(raw.len()));
    let (mut in_header, mut in_signature) = (true, false);
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        if in_header {
            if line == b"\n" {
                in_header = false;
            } else if let Some(first) = line.strip_prefix(b"gpgsig ") {
                // Two of them: which one is meant is not for us to guess.
                if signature.is_some() {
                    return Parting::Unreadable;
                }
                signature = Some(first.to_vec());
                in_signature = true;
                continue;
            } else if let (true, Some(more), Some(signature)) = (in_signature, line.strip_prefix(b" "), &mut signature) {
                signature.extend_from_slice(more);
                continue;
            }
            in_signature = false;
        }
        payload.extend_from_slice(line);
    }
    match signature.map(String::from_utf8) {
        Some(Ok(signature)) => Parting::Signed(Parted { signature, payload }),
        Some(Err(_)) => Parting::Unreadable,
        None => Parting::Unsigned,
    }
}

/// A tag has its signature at the end of its message, from the last line that begins one.
fn tag(raw: &[u8]) -> Parting {
    let mut at = 0;
    let mut found = None;
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        if [git_signers::BEGIN, git_openpgp::BEGIN].iter().any(|begin| line.starts_with(begin.as_bytes())) {
            found = Some(at);
        }
        at += line.len();
    }
    let Some(begin) = found else { return Parting::Unsigned };
    let (payload, signature) = raw.split_at_checked(begin).unwrap_or((raw, &[]));
    match std::str::from_utf8(signature) {
        Ok(signature) => Parting::Signed(Parted { signature: signature.to_owned(), payload: payload.to_vec() }),
        Err(_) => Parting::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(signature: &str, payload: &str) -> Parting {
        Parting::Signed(Parted { signature: signature.to_owned(), payload: payload.as_bytes().to_vec() })
    }

    #[test]
    fn a_signature_is_parted_from_what_it_signs() {
        for (name, raw, expected) in [
            ("unsigned", "tree 1\nauthor A\n\nx\n", Parting::Unsigned),
            ("signed", "tree 1\ngpgsig -B\n 1\n \n -E\nencoding x\n\nx\n", signed("-B\n1\n\n-E\n", "tree 1\nencoding x\n\nx\n")),
            ("words in the message", "tree 1\n\ngpgsig -B\n 1\n", Parting::Unsigned),
            ("a merged tag's signature", "tree 1\nmergetag object 2\n gpgsig -B\n\nx\n", Parting::Unsigned),
            ("two signatures", "tree 1\ngpgsig -B\n -E\ngpgsig -C\n\nx\n", Parting::Unreadable),
            ("a header of another name", "tree 1\ngpgsig-sha256 -B\n -E\n\nx\n", Parting::Unsigned),
            ("a header that goes on after it", "tree 1\ngpgsig -B\nx y\n z\n\nm", signed("-B\n", "tree 1\nx y\n z\n\nm")),
        ] {
            assert_eq!(commit(raw.as_bytes()), expected, "{name}");
        }
        let begin = git_signers::BEGIN;
        for (name, raw, expected) in [
            ("unsigned", "object 1\n\nx\n".to_owned(), Parting::Unsigned),
            ("signed", format!("object 1\n\nx\n{begin}\n1\n"), signed(&format!("{begin}\n1\n"), "object 1\n\nx\n")),
            (
                "the last one counts",
                format!("object 1\n\n{begin}\n1\n{begin}\n2\n"),
                signed(&format!("{begin}\n2\n"), &format!("object 1\n\n{begin}\n1\n")),
            ),
        ] {
            assert_eq!(tag(raw.as_bytes()), expected, "{name}");
        }
    }
}
