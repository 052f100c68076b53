//! The database in memory: what is live, what stands beside it, what was copied; and the steps that change it, each
//! idempotent by looking first, as `mysql` does. Whoever changes it holds its lock, and between any two statements the
//! operator can die, freeze or lose its session.

use std::collections::BTreeMap;

use backout::{
    api::{
        Span,
        backup_point::PointReason,
        operation::{Action, ApprovalState, Expired, Loss, Revert, Risk, StepName, Tolerated},
    },
    plan::{
        input::{AppliedSeen, DatabaseSeen},
        journal::Outcome,
    },
};
use jiff::Timestamp;

use super::{
    driver::{Simulation, Stop},
    effects::{done, failed, retry},
    model::{Model, UID},
    rules,
};

#[derive(Clone, Debug, Default)]
pub struct Server {
    pub live: Tables,
    pub shadows: BTreeMap<String, Shadow>,
    pub asides: BTreeMap<String, Tables>,
    pub points: BTreeMap<String, Point>,
    /// When each of them was complete.
    pub taken: BTreeMap<String, Timestamp>,
    /// A frozen operator's session holds the lock.
    pub locked: bool,
    /// How often each operation did what must be done once.
    pub done: BTreeMap<(u64, Deed), u32>,
}

/// One set of tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tables {
    /// Ascending by version.
    pub applied: Vec<Row>,
    pub rows: u64,
    /// Which operation swapped this set in.
    pub marker: Option<String>,
}

/// A migration as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub version: u64,
    pub checksum: String,
    /// The release that brought it.
    pub release: u64,
    pub state: RowState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowState {
    /// Written down, and on its way.
    Applying,
    Applied,
    Reverting,
    /// A script stopped half way.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    pub before: Option<u64>,
    pub content: Tables,
    /// Its manifest is written; without that it counts for nothing.
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shadow {
    pub point: String,
    pub content: Tables,
    /// Every table was compared with the point.
    pub complete: bool,
}

/// What one operation may do once at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    Swap,
    Up(u64),
    Down(u64),
}

impl Server {
    pub fn seen(&self) -> DatabaseSeen {
        DatabaseSeen {
            applied: self.live.applied.iter().map(Row::seen).collect(),
            uncarried: Vec::new(),
            missing_grants: Vec::new(),
            other_owner: None,
            prepared: Vec::new(),
            swapped_by: self.live.marker.clone(),
        }
    }

    fn state(&self, version: u64) -> Option<RowState> {
        self.live.applied.iter().find(|row| row.version == version).map(|row| row.state)
    }

    /// `None`: it is forgotten.
    fn set(&mut self, version: u64, state: Option<RowState>) {
        match state {
            Some(state) => self.live.applied.iter_mut().filter(|row| row.version == version).for_each(|row| row.state = state),
            None => self.live.applied.retain(|row| row.version != version),
        }
    }
}

impl Row {
    fn seen(&self) -> AppliedSeen {
        let Self { version, checksum, release, state } = self;
        let trouble = (*state != RowState::Applied).then(|| format!("migration {version} stands half way"));
        AppliedSeen { version: *version, name: "change".to_owned(), checksum: checksum.clone(), release: *release, trouble }
    }
}

impl Simulation {
    /// Runs a step of the database under its lock.
    pub fn database_effect(&mut self, operation: u64, action: &Action) -> Result<Outcome, Stop> {
        if !self.model.database_seen {
            return Ok(retry("the database is away"));
        }
        if self.model.server.locked {
            return Ok(retry("another operation holds the lock"));
        }
        match action {
            Action::BackUp { release, point, reason, .. } => self.back_up((*reason == PointReason::PreDeploy).then_some(*release), point),
            Action::RehearseMigrations { release, migrations, point, scratch, .. } => {
                self.rehearse_migrations(*release, migrations, point, scratch)
            }
            Action::Migrate { release, migrations } => self.migrate(operation, *release, migrations),
            Action::Stage { point, shadow } => self.stage(point, shadow),
            Action::RevertSchema { migrations, .. } => self.revert(operation, migrations),
            Action::Restore { point, shadow, aside, tolerated, .. } => {
                self.restore(operation, &Cut { point, shadow, aside, tolerated: *tolerated })
            }
            Action::Keep { .. }
            | Action::Preflight { .. }
            | Action::Deploy { .. }
            | Action::FlushCache { .. }
            | Action::Verify { .. }
            | Action::Bake { .. }
            | Action::Fence { .. }
            | Action::Approve { .. }
            | Action::Discard { .. }
            | Action::Rehearse { .. }
            | Action::Expire { .. }
            | Action::Unfence { .. } => Ok(failed("it is not the database's")),
        }
    }

