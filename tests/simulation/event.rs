//! What happens to a simulated Release, and how a seed becomes a list of it. A list is all that is needed to play a history
//! again.

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Commit(Change),
    /// The branch names the commit so many before the newest.
    Revert(usize),
    EditSpec,
    Automatic(bool),
    RestoreOnly,
    EveryMethod,
    Pin(u64),
    Unpin,
    Suspend(bool),
    Reset,
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
    /// The next round reads the object as it was before the last write.
    StaleRead,
}

#[derive(Clone, Copy, Debug, PartialEq)]
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Script {
    Works,
    /// Fails, and nothing of it stays.
    FailsCleanly,
    /// Fails, and leaves the schema half way.
    FailsHalfWay,
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
    for _ in 0..4 + random.below(12) {
        events.push(match random.below(24) {
            0..=4 => Event::Crash(random.below(12) as u32),
            5..=7 => Event::Meanwhile(random.below(12) as u32, Box::new(outside(&mut random))),
            8 => Event::StaleRead,
            _ => outside(&mut random),
        });
        events.push(Event::Rounds(random.below(20) as u32));
    }
    events
}

fn outside(random: &mut Random) -> Event {
    match random.below(32) {
        0..=10 => Event::Commit(change(random)),
        11..=15 => Event::Revert(random.below(4) as usize),
        16 => Event::EditSpec,
        17 => Event::Automatic(random.below(4) != 0),
        18 => Event::RestoreOnly,
        19 => Event::EveryMethod,
        20 => Event::Pin(1 + random.below(6)),
        21 => Event::Unpin,
        22 => Event::Suspend(random.yes()),
        23 => Event::Reset,
        24 => Event::SourceSeen(random.yes()),
        25 => Event::DatabaseSeen(random.yes()),
        26 => Event::WorkloadsSeen(random.yes()),
        27 => Event::Away(random.below(4) as u32),
        28 => Event::Drift,
        29 => Event::Rows,
        30 => Event::PointGone,
        _ => Event::Hours,
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
