//! SSH signatures, and git's list of who may make them (`allowed_signers`). Pure.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use russh::keys::{Algorithm, PublicKey, ssh_key::SshSig};

use super::{
    git_known_hosts::fingerprint,
    git_verify::{Distrust, Object},
};
use crate::access::GitTrust;

pub const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
/// What a signature is for. One that was made for a file, or for a login, is not one for git.
const NAMESPACE: &str = "git";
const KEY: &str = "allowed_signers";

/// One line of the list.
#[derive(Debug)]
struct Signer {
    principals: String,
    namespaces: Option<Vec<String>>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    key: PublicKey,
}

/// Who signed, by the name that the list gives.
pub fn verify(object: Object<'_>, signature: &str, payload: &[u8], trust: &GitTrust) -> Result<String, Distrust> {
    let signature = SshSig::from_pem(signature.trim_end()).map_err(|_| Distrust::Unreadable(object.name.to_owned()))?;
    let key = PublicKey::from(signature.public_key().clone());
    let shown = format!("SSH key {}", fingerprint(&key));
    let keys = |detail| Distrust::Keys { secret: trust.secret.clone(), detail };
    let signers = read(trust.allowed_signers.as_deref().unwrap_or_default()).map_err(keys)?;
    let mut listed: Vec<&Signer> = signers.iter().filter(|signer| signer.key.key_data() == key.key_data()).collect();
    if listed.is_empty() {
        return Err(Distrust::Foreign { object: object.name.to_owned(), key: shown, place: KEY, secret: trust.secret.clone() });
    }
    let unfit = |why: String| Distrust::Unfit { object: object.name.to_owned(), key: shown.clone(), why };
    if signature.version() != SshSig::VERSION || matches!(signature.algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
        return Err(unfit("by a method that can be forged: sign with SHA-256 or SHA-512, as newer versions of ssh-keygen do".to_owned()));
    }
    if signature.namespace() != NAMESPACE {
        return Err(unfit(format!("for {:?} instead of {NAMESPACE:?}: sign with git itself", signature.namespace())));
    }
    key.verify(NAMESPACE, payload, &signature).map_err(|_| Distrust::Tampered { object: object.name.to_owned(), key: shown.clone() })?;
    // A key may stand there several times, each time for something else.
    let mut why = String::new();
    listed.retain(|signer| match signer.refuses(object.made) {
        Some(refusal) => {
            why = refusal;
            false
        }
        None => true,
    });
    match listed.first() {
        Some(signer) => Ok(signer.principals.clone()),
        None => Err(unfit(why)),
    }
}

impl Signer {
    /// Why this line does not let the key sign for git at that time.
    fn refuses(&self, made: Timestamp) -> Option<String> {
        let principals = &self.principals;
        if self.namespaces.as_ref().is_some_and(|namespaces| !namespaces.iter().any(|space| super::git_known_hosts::fits(space, NAMESPACE)))
        {
            return Some(format!("{KEY} lets {principals} sign only in other namespaces: add namespaces=\"{NAMESPACE}\""));
        }
        if let Some(after) = self.after.filter(|after| made < *after) {
            return Some(format!("it was made at {made}, and {KEY} lets {principals} sign only from {after} on"));
        }
        if let Some(before) = self.before.filter(|before| made >= *before) {
            return Some(format!("it was made at {made}, and {KEY} lets {principals} sign only before {before}: sign it with a newer key"));
        }
        None
    }
}

/// All lines, or what is wrong with one of them. A line that can't be read is refused: it might narrow what a key may do.
fn read(list: &str) -> Result<Vec<Signer>, String> {
    let mut signers = Vec::new();
    for (number, line) in list.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        signers.push(signer(line).map_err(|problem| format!("line {} of {KEY}: {problem}", number + 1))?);
    }
    Ok(signers)
}

fn signer(line: &str) -> Result<Signer, String> {
    let (principals, rest) = word(line).ok_or("it has to be principals, options and a public key")?;
    let signer = |key: &str| {
        let key = PublicKey::from_openssh(key).ok()?;
        Some(Signer { principals: principals.trim_matches('"').to_owned(), namespaces: None, after: None, before: None, key })
    };
    if let Some(signer) = signer(rest) {
        return Ok(signer);
    }
    let (options, rest) = word(rest).ok_or("it has no public key")?;
    let mut signer = signer(rest).ok_or("its public key can't be read: take it from the .pub file")?;
    for option in split(options) {
        let (name, value) = option.split_once('=').map_or((option.as_str(), None), |(name, value)| (name, Some(value.trim_matches('"'))));
        match (name.to_ascii_lowercase().as_str(), value) {
            ("namespaces", Some(value)) => signer.namespaces = Some(value.split(',').map(|space| space.trim().to_owned()).collect()),
            ("valid-after", Some(value)) => signer.after = Some(time(value)?),
            ("valid-before", Some(value)) => signer.before = Some(time(value)?),
            ("cert-authority", _) => {
                return Err("cert-authority is not supported: list the keys of those who sign instead".to_owned());
            }
            _ => return Err(format!("option {name:?} is not known")),
        }
    }
    Ok(signer)
}