    /// Between two statements. The database may have gone meanwhile, and with it the session.
    fn statement(&mut self, place: &str) -> Result<Result<(), Outcome>, Stop> {
        self.in_session(place)?;
        Ok(if self.model.database_seen { Ok(()) } else { Err(retry("the database is away")) })
    }

    fn back_up(&mut self, before: Option<u64>, point: &str) -> Result<Outcome, Stop> {
        if self.model.server.points.get(point).is_some_and(|point| point.complete) {
            return Ok(done());
        }
        let content = self.model.server.live.clone();
        self.model.server.points.insert(point.to_owned(), Point { before, content, complete: false });
        if let Err(away) = self.statement("inside a dump")? {
            return Ok(away);
        }
        match self.model.server.points.get_mut(point) {
            Some(copy) => {
                copy.complete = true;
                self.model.server.taken.insert(point.to_owned(), self.model.now);
            }
            None => return Ok(retry("somebody deleted the point")),
        }
        Ok(done())
    }

    /// As `execute` does: a point is no backup any more before its object goes. Nothing that could be gone back to is lost by it.
    pub fn expire(&mut self, points: &[Expired]) -> Result<Outcome, Stop> {
        let (before, term) = (self.model.clone(), self.term);
        for Expired { point, .. } in points {
            if let Some(point) = self.model.server.points.get_mut(point) {
                point.complete = false;
            }
            self.point("between the files of a point and its object")?;
            if self.term != term {
                return Err(Stop::Replaced);
            }
            self.model.server.points.remove(point);
            self.model.server.taken.remove(point);
        }
        self.keep(rules::of_expiry(&before, &self.model))?;
        Ok(done())
    }

    /// What the scripts do, they do to a copy.
    fn rehearse_migrations(&mut self, release: u64, versions: &[u64], point: &str, scratch: &str) -> Result<Outcome, Stop> {
        let loaded = self.stage(point, scratch)?;
        if loaded != done() {
            return Ok(loaded);
        }
        if let Err(away) = self.statement("inside a migration of a copy")? {
            return Ok(away);
        }
        self.model.server.shadows.remove(scratch);
        let Some(kept) = self.model.kept.get(&release) else { return Ok(retry("the release is not kept")) };
        let tried = kept.content.migrations.iter().filter(|migration| versions.contains(&migration.version));
        let mut scripts = tried.flat_map(|migration| [Some(&migration.up), migration.down.as_ref()]).flatten();
        Ok(if scripts.all(|script| script.starts_with("Works ")) { done() } else { failed("a script failed on a copy") })
    }

    /// A script that failed on the copy is never run on the data.
    fn was_tried(&mut self) -> Result<(), Stop> {
        let steps = self.model.status.operation.iter().flat_map(|operation| &operation.steps);
        match steps.filter(|step| step.name == StepName::RehearseMigrations).count() {
            0 => Ok(()),
            _ => self.broken("a migration that failed on a copy was run on the data".to_owned()),
        }
    }

    fn migrate(&mut self, operation: u64, release: u64, versions: &[u64]) -> Result<Outcome, Stop> {
        let Some(kept) = self.model.kept.get(&release).cloned() else {
            return Ok(retry("the release is not kept"));
        };
        for version in versions {
            if let Err(away) = self.statement("between migrations")? {
                return Ok(away);
            }
            let Some(migration) = kept.content.migrations.iter().find(|migration| migration.version == *version) else {
                return Ok(failed("the kept release lacks a planned migration"));
            };
            match self.model.server.state(*version) {
                Some(RowState::Applied) => continue,
                Some(RowState::Failed | RowState::Reverting) => {
                    return Ok(failed("it stands half way"));
                }
                Some(RowState::Applying) => {}
                None => {
                    let applied = &mut self.model.server.live.applied;
                    applied.push(Row { version: *version, checksum: migration.checksum(), release, state: RowState::Applying });
                    applied.sort_by_key(|row| row.version);
                }
            }
            if let Err(away) = self.statement("inside a migration")? {
                return Ok(away);
            }
            match self.run(operation, Deed::Up(*version), &migration.up)? {
                Ran::Whole => self.model.server.set(*version, Some(RowState::Applied)),
                Ran::Half => {
                    self.was_tried()?;
                    self.model.server.set(*version, Some(RowState::Failed));
                    return Ok(failed("a statement failed half way"));
                }
                Ran::Nothing => {
                    self.was_tried()?;
                    self.model.server.set(*version, None);
                    return Ok(failed("a statement failed"));
                }
            }
        }
        Ok(done())
    }

