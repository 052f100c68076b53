//! Leader election: of several replicas exactly one works, and the others stand by.
//!
//! The Lease in the operator's namespace says who leads. Each claim on it carries the `resourceVersion` that it was decided
//! on, so that of two claims one is refused. Clocks of different machines are never compared: a standby takes over when it
//! has itself watched the Lease unchanged for as long as the Lease promises. A leader counts from before it asked for its
//! last renewal, on a clock that goes on while the process is stopped or the machine sleeps, and stops beginning effects
//! some seconds before anybody else may begin one.
//!
//! Repeating it is safe: a claim whose answer was lost is found in the Lease as our own.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{self, within},
    error::Class,
};

/// Name of the Lease.
pub const NAME: &str = "backout";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the lease times don't fit: --lease-duration ({duration:?}, whole seconds) must be longer than --lease-renew-deadline \
         ({renew_deadline:?}), and that longer than twice --lease-retry ({retry:?})"
    )]
    Terms { duration: Duration, renew_deadline: Duration, retry: Duration },
    #[error("leadership is lost: Lease {NAME} {how}; this process ends, another replica goes on")]
    Lost { how: String },
}

/// How long a claim lasts and how often it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    duration: Duration,
    renew_deadline: Duration,
    retry: Duration,
}

impl Terms {
    /// `duration` is what others wait before they take over; `renew_deadline` is when a leader that could not renew gives up;
    /// `retry` is the pause between two looks.
    pub fn new(duration: Duration, renew_deadline: Duration, retry: Duration) -> Result<Self, Error> {
        let fit = duration > renew_deadline && renew_deadline > retry * 2 && !retry.is_zero();
        // The Lease counts in whole seconds: a part of one would be promised by one side only.
        if fit && duration.subsec_nanos() == 0 && duration.as_secs() <= 3_600 {
            Ok(Self { duration, renew_deadline, retry })
        } else {
            Err(Error::Terms { duration, renew_deadline, retry })
        }
    }

    /// Two tries fit into the renewal deadline even where the first gets no answer.
    fn patience(&self) -> Duration {
        self.renew_deadline / 2
    }
}

/// Whether this process leads. Cheap to clone and to ask; an answer of `true` is good for seconds, not for longer.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Nanoseconds on the clock of [`since_boot`] up to which effects may begin; 0 before and after.
    until: AtomicU64,
    /// When it was gained.
    since: OnceLock<Timestamp>,
    gained: Notify,
    lost: CancellationToken,
}

impl Leadership {
    /// For an operator that runs without others: it always leads.
    pub fn alone() -> Self {
        Self::until(u64::MAX)
    }

    fn standby() -> Self {
        Self::until(0)
    }

    fn until(until: u64) -> Self {
        let leadership = Self(Arc::new(Inner {
            until: AtomicU64::new(until),
            since: OnceLock::new(),
            gained: Notify::new(),
            lost: CancellationToken::new(),
        }));
        if until > 0 {
            leadership.begin();
        }
        leadership
    }

    /// Whether an effect may begin now. Asked right before each: between two questions the process may have been stopped.
    pub fn holds(&self) -> bool {
        nanos(since_boot()) < self.0.until.load(Ordering::Acquire)
    }

    /// Since when this process, and no other, has worked; `None` while it has not led yet.
    pub fn since(&self) -> Option<Timestamp> {
        self.0.since.get().copied()
    }

    /// Returns once this process leads. For one waiter.
    pub async fn gained(&self) {
        self.0.gained.notified().await;
    }

    /// Returns once leadership was held and lost; it does not come back.
    pub async fn lost(&self) {
        self.0.lost.cancelled().await;
    }

    /// Time left to renew in.
    fn left(&self) -> Duration {
        Duration::from_nanos(self.0.until.load(Ordering::Acquire)).saturating_sub(since_boot())
    }

    fn extend(&self, until: Duration) {
        if self.0.until.swap(nanos(until), Ordering::AcqRel) == 0 {
            self.begin();
        }
    }

    fn begin(&self) {
        self.0.since.get_or_init(Timestamp::now);
        self.0.gained.notify_one();
    }

