//! The list of SSH host keys that a Release trusts, as OpenSSH's `known_hosts` has it. Pure.
//!
//! There is no trust on first use: a server that the list does not name is not spoken to.

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::{
    Algorithm, HashAlg, PublicKey,
    ssh_key::known_hosts::{HostPatterns, KnownHosts, Marker},
};
use sha1::Sha1;

/// What the list says about one server.
#[derive(Debug, Default)]
pub struct Known {
    trusted: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

/// A server's key that is not accepted, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "key known_hosts of the Secret has no entry for {name}; it shows the key {shown}: compare that with the server's own and add the line {line:?}"
    )]
    Unknown { name: String, shown: String, line: String },
    #[error(
        "it shows the key {shown}, but known_hosts has {expected} for {name}: if the key was changed on purpose replace that line, else somebody stands between"
    )]
    Changed { name: String, shown: String, expected: String },
    #[error("it shows the key {shown}, which known_hosts marks as @revoked for {name}: give the server a new key and add that one")]
    Revoked { name: String, shown: String },
}

impl Known {
    /// Reads the entries for the server. A line that can't be read is refused, because it might be a revocation.
    pub fn read(list: &str, host: &str, port: u16) -> Result<Self, String> {
        let name = name(host, port);
        let mut known = Self::default();
        for (number, line) in list.lines().enumerate() {
            for entry in KnownHosts::new(line.trim_start()) {
                let entry = entry.map_err(|_| format!("line {} of known_hosts can't be read: correct or remove it", number + 1))?;
                if !matches(entry.host_patterns(), &name) {
                    continue;
                }
                match entry.marker() {
                    None => known.trusted.push(entry.public_key().clone()),
                    Some(Marker::Revoked) => known.revoked.push(entry.public_key().clone()),
                    // Certificates of hosts are not asked for, so there is nothing that such a line could vouch for.
                    Some(Marker::CertAuthority) => {}
                }
            }
        }
        Ok(known)
    }

    /// The kinds of keys to ask the server for, in our order: one that is not in the list would only be refused.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let is_listed = |ours: &Algorithm| {
            self.trusted.iter().any(|key| match (key.algorithm(), ours) {
                (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
                (theirs, ours) => theirs == *ours,
            })
        };
        let ours = ours();
        let listed: Vec<Algorithm> = ours.iter().filter(|ours| is_listed(ours)).cloned().collect();
        // Nothing is known: ask for any, so that there is a fingerprint to show.
        if listed.is_empty() { ours } else { listed }
    }

    /// Whether the key that the server at `host` and `port` shows is the one that is trusted.
    pub fn check(&self, host: &str, port: u16, shown: &PublicKey) -> Result<(), Refusal> {
        let name = name(host, port);
        let is = |key: &PublicKey| key.key_data() == shown.key_data();
        if self.revoked.iter().any(is) {
            return Err(Refusal::Revoked { name, shown: fingerprint(shown) });
        }
        if self.trusted.iter().any(is) {
            return Ok(());
        }
        if self.trusted.is_empty() {
            let mut bare = shown.clone();
            bare.set_comment("");
            let line = format!("{name} {}", bare.to_openssh().unwrap_or_default().trim_end());
            return Err(Refusal::Unknown { name, shown: fingerprint(shown), line });
        }
        let expected = self.trusted.iter().map(fingerprint).collect::<Vec<_>>().join(", ");
        Err(Refusal::Changed { name, shown: fingerprint(shown), expected })
    }
}

/// `SHA256:…` with the kind of key, as `ssh-keygen -l` shows it.
pub fn fingerprint(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256))
}

/// Strongest first. RSA only with SHA-2: signatures over SHA-1 can be forged.
fn ours() -> Vec<Algorithm> {
    use russh::keys::EcdsaCurve;
    vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ]
}

/// As known_hosts names a server.
fn name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            Hmac::<Sha1>::new_from_slice(salt).is_ok_and(|mac| mac.chain_update(name).verify_slice(hash).is_ok())
        }
        HostPatterns::Patterns(patterns) => {
            let negated = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(|pattern| fits(pattern, name));
            !negated && patterns.iter().filter(|pattern| !pattern.starts_with('!')).any(|pattern| fits(pattern, name))
        }
    }
}

/// Whether `name` fits a pattern with `*` and `?`, whatever the case.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.to_lowercase().chars().collect(), name.to_lowercase().chars().collect());
    let (mut at, mut read) = (0, 0);
    // The last `*`, and how much of the name it has taken so far.
    let mut star = None;
    while let Some(letter) = name.get(read) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(sign) if *sign == '?' || sign == letter => {
                at += 1;
                read += 1;
            }
            Some(_) | None => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    at = place + 1;
                    read = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|sign| *sign == '*')
}