    /// What an operation copies before it runs down scripts has what they drop.
    fn was_copied(&mut self, reverts: &[Revert]) -> Result<(), Stop> {
        let steps = self.model.status.operation.iter().flat_map(|operation| &operation.steps);
        let copy = steps.into_iter().find_map(|step| match &step.action {
            Action::BackUp { point, .. } => Some(point.clone()),
            _ => None,
        });
        let Some(copy) = copy else { return Ok(()) };
        let point = self.model.server.points.get(&copy).filter(|point| point.complete);
        let holds = |version: u64| point.is_some_and(|point| point.content.applied.iter().any(|row| row.version == version));
        if reverts.iter().all(|revert| holds(revert.migration)) {
            return Ok(());
        }
        self.broken("down scripts were run before what they drop was copied".to_owned())
    }

    fn revert(&mut self, operation: u64, reverts: &[Revert]) -> Result<Outcome, Stop> {
        self.must_be_fenced()?;
        self.was_copied(reverts)?;
        for Revert { migration: version, release } in reverts {
            if let Err(away) = self.statement("between down scripts")? {
                return Ok(away);
            }
            let kept = self.model.kept.get(release);
            let script = kept
                .and_then(|kept| kept.content.migrations.iter().find(|migration| migration.version == *version))
                .and_then(|migration| migration.down.clone());
            let Some(script) = script else {
                self.broken(format!("release {release} was planned to have a down script for {version}"))?;
                return Ok(failed("no down script"));
            };
            match self.model.server.state(*version) {
                None => continue,
                Some(RowState::Failed | RowState::Applying) => {
                    return Ok(failed("it stands half way"));
                }
                Some(RowState::Applied | RowState::Reverting) => self.model.server.set(*version, Some(RowState::Reverting)),
            }
            if let Err(away) = self.statement("inside a down script")? {
                return Ok(away);
            }
            match self.run(operation, Deed::Down(*version), &script)? {
                Ran::Whole => self.model.server.set(*version, None),
                Ran::Half => {
                    self.model.server.set(*version, Some(RowState::Failed));
                    return Ok(failed("a statement failed half way"));
                }
                Ran::Nothing => {
                    self.model.server.set(*version, Some(RowState::Applied));
                    return Ok(failed("a statement failed"));
                }
            }
        }
        Ok(done())
    }

    /// What a script leaves. Whatever it changes it may change once.
    fn run(&mut self, operation: u64, deed: Deed, script: &str) -> Result<Ran, Stop> {
        let ran = match script.split(' ').next() {
            Some("Works") => Ran::Whole,
            Some("FailsHalfWay") => Ran::Half,
            _ => return Ok(Ran::Nothing),
        };
        self.model.deed(operation, deed).map_err(Stop::Broken)?;
        Ok(ran)
    }

    fn stage(&mut self, point: &str, shadow: &str) -> Result<Outcome, Stop> {
        if self.model.server.shadows.get(shadow).is_some_and(|shadow| shadow.complete && shadow.point == point) {
            return Ok(done());
        }
        let source = self.model.server.points.get(point).filter(|point| point.complete);
        let Some(content) = source.map(|point| point.content.clone()) else {
            return Ok(failed("the backup point is gone"));
        };
        let loaded = Shadow { point: point.to_owned(), content, complete: false };
        self.model.server.shadows.insert(shadow.to_owned(), loaded);
        if let Err(away) = self.statement("inside a load")? {
            return Ok(away);
        }
        match self.model.server.shadows.get_mut(shadow) {
            Some(shadow) => shadow.complete = true,
            None => return Ok(retry("somebody dropped the shadow")),
        }
        Ok(done())
    }

