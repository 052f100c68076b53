//! What happens to a simulated Release, and how a seed becomes a list of it. A list is all that is needed to play a history
//! again: as JSON it is what a failing one prints and what `SIMULATION_REPLAY` takes.

use backout::api::release::{ApprovalPolicy, Method};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Commit(Change),
    /// The branch names the commit so many before the newest.
    Revert(usize),
    EditSpec,
    /// Of the backup points the newest is kept, and what is younger than so many seconds. And points are staged while a release bakes.
    KeepFor(u64),
    /// From now on migrations are run on a copy first.
    RehearseMigrations,
    /// From now on the database is captured before down scripts are run.
    EmergencyPoints,
    Automatic(bool),
    Methods(Vec<Method>),
    Pin(u64),
    Unpin,
    Suspend(bool),
    Reset,
    Approval(ApprovalPolicy),
    Approve(Plan),
    /// A person asks for what the last rollback replaced.
    Undo,
    /// A person deletes the Release.
    Delete,
    SourceSeen(bool),
    DatabaseSeen(bool),
    WorkloadsSeen(bool),
    /// So many effects find their server away.
    Away(u32),
    /// Somebody sets another image by hand.
    Drift,
    /// The application writes to its database.
    Rows,
    /// Somebody deletes the newest backup point.
    PointGone,
    /// Nobody is at work for longer than an operation may take.
    Hours,
    /// The operator works for so many rounds.
    Rounds(u32),
    /// The operator dies at the so manyth point from now at which it can.
    Crash(u32),
    /// The other event happens at the so manyth such point, in the middle of the operator's work.
    Meanwhile(u32, Box<Event>),
    /// At the so manyth such point the operator freezes, another one works for so many rounds in its place, and it wakes.
    Frozen {
        at: u32,
        rounds: u32,
        session: Session,
    },
    /// The so manyth answer from now does not come: what was asked for is done, and the operator can't know.
    Lost(u32, Cache),
    /// The next round reads the object as it was before the last write.
    StaleRead,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    Config,
    /// Its checks fail.
    Unhealthy,
    /// Its pods never come up.
    Crashing,
    /// Brings a migration, with this down script.
    Schema(Option<Script>),
    UnhealthySchema(Option<Script>),
    /// Its migration fails like this.
    BrokenSchema(Script),
}

/// What happens to a script when it is run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Script {
    Works,
    /// Fails, and nothing of it stays.
    FailsCleanly,
    /// Fails, and leaves the schema half way.
    FailsHalfWay,
}

/// Which plan an approval names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Plan {
    /// That of the operation that runs.
    This,
    Another,
}

/// What the watch cache has after an answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cache {
    Fresh,
    Behind,
}

/// What became of a frozen operator's session with the database.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Session {
    /// It is there, and with it the database's lock.
    Kept,
    /// The server gave it up.
    Lost,
}

/// xorshift64*: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero; the multiplication keeps neighbouring seeds apart.
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// One history. It begins with a release that comes up, as most do.
pub fn history(seed: u64) -> Vec<Event> {
    let mut random = Random::new(seed);
    let mut events = vec![Event::Rounds(20)];
    if seed.is_multiple_of(2) {
        events.push(Event::KeepFor(10));
    }
    if seed % 4 == 1 {
        events.push(Event::RehearseMigrations);
    }
    if seed % 4 < 2 {
        events.push(Event::EmergencyPoints);
    }
    if random.below(3) == 0 {
        events.push(Event::Approval(policy(&mut random)));
    }
    for _ in 0..4 + random.below(12) {
        events.push(match random.below(32) {
            0..=5 => Event::Crash(random.below(12) as u32),
            6..=9 => Event::Lost(random.below(6) as u32, if random.yes() { Cache::Fresh } else { Cache::Behind }),
            10..=12 => Event::Meanwhile(random.below(12) as u32, Box::new(outside(&mut random))),
            13..=14 => Event::StaleRead,
            15..=16 => Event::Frozen {
                at: random.below(12) as u32,
                rounds: random.below(30) as u32,
                session: if random.yes() { Session::Kept } else { Session::Lost },
            },
            _ => outside(&mut random),
        });
        events.push(Event::Rounds(random.below(20) as u32));
    }
    if random.below(8) == 0 {
        events.push(Event::Delete);
    }
    events
}

fn outside(random: &mut Random) -> Event {
    match random.below(41) {
        0..=10 => Event::Commit(change(random)),
        11..=15 => Event::Revert(random.below(4) as usize),
        16 => Event::EditSpec,
        17 => Event::Automatic(random.below(4) != 0),
        18..=19 => Event::Methods(match random.below(5) {
            0 => Vec::new(),
            1 => vec![Method::RevertSchema],
            2 => vec![Method::Restore],
            3 => vec![Method::Restore, Method::RevertSchema],
            _ => vec![Method::RevertSchema, Method::Restore],
        }),
        20 => Event::Pin(1 + random.below(6)),
        21 => Event::Unpin,
        22 => Event::Suspend(random.yes()),
        23 => Event::Reset,
        24 => Event::SourceSeen(random.yes()),
        25 => Event::DatabaseSeen(random.yes()),
        26 => Event::WorkloadsSeen(random.yes()),
        27 => Event::Away(random.below(4) as u32),
        28 => Event::Drift,
        29..=30 => Event::Rows,
        31 => Event::PointGone,
        32 => Event::Approval(policy(random)),
        33 => Event::Approve(Plan::This),
        34 => Event::Approve(Plan::Another),
        35..=39 => Event::Undo,
        _ => Event::Hours,
    }
}

fn policy(random: &mut Random) -> ApprovalPolicy {
    match random.below(4) {
        0 => ApprovalPolicy::Never,
        1..=2 => ApprovalPolicy::DataLoss,
        _ => ApprovalPolicy::Always,
    }
}

fn change(random: &mut Random) -> Change {
    let down = match random.below(6) {
        0 => None,
        1 => Some(Script::FailsCleanly),
        2 => Some(Script::FailsHalfWay),
        _ => Some(Script::Works),
    };
    match random.below(10) {
        0..=1 => Change::Config,
        2 => Change::Unhealthy,
        3 => Change::Crashing,
        4..=6 => Change::Schema(down),
        7 => Change::UnhealthySchema(down),
        8 => Change::BrokenSchema(Script::FailsCleanly),
        _ => Change::BrokenSchema(Script::FailsHalfWay),
    }
}
