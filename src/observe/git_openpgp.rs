//! OpenPGP signatures, and the public keys that may make them. Pure.
//!
//! The library checks the mathematics; what it leaves to its caller is done here: which self-signature counts, whether a
//! subkey belongs to its key and may sign, and whether anything had expired or was revoked. Whatever is in doubt is refused.

use jiff::Timestamp;
use pgp::{
    composed::{Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey},
    crypto::hash::HashAlgorithm,
    packet::{Signature, SignatureType},
    types::{Duration, KeyDetails, Tag},
};

use super::git_verify::{Distrust, Object};
use crate::access::GitTrust;

pub const BEGIN: &str = "-----BEGIN PGP SIGNATURE-----";
const KEY_BLOCK: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const PRIVATE_KEY_BLOCK: &str = "-----BEGIN PGP PRIVATE KEY BLOCK-----";
const PLACE: &str = "*.asc";
/// A clock that is ahead of ours by no more than this is not called a lie.
const SKEW_SECONDS: i64 = 5 * 60;

/// Who signed: the id of the key, and the name on it.
pub fn verify(object: Object<'_>, signature: &str, payload: &[u8], trust: &GitTrust, now: Timestamp) -> Result<String, Distrust> {
    let name = || object.name.to_owned();
    let signature = only(signature).ok_or_else(|| Distrust::Unreadable(name()))?;
    let issuers = issuers(&signature);
    let shown = match issuers.first() {
        Some(id) => format!("OpenPGP key {id}"),
        None => return Err(Distrust::Unreadable(name())),
    };
    let certificates = read(trust).map_err(|detail| Distrust::Keys { secret: trust.secret.clone(), detail })?;
    let found = certificates.iter().find_map(|certificate| Maker::find(certificate, &issuers).map(|maker| (certificate, maker)));
    let Some((certificate, maker)) = found else {
        return Err(Distrust::Foreign { object: name(), key: shown, place: PLACE, secret: trust.secret.clone() });
    };
    let unfit = |why: String| Distrust::Unfit { object: name(), key: shown.clone(), why };
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) || !is_strong(&signature) {
        return Err(unfit("by a method that can be forged: sign with SHA-256 or stronger".to_owned()));
    }
    let fits = match maker {
        Maker::Primary => signature.verify(certificate, payload),
        Maker::Subkey(subkey) => signature.verify(&subkey.key, payload),
    };
    fits.map_err(|_| Distrust::Tampered { object: name(), key: shown.clone() })?;
    let made = in_time(&signature, now).map_err(unfit)?;
    may_sign(certificate, maker, made, now).map_err(unfit)?;
    let user = certificate.details.users.first().map(|user| String::from_utf8_lossy(user.id.id()).into_owned());
    Ok(match user {
        Some(user) => format!("{shown} ({user})"),
        None => shown,
    })
}

/// The one signature in the block: with several, which one is meant is not for us to guess.
fn only(text: &str) -> Option<Signature> {
    let (mut found, _) = DetachedSignature::from_string_many(text).ok()?;
    let first = found.next()?.ok()?;
    if found.next().is_some() { None } else { Some(first.signature) }
}

/// Ids of the keys that the signature names as its maker's.
fn issuers(signature: &Signature) -> Vec<String> {
    let prints = signature.issuer_fingerprint().into_iter().map(|print| hex::encode_upper(print.as_bytes()));
    let ids = signature.issuer_key_id().into_iter().map(|id| hex::encode_upper(id.as_ref()));
    // The id is the end of a fingerprint of version 4, which is all that most keys have.
    prints.map(|print| print.get(print.len().saturating_sub(16)..).unwrap_or_default().to_owned()).chain(ids).collect()
}

/// Every public key in the Secret.
fn read(trust: &GitTrust) -> Result<Vec<SignedPublicKey>, String> {
    let mut keys = Vec::new();
    for (name, text) in &trust.openpgp {
        if text.contains(PRIVATE_KEY_BLOCK) {
            return Err(format!("key {name} holds a private key: put the public one there (gpg --armor --export)"));
        }
        let bad = || format!("key {name} holds no OpenPGP public key (gpg --armor --export)");
        let begins: Vec<usize> = text.match_indices(KEY_BLOCK).map(|(at, _)| at).collect();
        if begins.is_empty() {
            return Err(bad());
        }
        for (index, begin) in begins.iter().enumerate() {
            let end = begins.get(index + 1).copied().unwrap_or(text.len());
            let (found, _) = SignedPublicKey::from_string_many(text.get(*begin..end).unwrap_or_default()).map_err(|_| bad())?;
            for key in found {
                keys.push(key.map_err(|_| bad())?);
            }
        }
    }
    Ok(keys)
}

/// The part of a key that made a signature.
#[derive(Clone, Copy)]
enum Maker<'a> {
    Primary,
    Subkey(&'a SignedPublicSubKey),
}