    fn end(&self) {
        self.0.until.store(0, Ordering::Release);
    }

    fn lose(&self) {
        self.end();
        self.0.lost.cancel();
    }
}

/// What a Lease says, apart from who last edited its metadata.
#[derive(Clone, Debug, Default, PartialEq)]
struct Claim {
    holder: Option<String>,
    acquired: Option<Timestamp>,
    renewed: Option<Timestamp>,
    seconds: Option<i32>,
    transitions: i32,
}

impl Claim {
    fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            acquired: spec.acquire_time.map(|time| time.0),
            renewed: spec.renew_time.map(|time| time.0),
            seconds: spec.lease_duration_seconds,
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }

    /// What its holder was promised; a Lease that promises nothing has ours.
    fn lasts(&self, terms: &Terms) -> Duration {
        match self.seconds.map(u64::try_from) {
            Some(Ok(seconds)) if seconds > 0 => Duration::from_secs(seconds),
            Some(_) | None => terms.duration,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Standby,
    Leader,
}

/// What to do about a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Turn {
    /// There is none: make it.
    Create,
    /// Nobody holds it any more.
    Take,
    /// It is ours.
    Renew,
    /// Another holds it.
    Wait,
    /// It was ours, and another holds it.
    Lost { to: String },
}

/// The only judgement: pure, so that a table tests it. `unchanged` is how long this process has watched the claim stay the
/// same on its own clock.
fn judge(role: Role, me: &Identity, claim: Option<&Claim>, unchanged: Duration, terms: &Terms) -> Turn {
    let Some(claim) = claim else { return Turn::Create };
    let Some(holder) = &claim.holder else { return Turn::Take };
    if *holder == me.full {
        return Turn::Renew;
    }
    match role {
        Role::Leader => Turn::Lost { to: holder.clone() },
        Role::Standby if me.succeeds(holder) || unchanged >= claim.lasts(terms) => Turn::Take,
        Role::Standby => Turn::Wait,
    }
}

/// Who claims: the pod, and a part that no other process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    full: String,
    pod: Option<String>,
}

impl Identity {
    /// `suffix` must be random: a process must not take its predecessor's claim for its own.
    pub fn new(pod: Option<String>, suffix: &str) -> Self {
        let full = format!("{}_{suffix}", pod.as_deref().unwrap_or("backout"));
        Self { full, pod }
    }

    /// Whether the holder was an earlier process of the same pod. A container starts only after the one before it has ended,
    /// so that nobody has to wait for a claim to run out after a crash.
    fn succeeds(&self, holder: &str) -> bool {
        self.pod.is_some() && holder.rsplit_once('_').map(|(pod, _)| pod) == self.pod.as_deref()
    }
}

/// The Lease as it was seen last.
#[derive(Clone, Debug, PartialEq)]
struct Sighting {
    lease: Lease,
    /// Since when its claim has been the same, on the clock of [`since_boot`].
    since: Duration,
    presence: Presence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    There,
    /// Somebody deleted it. Its holder does not know and goes on for as long as it was promised.
    Gone,
}

impl Sighting {
    /// What a look at `now` adds to what was seen `before`.
    fn after(before: Option<Self>, found: Option<&Lease>, now: Duration) -> Option<Self> {
        match (before, found) {
            (None, None) => None,
            (Some(before), None) if before.presence == Presence::Gone => Some(before),
            (Some(before), None) => Some(Self { since: now, presence: Presence::Gone, ..before }),
            (before, Some(lease)) => {
                let same = before.filter(|before| before.presence == Presence::There && Claim::of(&before.lease) == Claim::of(lease));
                Some(Self { lease: lease.clone(), since: same.map_or(now, |before| before.since), presence: Presence::There })
            }
        }
    }
}

/// Claims the Lease, keeps it, and gives it back.
pub struct Election {
    leases: Api<Lease>,
    me: Identity,
    terms: Terms,
    leadership: Leadership,
    seen: Option<Sighting>,
    /// Whether a write may have come after that: one whose answer did not arrive, or that was refused.
    doubtful: bool,
    role: Role,
}

