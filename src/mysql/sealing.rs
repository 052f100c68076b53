//! Encryption of a backup's files: for whom they are sealed, and with whose key they are opened. The format is age's
//! (age-encryption.org/v1), with X25519 keys: `age -d -i KEY FILE` opens a file without this engine.
//!
//! What is sealed needs no secret: only who restores has to have one.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::StreamWriter;
use age::x25519::{Identity, Recipient};
use age::{DecryptError, Decryptor, Encryptor};
use futures::stream::BoxStream;
use futures::{AsyncReadExt, StreamExt, TryStreamExt};
use object_store::PutPayload;

use crate::secret::Sensitive;

/// A portion of a file.
pub(super) type Bytes = <PutPayload as IntoIterator>::Item;
pub(super) type Portions = BoxStream<'static, io::Result<Bytes>>;

/// Decrypted bytes are handed on in portions of this size, which is that of age's own.
const PORTION: usize = 64 * 1024;

/// Whose keys open what is written, and the keys that open what is read. Without recipients nothing is sealed.
#[derive(Clone, Default)]
pub struct Sealing {
    recipients: Vec<Recipient>,
    identities: Vec<Identity>,
}

/// A key that can't be one. No message holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("recipient {0} is no public key of age: write it as age-keygen prints it, age1…")]
    Recipient(usize),
    #[error("it holds no identity of age: it must be what age-keygen wrote, with a line AGE-SECRET-KEY-1…")]
    Identity,
    #[error("it is the identity of none of the recipients, and could open nothing that is sealed for them")]
    Unrelated,
}

impl Sealing {
    /// For whoever has the secret key of one of these, each as in `age1…`.
    ///
    /// # Errors
    /// [`KeyError::Recipient`], counted from 1.
    pub fn new(recipients: &[String]) -> Result<Self, KeyError> {
        let parsed = recipients.iter().enumerate().map(|(at, text)| text.trim().parse().map_err(|_| KeyError::Recipient(at + 1)));
        Ok(Self { recipients: parsed.collect::<Result<_, _>>()?, identities: Vec::new() })
    }

    /// The same, and opened with this: the text of an identity file, in which lines with `#` count for nothing.
    ///
    /// # Errors
    /// [`KeyError::Identity`]; [`KeyError::Unrelated`] where there are recipients and none of them is its.
    pub fn with_identity(self, file: &Sensitive) -> Result<Self, KeyError> {
        let lines = file.reveal().lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities = lines.map(|line| line.parse().map_err(|_| KeyError::Identity)).collect::<Result<Vec<Identity>, _>>()?;
        if identities.is_empty() {
            return Err(KeyError::Identity);
        }
        if !self.recipients.is_empty() && !identities.iter().any(|identity| self.recipients.contains(&identity.to_public())) {
            return Err(KeyError::Unrelated);
        }
        Ok(Self { identities, ..self })
    }

    pub(super) fn is_on(&self) -> bool {
        !self.recipients.is_empty()
    }

    /// Opens a stream that was sealed.
    pub(super) async fn open(&self, sealed: Portions) -> Result<Portions, DecryptError> {
        let decryptor = Decryptor::new_async_buffered(sealed.into_async_read()).await?;
        let reader = decryptor.decrypt_async(self.identities())?;
        let portions = futures::stream::try_unfold(reader, async |mut reader| {
            let mut portion = vec![0; PORTION];
            let read = AsyncReadExt::read(&mut reader, &mut portion).await?;
            portion.truncate(read);
            Ok((read > 0).then(|| (Bytes::from(portion), reader)))
        });
        Ok(portions.boxed())
    }

    /// Opens what is in memory.
    pub(super) fn open_whole(&self, sealed: &[u8]) -> Result<Vec<u8>, DecryptError> {
        let mut opened = Vec::new();
        let mut reader = Decryptor::new_buffered(sealed)?.decrypt(self.identities())?;
        Read::read_to_end(&mut reader, &mut opened)?;
        Ok(opened)
    }

    fn identities(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.identities.iter().map(|identity| identity as &dyn age::Identity)
    }