/// The first word and what comes after it; white space between double quotes does not end a word.
fn word(text: &str) -> Option<(&str, &str)> {
    let mut is_quoted = false;
    let end = text.find(|c: char| {
        is_quoted ^= c == '"';
        c.is_whitespace() && !is_quoted
    })?;
    let (word, rest) = text.split_at_checked(end)?;
    Some((word, rest.trim_start()))
}

/// At the commas that are not between double quotes.
fn split(options: &str) -> Vec<String> {
    let mut is_quoted = false;
    options
        .split(|c: char| {
            is_quoted ^= c == '"';
            c == ',' && !is_quoted
        })
        .map(str::to_owned)
        .collect()
}

/// `YYYYMMDD[Z]` or `YYYYMMDDHHMM[SS][Z]`. Without a Z ssh-keygen takes the machine's time zone; the operator's is UTC.
fn time(text: &str) -> Result<Timestamp, String> {
    let digits = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let is_whole = matches!(digits.len(), 8 | 12 | 14) && digits.chars().all(|c| c.is_ascii_digit());
    let padded = format!("{digits:0<14}");
    let parsed = DateTime::strptime("%Y%m%d%H%M%S", &padded).and_then(|time| time.to_zoned(TimeZone::UTC));
    match parsed {
        Ok(time) if is_whole => Ok(time.timestamp()),
        Ok(_) | Err(_) => Err(format!("{text:?} is no time: write YYYYMMDD or YYYYMMDDHHMMSS, and Z for UTC")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn a_line_says_who_may_sign_what_and_when() {
        let line = format!(
            "ada@liqui.example,*@ops.example  namespaces=\"git,file\",valid-after=\"20240102\",valid-before=20250203040506Z {ED25519} Ada"
        );
        let signers = read(&format!("# who\n\n{line}\n\"one two\" {ED25519}\n")).expect("the list can be read");
        let shape: Vec<_> =
            signers.iter().map(|s| (s.principals.as_str(), s.after.map(|t| t.to_string()), s.before.map(|t| t.to_string()))).collect();
        assert_eq!(
            shape,
            [
                ("ada@liqui.example,*@ops.example", Some("2024-01-02T00:00:00Z".to_owned()), Some("2025-02-03T04:05:06Z".to_owned())),
                ("one two", None, None)
            ]
        );
        assert_eq!(signers[0].namespaces.as_deref(), Some(["git".to_owned(), "file".to_owned()].as_slice()));
    }

    #[test]
    fn a_line_that_can_not_be_read_is_refused_by_its_number() {
        for (line, why) in [
            ("ada@liqui.example", "principals, options and a public key"),
            ("ada@liqui.example ssh-ed25519", "no public key"),
            ("ada@liqui.example ssh-ed25519 AAAA", "can't be read"),
            (&format!("ada cert-authority {ED25519}"), "cert-authority is not supported"),
            (&format!("ada cert-authority,namespaces=\"git\" {ED25519}"), "cert-authority is not supported"),
            (&format!("ada no-touch {ED25519}"), "\"no-touch\" is not known"),
            (&format!("ada valid-before=soon {ED25519}"), "\"soon\" is no time"),
            (&format!("ada valid-before=20241301 {ED25519}"), "\"20241301\" is no time"),
        ] {
            let error = read(&format!("# first\n{line}")).map(|_| ()).expect_err(line);
            assert!(error.starts_with("line 2 of allowed_signers: ") && error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn a_key_signs_only_in_its_time_and_for_git() {
        for (options, made, refusal) in [
            ("", "2024-06-01T00:00:00Z", None),
            ("namespaces=\"file\" ", "2024-06-01T00:00:00Z", Some("other namespaces")),
            ("namespaces=\"g*\" ", "2024-06-01T00:00:00Z", None),
            ("valid-after=20240701 ", "2024-06-01T00:00:00Z", Some("from 2024-07-01T00:00:00Z on")),
            ("valid-before=20240501 ", "2024-06-01T00:00:00Z", Some("before 2024-05-01T00:00:00Z")),
            ("valid-after=20240501,valid-before=20240701 ", "2024-06-01T00:00:00Z", None),
        ] {
            let signers = read(&format!("ada {options}{ED25519}")).expect("the line can be read");
            let found = signers[0].refuses(made.parse().expect("the table holds times"));
            assert_eq!(found.is_some(), refusal.is_some(), "{options}: {found:?}");
            assert!(found.unwrap_or_default().contains(refusal.unwrap_or_default()), "{options}");
        }
    }
}
