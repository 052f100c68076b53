//! Faults on the real cluster: the operator is killed around every step, and every server that it needs goes away and comes
//! back, with clients at work all the time.
//!
//! `make chaos` plays all of them on a bed of its own and prints a table; `make test` plays a few. See `docs/faults.md`.

mod amid;
mod kills;
mod leader;
mod scene;
mod servers;
mod whole;

use std::panic::AssertUnwindSafe;

use backout::api::operation::StepName;
use futures::FutureExt;

use crate::support::{operator, parts::Part};
use amid::Amid;
use scene::{Clock, Play, Scene, Survived};

/// Of a log, where a fault was not survived.
const LAST_LINES: usize = 40;
const PLAYS: [Play; 3] = [Play::Deploy, Play::Revert, Play::Restore];

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_around_the_steps_that_change_the_database_goes_on() {
    let _away = operator::keep_away().await;
    let mut table = Table::begin("faults", String::new()).await;
    for (play, step) in [(Play::Deploy, StepName::Migrate), (Play::Revert, StepName::RevertSchema), (Play::Restore, StepName::Restore)] {
        table.killed_around(play, step).await;
    }
    table.end().await;
}

#[ignore = "stops the bed's servers, and takes twenty-five minutes: `make chaos` runs it on a bed of its own"]
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_survived() {
    let _away = operator::keep_away().await;
    let mut table = Table::begin("chaos", std::env::var("FAULTS").unwrap_or_default()).await;
    let mut plans = Vec::new();
    for play in PLAYS {
        plans.push((play, table.plan(play).await));
        let place = format!("{}: begin and end", play.as_str());
        table.play("operator killed 4 times".to_owned(), place, async |scene| kills::around_the_ends(scene, play).await).await;
    }
    let longest = plans.iter().map(|(_, steps)| steps.len()).max().unwrap_or_default();
    // A deploy and the revert that takes it back take turns, so that neither needs another to begin.
    for index in 0..longest {
        for (play, steps) in &plans {
            if let Some(step) = steps.get(index) {
                table.killed_around(*play, *step).await;
            }
        }
    }
    table.servers().await;
    table.leader().await;
    table.end().await;
}

/// The faults that were played, and the scene of the next.
struct Table {
    name: &'static str,
    /// Only faults with this in their line are played; all if it is empty.
    only: String,
    scenes: usize,
    scene: Scene,
    lines: Vec<Line>,
}

struct Line {
    fault: String,
    place: String,
    /// Why it was not survived.
    end: Result<Survived, String>,
}

impl Table {
    async fn begin(name: &'static str, only: String) -> Self {
        println!("{:<52} {:<34} {:>15} {:>23}", "fault", "where", "seconds to rest", "acknowledged rows lost");
        Self { name, only, scenes: 0, scene: Scene::new(name).await, lines: Vec::new() }
    }

    /// Plays it without a fault and returns the steps that it took: the plan's own, so that none is forgotten.
    async fn plan(&mut self, play: Play) -> Vec<StepName> {
        let clock = Clock::start();
        self.scene.ready_for(play).await;
        self.scene.ask(play).await;
        let lost = self.scene.rest(play).await;
        let line = Line { fault: "none".to_owned(), place: play.as_str().to_owned(), end: Ok(clock.stop(lost)) };
        line.print();
        self.scene.steps().await
    }

    async fn killed_around(&mut self, play: Play, step: StepName) {
        let place = format!("{}: {}", play.as_str(), step.as_str());
        self.play(format!("operator killed {} times", kills::count(step)), place, async |scene| kills::around(scene, play, step).await)
            .await;
    }

