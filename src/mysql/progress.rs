//! How far a long call has come, for people.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One part of a call on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub part: Part,
    /// Rows, or bytes where files are compared.
    pub done: u64,
    /// What there is to do. Where rows are read, the server's estimate, which may be far off.
    pub total: u64,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Rows are read into files.
    Capture,
    /// Files are read and their digests compared.
    Verify,
    /// Rows are written into a shadow.
    Load,
    /// Rows of the shadow are compared with the manifest.
    Compare,
}

type Listener = Arc<dyn Fn(Progress) + Send + Sync>;

/// Who is told.
#[derive(Clone, Default)]
pub(super) struct Listening(Option<Listener>);

impl Listening {
    pub fn new(listener: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub fn begin(&self, part: Part, total: u64) -> Counter {
        let counter = Counter { listening: self.clone(), part, done: AtomicU64::new(0), total };
        counter.add(0);
        counter
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "somebody" } else { "nobody" })
    }
}

/// Counts what several sessions have done of one part.
pub(super) struct Counter {
    listening: Listening,
    part: Part,
    done: AtomicU64,
    total: u64,
}

impl Counter {
    pub fn add(&self, done: u64) {
        let done = self.done.fetch_add(done, Ordering::Relaxed) + done;
        if let Some(listener) = &self.listening.0 {
            listener(Progress { part: self.part, done, total: self.total.max(done) });
        }
    }
}