    fn restore(&mut self, operation: u64, cut: &Cut) -> Result<Outcome, Stop> {
        let marker = format!("{UID}/{operation}");
        if self.model.server.live.marker.as_ref() != Some(&marker) {
            let approved = self.model.status.operation.as_ref().and_then(|operation| operation.approval.as_ref());
            let approved = approved.is_some_and(|approval| approval.state == ApprovalState::Approved);
            let lost = self.model.rows_beside(cut.shadow).abs_diff(self.model.server.live.rows);
            if cut.tolerated == Tolerated::Approved && !approved && lost > 0 {
                return Ok(Outcome::Unapproved { message: format!("{lost} rows came after it was measured") });
            }
            self.must_be_fenced()?;
            if let Err(away) = self.statement("before the swap")? {
                return Ok(away);
            }
            self.model.swap(operation, cut, marker).map_err(Stop::Broken)?;
            self.in_session("right after the swap")?;
        }
        Ok(done())
    }

    /// No pod may run while the database changes under it.
    fn must_be_fenced(&self) -> Result<(), Stop> {
        if self.model.workload.there.replicas == 0 {
            return Ok(());
        }
        self.broken("the database is changed while pods run".to_owned())
    }
}

/// How far a script came.
enum Ran {
    Whole,
    Half,
    Nothing,
}

/// What is swapped for what.
struct Cut<'a> {
    point: &'a str,
    shadow: &'a str,
    aside: &'a str,
    tolerated: Tolerated,
}

impl Model {
    /// One `RENAME TABLE`: what replaces is whole and what was planned, and what is replaced is kept.
    fn swap(&mut self, operation: u64, cut: &Cut, marker: String) -> Result<(), String> {
        let Cut { point, shadow, aside, .. } = cut;
        self.deed(operation, Deed::Swap)?;
        let replacement = match (self.server.shadows.remove(*shadow), self.server.asides.remove(*shadow)) {
            (Some(Shadow { complete: false, .. }), _) => return Err(format!("{shadow} was not loaded and compared to its end")),
            (Some(Shadow { point: staged, .. }), _) if staged != *point => {
                return Err(format!("{shadow} is not staged from {point}"));
            }
            (Some(Shadow { content, .. }), _) | (None, Some(content)) => content,
            (None, None) => {
                return Err(format!("{shadow} is not there to replace the live tables"));
            }
        };
        let replaced = std::mem::replace(&mut self.server.live, Tables { marker: Some(marker), ..replacement });
        match self.server.asides.insert((*aside).to_owned(), replaced) {
            Some(_) => Err(format!("{aside} held what was replaced before")),
            None => Ok(()),
        }
    }

    /// Counts what must be done once.
    fn deed(&mut self, operation: u64, deed: Deed) -> Result<(), String> {
        let times = self.server.done.entry((operation, deed)).or_default();
        *times += 1;
        if *times == 1 { Ok(()) } else { Err(format!("operation {operation} did {deed:?} {times} times")) }
    }

    fn rows_beside(&self, schema: &str) -> u64 {
        let shadow = self.server.shadows.get(schema).map(|shadow| shadow.content.rows);
        shadow.or_else(|| self.server.asides.get(schema).map(|aside| aside.rows)).unwrap_or_default()
    }

    pub fn measure(&self, risk: &Risk) -> Outcome {
        let lost = match risk {
            Risk::Replacement { schema, .. } => self.server.live.rows.abs_diff(self.rows_beside(schema)),
            Risk::Scripts { .. } => 0,
        };
        Outcome::Measured {
            loss: Loss {
                inserted: lost,
                changed: 0,
                deleted: 0,
                by_scripts: 0,
                since: None,
                measured_at: self.now,
                took: Span::seconds(0),
                details: Vec::new(),
                uncertain: false,
            },
        }
    }

    /// Drops schemas; one that was replaced, only once its time has passed.
    pub fn discard(&mut self, schemas: &[String]) -> Result<(), String> {
        self.server.shadows.retain(|name, _| !schemas.contains(name));
        for schema in schemas {
            if self.server.asides.remove(schema).is_none() {
                continue;
            }
            let due = self.status.asides.iter().find(|aside| aside.schema == *schema).is_some_and(|aside| aside.until <= self.now);
            if !due {
                return Err(format!("{schema} holds replaced tables and is dropped before its time"));
            }
        }
        Ok(())
    }
}