    pub(super) fn has_identity(&self) -> bool {
        !self.identities.is_empty()
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("recipients", &self.recipients).field("identities", &self.identities.len()).finish()
    }
}

/// Where bytes wait until they are handed on.
#[derive(Clone, Default)]
pub(super) struct Tray(Arc<Mutex<Vec<u8>>>);

impl Tray {
    pub fn len(&self) -> usize {
        self.with(|bytes| bytes.len())
    }

    pub fn take(&self) -> Vec<u8> {
        self.with(std::mem::take)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Tray {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|all| all.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts bytes into a tray, sealed where there are recipients.
pub(super) enum Sealer {
    Plain(Tray),
    Sealed(Box<StreamWriter<Tray>>),
}

impl Sealer {
    pub fn begin(sealing: &Sealing, tray: Tray) -> io::Result<Self> {
        if !sealing.is_on() {
            return Ok(Self::Plain(tray));
        }
        let recipients = sealing.recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        Ok(Self::Sealed(Box::new(encryptor.wrap_output(tray)?)))
    }

    /// Without this what was sealed can't be opened.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Sealed(writer) => writer.finish().map(drop),
        }
    }
}

impl Write for Sealer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tray) => tray.write(bytes),
            Self::Sealed(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tray) => tray.flush(),
            Self::Sealed(writer) => writer.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret;

    use super::*;

    fn seal(sealing: &Sealing, text: &[u8]) -> Vec<u8> {
        let tray = Tray::default();
        let mut sealer = Sealer::begin(sealing, tray.clone()).unwrap();
        sealer.write_all(text).unwrap();
        sealer.finish().unwrap();
        tray.take()
    }

    fn file(identity: &Identity) -> Sensitive {
        Sensitive::new(format!("# created: today\n{}\n", identity.to_string().expose_secret()))
    }

    #[tokio::test]
    async fn what_is_sealed_is_opened_by_its_recipients_alone() {
        let (mine, theirs, strange) = (Identity::generate(), Identity::generate(), Identity::generate());
        let recipients = [mine.to_public().to_string(), theirs.to_public().to_string()];
        let sealing = Sealing::new(&recipients).unwrap();
        let text = b"rows".repeat(100_000);
        let sealed = seal(&sealing, &text);
        assert!(sealed.starts_with(b"age-encryption.org/v1\n"));
        // However the store cuts it.
        let portions =
            || futures::stream::iter(sealed.chunks(1000).map(|part| Ok(Bytes::copy_from_slice(part))).collect::<Vec<_>>()).boxed();
        for identity in [&mine, &theirs] {
            let sealing = Sealing::default().with_identity(&file(identity)).unwrap();
            let opened: Vec<Bytes> = sealing.open(portions()).await.unwrap().try_collect().await.unwrap();
            assert_eq!(opened.concat(), text);
            assert_eq!(sealing.open_whole(&sealed).unwrap(), text);
            let cut = sealing.open_whole(&sealed[..sealed.len() - 70_000]);
            assert!(cut.is_err(), "a part that is missing is noticed");
        }
        for sealing in [Sealing::default(), Sealing::default().with_identity(&file(&strange)).unwrap()] {
            assert!(matches!(sealing.open(portions()).await.err(), Some(DecryptError::NoMatchingKeys)));
        }
        assert_eq!(seal(&Sealing::default(), &text), text);
        assert_eq!(sealing.with_identity(&file(&strange)).err(), Some(KeyError::Unrelated));
    }

    #[test]
    fn a_key_that_is_none_is_not_repeated() {
        let identity = Identity::generate();
        let secret = identity.to_string().expose_secret().to_owned();
        let recipient = identity.to_public().to_string();
        let refused = Sealing::new(&[recipient, secret.clone()]).unwrap_err();
        assert_eq!(refused, KeyError::Recipient(2));
        assert!(!refused.to_string().contains(&secret));
        for text in ["", "# nothing\n", "AGE-SECRET-KEY-1", "age1xyz"] {
            assert_eq!(Sealing::default().with_identity(&Sensitive::new(text)).err(), Some(KeyError::Identity));
        }
        let shown = format!("{:?}", Sealing::default().with_identity(&file(&identity)).unwrap());
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}
