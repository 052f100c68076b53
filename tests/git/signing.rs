//! Keys made for one test, and objects signed with them as git would, or as somebody would who means no good.

use std::time::{Duration, SystemTime};

use backout::access::GitTrust;
use pgp::{
    composed::{
        ArmorOptions, DetachedSignature, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey, SubkeyParamsBuilder,
        SubpacketConfig,
    },
    crypto::hash::HashAlgorithm,
    packet::{KeyFlags, Signature, SignatureConfig, SignatureType, Subpacket, SubpacketData},
    types::{KeyDetails, Password, Tag, Timestamp},
};
use rand::rngs::OsRng;
use russh::keys::{HashAlg, PrivateKey, ssh_key::LineEnding};

use super::repository::Repository;

/// An SSH signature.
pub fn ssh(key: &PrivateKey, namespace: &str, hash: HashAlg, payload: &[u8]) -> String {
    let signature = key.sign(namespace, hash, payload).expect("Ed25519 keys sign");
    signature.to_pem(LineEnding::LF).expect("a signature can be written")
}

/// A line of `allowed_signers`.
pub fn allowed(principal: &str, options: &str, key: &PrivateKey) -> String {
    format!("{principal} {options}{}\n", key.public_key().to_openssh().expect("a key can be written"))
}

pub fn trust(allowed_signers: &str, openpgp: &[&SignedSecretKey]) -> GitTrust {
    let armored = |key: &SignedSecretKey| {
        SignedPublicKey::from(key.clone()).to_armored_string(ArmorOptions::default()).expect("a key can be written")
    };
    GitTrust {
        secret: "signers".to_owned(),
        allowed_signers: Some(allowed_signers.to_owned()),
        openpgp: openpgp.iter().enumerate().map(|(index, key)| (format!("{index}.asc"), armored(key))).collect(),
    }
}

fn at(age: Duration) -> Timestamp {
    Timestamp::try_from(SystemTime::now() - age).expect("it is after 1970")
}

/// An OpenPGP key that was made `age` ago; `subkey`: with one for signing.
pub fn openpgp(age: Duration, subkey: bool) -> SignedSecretKey {
    let mut parameters = SecretKeyParamsBuilder::default();
    parameters
        .key_type(KeyType::Ed25519Legacy)
        .created_at(at(age))
        .can_certify(true)
        .can_sign(!subkey)
        .primary_user_id("Ada <ada@liqui.example>".to_owned());
    if subkey {
        let signing = SubkeyParamsBuilder::default().key_type(KeyType::Ed25519Legacy).created_at(at(age)).can_sign(true).build();
        parameters.subkey(signing.expect("the parameters are whole"));
    }
    parameters.build().expect("the parameters are whole").generate(OsRng).expect("keys can be made")
}

fn own(key: &SignedSecretKey, kind: SignatureType, more: Vec<SubpacketData>) -> SignatureConfig {
    let mut config = SignatureConfig::from_key(OsRng, &key.primary_key, kind).expect("the key signs");
    config.hashed_subpackets =
        [SubpacketData::SignatureCreationTime(at(Duration::ZERO)), SubpacketData::IssuerFingerprint(key.fingerprint())]
            .into_iter()
            .chain(more)
            .map(|data| Subpacket::regular(data).expect("it fits"))
            .collect();
    config
}

/// The same key, which ends so long after it was made.
pub fn ending(mut key: SignedSecretKey, lasts: Duration) -> SignedSecretKey {
    let mut flags = KeyFlags::default();
    flags.set_sign(true);
    flags.set_certify(true);
    let lasts = pgp::types::Duration::try_from(lasts).expect("it is below a century");
    let config = own(&key, SignatureType::CertPositive, vec![SubpacketData::KeyFlags(flags), SubpacketData::KeyExpirationTime(lasts)]);
    let user = key.details.users[0].clone();
    let signature = config
        .sign_certification(&key.primary_key, key.primary_key.public_key(), &Password::empty(), Tag::UserId, &user.id)
        .expect("the key signs");
    key.details.users[0].signatures = vec![signature];
    key
}

/// The same key, revoked.
pub fn revoked(mut key: SignedSecretKey) -> SignedSecretKey {
    let config = own(&key, SignatureType::KeyRevocation, Vec::new());
    let signature = config.sign_key(&key.primary_key, &Password::empty(), key.primary_key.public_key()).expect("the key signs");
    key.details.revocation_signatures.push(signature);
    key
}

/// When and with what an OpenPGP signature is made.
pub struct Pen {
    pub age: Duration,
    pub is_ahead: bool,
    pub hash: HashAlgorithm,
    pub lasts: Option<Duration>,
}

impl Default for Pen {
    fn default() -> Self {
        Self { age: Duration::ZERO, is_ahead: false, hash: HashAlgorithm::Sha256, lasts: None }
    }
}

/// An OpenPGP signature by the key, or by its first subkey.
pub fn pgp(key: &SignedSecretKey, pen: &Pen, payload: &[u8]) -> String {
    let now = SystemTime::now();
    let made = Timestamp::try_from(if pen.is_ahead { now + pen.age } else { now - pen.age }).expect("it is after 1970");
    let subkey = key.secret_subkeys.first();
    let print = subkey.map_or_else(|| key.fingerprint(), |subkey| subkey.key.fingerprint());
    let mut hashed = vec![SubpacketData::SignatureCreationTime(made), SubpacketData::IssuerFingerprint(print)];
    if let Some(lasts) = pen.lasts {
        hashed.push(SubpacketData::SignatureExpirationTime(lasts.try_into().expect("it is below a century")));
    }
    let packets = SubpacketConfig::UserDefined {
        hashed: hashed.into_iter().map(|data| Subpacket::regular(data).expect("it fits")).collect(),
        unhashed: Vec::new(),
    };
    let (none, hash) = (Password::empty(), pen.hash);
    let signature = match subkey {
        Some(subkey) => DetachedSignature::sign_binary_data_with_subpackets(OsRng, &subkey.key, &none, hash, payload, packets),
        None => DetachedSignature::sign_binary_data_with_subpackets(OsRng, &key.primary_key, &none, hash, payload, packets),
    };
    let signature: Signature = signature.expect("the key signs").signature;
    DetachedSignature::new(signature).to_armored_string(ArmorOptions::default()).expect("a signature can be written")
}

/// Puts a signature into the newest commit and makes that the branch; returns its id. `sign` is given what git signs.
pub fn sign_commit(repository: &Repository, sign: impl Fn(&[u8]) -> String) -> String {
    let raw = repository.raw("HEAD");
    let text = String::from_utf8(raw.clone()).expect("the test's commits are text");
    let (header, message) = text.split_once("\n\n").expect("a commit has a message");
    let signature = sign(&raw);
    let folded = signature.trim_end().replace('\n', "\n ");
    let id = repository.object("commit", format!("{header}\ngpgsig {folded}\n\n{message}").as_bytes());
    repository.git(&["reset", "--quiet", "--hard", &id]);
    id
}

/// Makes the annotated tag `place` with `name` in it; `sign` is given what git signs.
pub fn sign_tag(repository: &Repository, place: &str, name: &str, sign: impl Fn(&[u8]) -> String) -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_secs();
    let raw = format!(
        "object {}\ntype commit\ntag {name}\ntagger Liqui Developer <developer@liqui.example> {seconds} +0000\n\nRelease {name}\n",
        repository.head()
    );
    let id = repository.object("tag", format!("{raw}{}", sign(raw.as_bytes())).as_bytes());
    repository.git(&["update-ref", &format!("refs/tags/{place}"), &id]);
    id
}