impl Election {
    /// `leases` is those of the operator's namespace.
    pub fn new(leases: Api<Lease>, me: Identity, terms: Terms) -> Self {
        Self { leases, me, terms, leadership: Leadership::standby(), seen: None, doubtful: true, role: Role::Standby }
    }

    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Stands for election until `release`, and then gives a claim back. Ends with an error as soon as leadership is lost:
    /// whoever awaits it must end the process.
    pub async fn run(mut self, release: CancellationToken) -> Result<(), Error> {
        tracing::info!(identity = self.me.full, "standing for election");
        loop {
            let patience = match self.role {
                Role::Standby => self.terms.patience(),
                Role::Leader => self.terms.patience().min(self.leadership.left()),
            };
            let pause = match timeout(patience, self.turn()).await {
                Ok(Ok(Turn::Lost { to })) => return Err(self.lost(format!("is held by {to}"))),
                Ok(Ok(Turn::Create | Turn::Take | Turn::Renew | Turn::Wait)) => self.terms.retry,
                // Another was faster: look at what became of it.
                Ok(Err(error)) if error.class() == Class::Conflict => Duration::ZERO,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the lease could not be asked; it is tried again");
                    self.terms.retry
                }
                Err(_) => {
                    tracing::warn!("the API server did not answer about the lease in time; it is tried again");
                    Duration::ZERO
                }
            };
            if self.role == Role::Leader && !self.leadership.holds() {
                return Err(self.lost(format!("was not renewed for {:?}", self.terms.renew_deadline)));
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = release.cancelled() => {
                    self.release().await;
                    return Ok(());
                }
            }
        }
    }

    fn lost(&self, how: String) -> Error {
        self.leadership.lose();
        Error::Lost { how }
    }

    /// One look, and what follows from it.
    async fn turn(&mut self) -> Result<Turn, cluster::Error> {
        // A process that was stopped for too long writes nothing any more.
        if self.role == Role::Leader && !self.leadership.holds() {
            return Ok(Turn::Wait);
        }
        // A leader knows what it wrote last: it needs no look.
        let known = match (&self.seen, self.role) {
            (Some(seen), Role::Leader) if !self.doubtful => Some(seen.lease.clone()),
            (Some(_) | None, _) => self.look().await?,
        };
        let unchanged = match &self.seen {
            Some(seen) => since_boot().saturating_sub(seen.since),
            None => Duration::ZERO,
        };
        let claim = self.seen.as_ref().map(|seen| Claim::of(&seen.lease));
        let turn = judge(self.role, &self.me, claim.as_ref(), unchanged, &self.terms);
        match &turn {
            Turn::Create => self.claim(None).await?,
            Turn::Take | Turn::Renew => self.claim(known).await?,
            Turn::Wait | Turn::Lost { .. } => {}
        }
        Ok(turn)
    }

    async fn look(&mut self) -> Result<Option<Lease>, cluster::Error> {
        let found = within(format!("reading Lease {NAME}"), self.leases.get_opt(NAME)).await?;
        self.seen = Sighting::after(self.seen.take(), found.as_ref(), since_boot());
        self.doubtful = false;
        Ok(found)
    }

    /// Writes our claim over what was seen, or makes the Lease.
    async fn claim(&mut self, known: Option<Lease>) -> Result<(), cluster::Error> {
        let begun = since_boot();
        let (doing, params) = (format!("claiming Lease {NAME}"), PostParams::default());
        let there = known.is_some();
        let wish = wish(known, &self.me, &self.terms, Timestamp::now());
        self.doubtful = true;
        let lease = if there {
            within(doing, self.leases.replace(NAME, &params, &wish)).await?
        } else {
            within(doing, self.leases.create(&params, &wish)).await?
        };
        self.seen = Some(Sighting { lease, since: begun, presence: Presence::There });
        self.doubtful = false;
        self.leadership.extend(begun.saturating_add(self.terms.renew_deadline));
        if self.role == Role::Standby {
            self.role = Role::Leader;
            tracing::info!(identity = self.me.full, "this process leads");
        }
        Ok(())
    }

    /// Gives the claim back, if it is ours, so that a standby takes over at its next look.
    async fn release(&mut self) {
        if self.role != Role::Leader || !self.leadership.holds() {
            return;
        }
        self.leadership.end();
        let patience = self.terms.patience();
        let request = async {
            if self.doubtful {
                self.look().await?;
            }
            let Some(Sighting { mut lease, presence: Presence::There, .. }) = self.seen.take() else { return Ok(()) };
            let claim = Claim::of(&lease);
            if claim.holder.as_deref() != Some(self.me.full.as_str()) {
                return Ok(());
            }
            lease.spec = Some(LeaseSpec { lease_transitions: Some(claim.transitions), ..LeaseSpec::default() });
            within(format!("releasing Lease {NAME}"), self.leases.replace(NAME, &PostParams::default(), &lease)).await.map(drop)
        };
        match timeout(patience, request).await {
            Ok(Ok(())) => tracing::info!("the lease is released"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease was not released; it runs out by itself"),
            Err(_) => tracing::warn!("the lease was not released in time; it runs out by itself"),
        }
    }
}