    async fn servers(&mut self) {
        for (play, step, middle) in [
            (Play::Deploy, StepName::BackUp, Amid::Dump),
            (Play::Revert, StepName::RevertSchema, Amid::Migration),
            (Play::Restore, StepName::Stage, Amid::Load),
            (Play::Restore, StepName::Restore, Amid::Swap),
            (Play::Deploy, StepName::Migrate, Amid::Migration),
        ] {
            let place = format!("{}: {}, {middle:?}", play.as_str(), step.as_str());
            let act = async |scene: &mut Scene| servers::database_killed(scene, play, step, middle).await;
            self.play("MariaDB killed".to_owned(), place, act).await;
        }
        for (play, step) in [
            (Play::Revert, StepName::RevertSchema),
            (Play::Deploy, StepName::Deploy),
            (Play::Revert, StepName::Fence),
            (Play::Restore, StepName::Restore),
        ] {
            let place = format!("{}: {}", play.as_str(), step.as_str());
            self.play("API server away".to_owned(), place, async |scene| servers::api_server_away(scene, play, step).await).await;
        }
        self.one("git server away", "deploy: before Keep", servers::source_away_before).await;
        self.one("Redis away", "git revert: before Preflight", servers::cache_away_before).await;
        self.one("git server away", "deploy: from Preflight on", servers::source_away_amid).await;
        self.one("Redis away", "git revert: from Fence on", servers::cache_away_amid).await;
        self.one("kubelet dead", "deploy: rollout", servers::kubelet_away).await;
        self.one("containerd dead", "git revert: Fence", servers::containerd_away).await;
        self.one("git server away", "spec.rollbackTo", servers::rollback_without_source).await;
        self.one("image on no node", "deploy: Preflight", servers::image_missing).await;
    }

    async fn leader(&mut self) {
        for (play, step, next) in [
            (Play::Deploy, StepName::Migrate, Some(Play::Revert)),
            (Play::Deploy, StepName::Deploy, Some(Play::Revert)),
            (Play::Restore, StepName::Restore, None),
            (Play::Deploy, StepName::Verify, None),
            (Play::Revert, StepName::RevertSchema, Some(Play::Deploy)),
            (Play::Revert, StepName::Fence, None),
        ] {
            let place = format!("{}: {}", play.as_str(), step.as_str());
            let act = async |scene: &mut Scene| leader::frozen(scene, play, step, next).await;
            self.play("operator frozen, another at work, woken".to_owned(), place, act).await;
        }
    }

    async fn one(&mut self, fault: &str, place: &str, act: impl AsyncFnOnce(&mut Scene) -> Survived) {
        self.play(fault.to_owned(), place.to_owned(), act).await;
    }

    /// Plays one fault. One that is not survived costs the scene, not the others.
    async fn play(&mut self, fault: String, place: String, act: impl AsyncFnOnce(&mut Scene) -> Survived) {
        if !self.only.is_empty() && !format!("{fault} {place}").contains(&self.only) {
            return;
        }
        let end = AssertUnwindSafe(act(&mut self.scene)).catch_unwind().await;
        let end = end.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        });
        let line = Line { fault, place, end };
        line.print();
        let survived = line.end.is_ok();
        self.lines.push(line);
        if !survived {
            let log = self.scene.operator.log();
            let lines: Vec<&str> = log.lines().collect();
            println!("the operator's log ends with\n{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
            for part in Part::ALL {
                part.start().await;
            }
            self.scenes += 1;
            let next = Scene::new(&format!("{}-{}", self.name, self.scenes)).await;
            std::mem::replace(&mut self.scene, next).close().await;
        }
    }

    async fn end(self) {
        let survived = self.lines.iter().filter(|line| line.end.is_ok()).count();
        let lost: usize = self.lines.iter().filter_map(|line| line.end.as_ref().ok()).map(|end| end.lost).sum();
        println!("survived {survived}/{}, rows lost {lost}", self.lines.len());
        self.scene.close().await;
        assert!(survived == self.lines.len() && lost == 0, "not every fault was survived, see above");
    }
}

impl Line {
    fn print(&self) {
        let Self { fault, place, end } = self;
        match end {
            Ok(Survived { took, lost }) => println!("{fault:<52} {place:<34} {:>15.1} {lost:>23}", took.as_secs_f64()),
            Err(why) => println!("{fault:<52} {place:<34} NOT SURVIVED: {why}"),
        }
    }
}
