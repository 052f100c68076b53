//! Traps: the instants at which something happens to an operator that a test has for itself.
//!
//! At a [`Trap`] a write is kept from the API server, or let happen and its answer kept from the operator: the worst moments, since
//! the operator can't know which. No trap depends on time.

use std::time::Duration;

use axum::http::{Method, request::Parts};
use backout::api::operation::{Kind, Operation, OperationState, StepName, StepState};
use tokio::{sync::oneshot, time::timeout};

/// The instant at which something happens to the operator.
#[derive(Clone, Debug)]
pub struct Trap {
    /// Of the operations with a larger id than this.
    pub after: u64,
    pub kind: Kind,
    pub write: Write,
    pub when: When,
}

/// A write that the operator makes.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// The operation is written down.
    Opened,
    Started(StepName),
    Done(StepName),
    /// The operation's end is written down.
    Closed,
    /// Something other than status: the method, and a part of the path.
    Effect(Method, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It never reaches the API server.
    Before,
    /// It is accepted, but the operator does not get the answer.
    After,
}

/// What happens at the trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// SIGKILL. It stays dead until [`super::process::Process::run`].
    Kill,
    /// The request waits until what [`Sprung::wait`] returns is dropped.
    Hold,
}

/// A trap that is set; dropped, it is taken away.
#[must_use = "a trap that is dropped is taken away"]
pub struct Sprung {
    trap: Trap,
    told: oneshot::Receiver<Held>,
}

/// A request that waits. Dropped, it goes on.
pub struct Held {
    _release: oneshot::Sender<()>,
}

impl Sprung {
    /// Waits until the operator has come to the trap.
    pub async fn wait(self, deadline: Duration) -> Held {
        let Self { trap, told } = self;
        match timeout(deadline, told).await {
            Ok(Ok(held)) => held,
            Ok(Err(_)) | Err(_) => panic!("waited {} s in vain for the operator to come to {trap:?}", deadline.as_secs()),
        }
    }
}

/// A trap as the proxy holds it.
pub struct Armed {
    pub trap: Trap,
    pub then: Then,
    tell: oneshot::Sender<Held>,
}

impl Armed {
    pub fn is_at(&self, request: &Parts, body: &[u8], when: When) -> bool {
        let operation = writes_status(request).then(|| operation(body)).flatten();
        self.trap.when == when && self.trap.is_at(request, operation.as_ref())
    }

    pub fn is_taken_away(&self) -> bool {
        self.tell.is_closed()
    }

    /// Says that the operator has come to it. What is returned resolves once it may go on.
    pub fn spring(self) -> impl Future<Output = ()> + Send {
        let (release, released) = oneshot::channel();
        drop(self.tell.send(Held { _release: release }));
        async move { drop(released.await) }
    }
}

impl Trap {
    pub fn set(self, then: Then) -> (Armed, Sprung) {
        let (tell, told) = oneshot::channel();
        (Armed { trap: self.clone(), then, tell }, Sprung { trap: self, told })
    }

    fn is_at(&self, request: &Parts, operation: Option<&Operation>) -> bool {
        if let Write::Effect(method, part) = &self.write {
            return request.method == *method && request.uri.path().contains(part) && !request.uri.path().ends_with("/status");
        }
        let Some(operation) = operation.filter(|operation| operation.kind == self.kind && operation.id > self.after) else { return false };
        let stands = |name: StepName, state: StepState| operation.steps.iter().any(|step| step.name == name && step.state == state);
        match &self.write {
            Write::Opened => operation.steps.iter().all(|step| step.state == StepState::Pending),
            Write::Started(name) => stands(*name, StepState::Started),
            Write::Done(name) => stands(*name, StepState::Done),
            Write::Closed => operation.state != OperationState::Running,
            Write::Effect(..) => false,
        }
    }
}

pub fn writes_status(request: &Parts) -> bool {
    request.method == Method::PATCH && request.uri.path().contains("/releases/") && request.uri.path().ends_with("/status")
}

/// The operation as the operator writes it down.
fn operation(body: &[u8]) -> Option<Operation> {
    let patch: serde_json::Value = serde_json::from_slice(body).ok()?;
    serde_json::from_value(patch.get("status")?.get("operation")?.clone()).ok()
}