impl<'a> Maker<'a> {
    fn find(certificate: &'a SignedPublicKey, issuers: &[String]) -> Option<Self> {
        let is = |key: &dyn KeyDetails| issuers.contains(&hex::encode_upper(key.legacy_key_id().as_ref()));
        if is(&certificate.primary_key) {
            return Some(Self::Primary);
        }
        certificate.public_subkeys.iter().find(|subkey| is(&subkey.key)).map(Self::Subkey)
    }
}

fn is_strong(signature: &Signature) -> bool {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha224, Sha256, Sha384, Sha512};
    matches!(signature.hash_alg(), Some(Sha224 | Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512))
}

/// When the signature was made, if it is not from the future and has not expired itself.
fn in_time(signature: &Signature, now: Timestamp) -> Result<i64, String> {
    let made = signature.created().map(|made| i64::from(made.as_secs())).ok_or("it does not say when it was made: sign it again")?;
    if made > now.as_second() + SKEW_SECONDS {
        return Err(format!("it says that it was made at {}, which is still to come: check the clock that it was made by", shown(made)));
    }
    match end(made, signature.signature_expiration_time()) {
        Some(end) if end <= now.as_second() => Err(format!("the signature expired at {}: sign it again", shown(end))),
        Some(_) | None => Ok(made),
    }
}

/// Whether the key that made it was, and still is, one that may sign.
fn may_sign(certificate: &SignedPublicKey, maker: Maker<'_>, made: i64, now: Timestamp) -> Result<(), String> {
    let primary = &certificate.primary_key;
    if !certificate.details.revocation_signatures.is_empty() {
        return Err("that key was revoked: sign it with another one, and take this one out of the Secret".to_owned());
    }
    let own = newest(own_signatures(certificate)).ok_or("nothing in that key says what it is for: export it again")?;
    lives(i64::from(primary.created_at().as_secs()), own.key_expiration_time(), made, now)?;
    let says_may_sign = |signature: &Signature| has_flags(signature).then(|| signature.key_flags().sign());
    match maker {
        // A key without flags comes from a time when every key might sign.
        Maker::Primary if says_may_sign(own).unwrap_or(true) => Ok(()),
        Maker::Primary => Err("that key is not for signing: sign with a subkey that is".to_owned()),
        Maker::Subkey(subkey) => {
            if subkey.signatures.iter().any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation)) {
                return Err("that subkey was revoked: sign it with another one".to_owned());
            }
            let bound = subkey.signatures.iter().filter(|signature| {
                signature.typ() == Some(SignatureType::SubkeyBinding) && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
            });
            let binding = newest(bound).ok_or("that subkey does not belong to its key: export the key again")?;
            // The subkey has to agree, else anybody's subkey could be claimed.
            let agrees = binding.embedded_signature().is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
            if says_may_sign(binding) != Some(true) || !agrees {
                return Err("that subkey is not for signing: sign with one that is".to_owned());
            }
            lives(i64::from(subkey.key.created_at().as_secs()), binding.key_expiration_time(), made, now)
        }
    }
}

/// What the key says about itself: direct signatures and those on its own names that fit.
fn own_signatures(certificate: &SignedPublicKey) -> impl Iterator<Item = &Signature> {
    let primary = &certificate.primary_key;
    let direct = certificate.details.direct_signatures.iter().filter(|signature| signature.verify_key(primary).is_ok());
    let names = certificate.details.users.iter().flat_map(move |user| {
        user.signatures.iter().filter(move |signature| {
            signature.typ() != Some(SignatureType::CertRevocation) && signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        })
    });
    direct.chain(names)
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created())
}

fn has_flags(signature: &Signature) -> bool {
    use pgp::packet::SubpacketData;
    signature.config().is_some_and(|config| config.hashed_subpackets().any(|packet| matches!(packet.data, SubpacketData::KeyFlags(_))))
}

/// Whether a key lived when it signed, and still does.
fn lives(born: i64, lasts: Option<Duration>, made: i64, now: Timestamp) -> Result<(), String> {
    if made < born {
        return Err(format!("that was made at {}, before the key at {}: sign it again", shown(made), shown(born)));
    }
    match end(born, lasts) {
        Some(end) if end <= made || end <= now.as_second() => {
            Err(format!("that key expired at {}: renew it, put it into the Secret anew, and sign again", shown(end)))
        }
        Some(_) | None => Ok(()),
    }
}

/// OpenPGP writes "never" as no duration, or as one of 0.
fn end(begin: i64, lasts: Option<Duration>) -> Option<i64> {
    let seconds = i64::try_from(std::time::Duration::from(lasts?).as_secs()).ok().filter(|seconds| *seconds > 0)?;
    Some(begin.saturating_add(seconds))
}

fn shown(second: i64) -> String {
    Timestamp::from_second(second).map_or_else(|_| second.to_string(), |time| time.to_string())
}