/// The Lease with our claim in it.
fn wish(known: Option<Lease>, me: &Identity, terms: &Terms, now: Timestamp) -> Lease {
    let before = known.as_ref().map(Claim::of).unwrap_or_default();
    let ours = before.holder.as_deref() == Some(me.full.as_str());
    let metadata = known.map_or_else(|| ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() }, |lease| lease.metadata);
    let spec = LeaseSpec {
        holder_identity: Some(me.full.clone()),
        lease_duration_seconds: i32::try_from(terms.duration.as_secs()).ok(),
        acquire_time: Some(MicroTime(before.acquired.filter(|_| ours).unwrap_or(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(before.transitions.saturating_add(i32::from(!ours && before != Claim::default()))),
        ..LeaseSpec::default()
    };
    Lease { metadata, spec: Some(spec) }
}

/// A clock that never goes back and goes on while the process is stopped or the machine sleeps. `std`'s stops with the machine.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms::new(Duration::from_secs(15), Duration::from_secs(10), Duration::from_secs(2)).unwrap()
    }

    fn held(holder: &str, renewed: &str) -> Claim {
        Claim {
            holder: Some(holder.to_owned()),
            acquired: renewed.parse().ok(),
            renewed: renewed.parse().ok(),
            seconds: Some(15),
            transitions: 3,
        }
    }

    #[test]
    fn a_lease_is_judged_by_how_long_it_was_watched_unchanged_and_by_no_clock_of_others() {
        let me = Identity::new(Some("backout-1".to_owned()), "aaaa");
        let now = "2026-01-01T00:00:00Z";
        let other = |renewed| Some(held("backout-2_bbbb", renewed));
        let short = |seconds| Some(Claim { seconds, ..held("backout-2_bbbb", now) });
        let lost = Turn::Lost { to: "backout-2_bbbb".to_owned() };
        for (name, role, claim, unchanged, turn) in [
            ("there is no Lease", Role::Standby, None, 0, Turn::Create),
            ("it was deleted under a leader", Role::Leader, None, 0, Turn::Create),
            ("it was released", Role::Standby, Some(Claim { transitions: 3, ..Claim::default() }), 0, Turn::Take),
            ("its holder was wiped under a leader", Role::Leader, Some(Claim::default()), 0, Turn::Take),
            ("another holds it and was seen to renew", Role::Standby, other(now), 0, Turn::Wait),
            ("another holds it, just before it runs out", Role::Standby, other(now), 14, Turn::Wait),
            ("another held it too long without renewing", Role::Standby, other(now), 15, Turn::Take),
            ("the holder's clock is years behind", Role::Standby, other("1999-01-01T00:00:00Z"), 14, Turn::Wait),
            ("the holder's clock is years ahead", Role::Standby, other("2099-01-01T00:00:00Z"), 15, Turn::Take),
            ("the holder was promised less", Role::Standby, short(Some(5)), 5, Turn::Take),
            ("the holder was promised more", Role::Standby, short(Some(60)), 59, Turn::Wait),
            ("the Lease promises nothing", Role::Standby, short(None), 14, Turn::Wait),
            ("the Lease promises nonsense", Role::Standby, short(Some(-1)), 15, Turn::Take),
            ("an earlier process of this pod held it", Role::Standby, Some(held("backout-1_cccc", now)), 0, Turn::Take),
            ("our own claim whose answer was lost", Role::Standby, Some(held("backout-1_aaaa", now)), 0, Turn::Renew),
            ("our own claim", Role::Leader, Some(held("backout-1_aaaa", now)), 0, Turn::Renew),
            ("another took it", Role::Leader, other(now), 0, lost.clone()),
            ("another took it and is away", Role::Leader, other(now), 99, lost),
        ] {
            assert_eq!(judge(role, &me, claim.as_ref(), Duration::from_secs(unchanged), &terms()), turn, "{name}");
        }
    }

    #[test]
    fn a_lease_that_somebody_deletes_counts_for_as_long_as_its_holder_was_promised() {
        let lease = |holder: &str| wish(None, &Identity::new(None, holder), &terms(), Timestamp::UNIX_EPOCH);
        let at = Duration::from_secs;
        let seen = |holder: &str, since, presence| Some(Sighting { lease: lease(holder), since: at(since), presence });
        for (row, before, found, expected) in [
            ("there never was one", None, None, None),
            ("a new one", None, Some("a"), seen("a", 9, Presence::There)),
            ("the same", seen("a", 5, Presence::There), Some("a"), seen("a", 5, Presence::There)),
            ("another", seen("a", 5, Presence::There), Some("b"), seen("b", 9, Presence::There)),
            ("deleted", seen("a", 5, Presence::There), None, seen("a", 9, Presence::Gone)),
            ("still deleted", seen("a", 5, Presence::Gone), None, seen("a", 5, Presence::Gone)),
            ("made again", seen("a", 5, Presence::Gone), Some("a"), seen("a", 9, Presence::There)),
        ] {
            assert_eq!(Sighting::after(before, found.map(lease).as_ref(), at(9)), expected, "{row}");
        }
    }

    #[test]
    fn without_a_pod_name_nobody_is_a_predecessor() {
        let me = Identity::new(None, "aaaa");
        assert!(!me.succeeds("backout_bbbb"));
        assert!(!Identity::new(Some("backout-1".to_owned()), "aaaa").succeeds("backout-1"));
    }

    #[test]
    fn leadership_ends_by_itself_and_once_lost_says_so() {
        let leadership = Leadership::standby();
        assert!(!leadership.holds());
        leadership.extend(since_boot() + Duration::from_secs(60));
        assert!(leadership.holds());
        // What a process sees that was stopped past its deadline.
        leadership.extend(since_boot());
        assert!(!leadership.holds());
        assert!(!leadership.0.lost.is_cancelled());
        leadership.lose();
        assert!(leadership.0.lost.is_cancelled());
        assert!(Leadership::alone().holds());
    }

    #[test]
    fn a_claim_keeps_its_beginning_and_counts_changes_of_hands() {
        let (me, other) = (Identity::new(None, "aaaa"), Identity::new(None, "bbbb"));
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let first = wish(None, &me, &terms(), now);
        assert_eq!(first.spec.as_ref().unwrap().lease_transitions, Some(0));
        let later = now + jiff::SignedDuration::from_secs(2);
        let renewed = Claim::of(&wish(Some(first.clone()), &me, &terms(), later));
        assert_eq!((renewed.acquired, renewed.renewed, renewed.transitions), (Some(now), Some(later), 0));
        let taken = Claim::of(&wish(Some(first), &other, &terms(), later));
        assert_eq!((taken.acquired, taken.renewed, taken.transitions), (Some(later), Some(later), 1));
    }

    #[test]
    fn times_that_do_not_fit_are_refused() {
        let check = |duration, deadline, retry| {
            Terms::new(Duration::from_millis(duration), Duration::from_millis(deadline), Duration::from_millis(retry)).is_ok()
        };
        assert!(check(15_000, 10_000, 2_000));
        for (duration, deadline, retry) in [(10_000, 10_000, 2_000), (15_000, 10_000, 5_000), (15_500, 10_000, 2_000), (15_000, 10_000, 0)]
        {
            assert!(!check(duration, deadline, retry), "{duration} {deadline} {retry}");
        }
    }
}
