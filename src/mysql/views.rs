//! Several sessions that see the database as of one instant.
//!
//! Each has a transaction with a read view of its own. That the views are of one instant is made sure by holding back commits while
//! they begin (`BACKUP STAGE`, which needs the privilege RELOAD), or else seen from the position in the binary log that belongs to each
//! view. Where the account may do the one and the server tells the other not at all, one session does all.

use serde::{Deserialize, Serialize};

use super::crew;
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::literal;
use super::manifest::Position;

/// Beginnings until all views are of one instant. On a server that is written to flat out it took five at most.
const TRIES: u32 = 20;
/// Should the network fail without a word, the server ends the session that holds back everybody's commits after this time.
const GATE_SECONDS: u32 = 2;
/// The account lacks a privilege; the server does not know the statement; another backup holds the lock.
const WITHOUT_STAGE: [u16; 5] = [1044, 1045, 1064, 1205, 1227];

/// How it was made sure that the sessions of a backup saw the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Agreement {
    /// Commits were held back while the views began.
    BackupStage,
    /// The views had the same position in the binary log.
    EqualPositions,
    /// There was only one.
    OneSession,
}

/// Sessions in transactions that see the same.
pub(super) struct Views {
    pub sessions: Vec<Session>,
    pub agreement: Agreement,
    /// By the server's clock, RFC 3339 in UTC.
    pub taken_at: String,
    /// `None` where the server writes no binary log.
    pub position: Option<Position>,
}

/// Opens up to `wanted` sessions; fewer only where nobody could tell whether they see the same.
pub(super) async fn open(database: &Database, wanted: usize) -> Result<Views> {
    let mut sessions = Vec::new();
    for _ in 0..wanted.max(1) {
        sessions.push(database.session().await?);
    }
    let mut gtid = None;
    let agreement = if sessions.len() == 1 {
        begin(&mut sessions).await?;
        Agreement::OneSession
    } else if let Some(at) = staged(database, &mut sessions).await? {
        gtid = at;
        Agreement::BackupStage
    } else if equal(&mut sessions).await? {
        Agreement::EqualPositions
    } else {
        crew::dismiss(sessions.drain(1..).collect()).await;
        begin(&mut sessions).await?;
        Agreement::OneSession
    };
    let Some(first) = sessions.first_mut() else {
        return Err(Error::Unreadable { doing: "begin the snapshot".to_owned(), reason: "no session".to_owned() });
    };
    let (taken_at, position) = (clock(first).await?, position(first, gtid).await?);
    Ok(Views { sessions, agreement, taken_at, position })
}

async fn begin(sessions: &mut [Session]) -> Result<()> {
    for session in &mut *sessions {
        // One from an earlier try may be open, and its characteristics can't be changed.
        session.run("begin the snapshot", "ROLLBACK").await?;
        session.run("begin the snapshot", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    }
    let begun = sessions.iter_mut().map(|session| session.run("begin the snapshot", "START TRANSACTION WITH CONSISTENT SNAPSHOT"));
    futures::future::try_join_all(begun).await.map(drop)
}

/// With commits held back; gives the GTID position meanwhile, if there is one. `None` where that is not to be had.
async fn staged(database: &Database, sessions: &mut [Session]) -> Result<Option<Option<String>>> {
    let mut gate = database.session().await?;
    gate.run("hold back commits", &format!("SET wait_timeout={GATE_SECONDS}, lock_wait_timeout={GATE_SECONDS}")).await?;
    for stage in ["START", "BLOCK_COMMIT"] {
        match gate.run("hold back commits", &format!("BACKUP STAGE {stage}")).await {
            Ok(_) => {}
            Err(error) if error.code().is_some_and(|code| WITHOUT_STAGE.contains(&code)) => {
                gate.close().await;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    let begun = begin(sessions).await;
    let gtid = gate.row("read the GTID position", "SELECT @@gtid_binlog_pos").await?;
    // Ends with the session in any case; this is sooner.
    gate.run("let commits go on", "BACKUP STAGE END").await?;
    gate.close().await;
    begun?;
    gtid.map_or(Ok(Some(None)), |row| row.text(0).map(|gtid| Some(gtid.filter(|gtid| !gtid.is_empty()))))
}

/// Without a lock. `false` where the server tells no positions, or where no two views were the same. On a server that is written to
/// flat out those that are not like most of the others in the last try are given up.
async fn equal(sessions: &mut Vec<Session>) -> Result<bool> {
    let mut found = Vec::new();
    for _ in 0..TRIES {
        begin(sessions).await?;
        found.clear();
        for session in &mut *sessions {
            let Some(position) = binlog(session).await? else { return Ok(false) };
            found.push(position);
        }
        if found.iter().all(|position| Some(position) == found.first()) {
            return Ok(true);
        }
    }
    let alike = |position: &Binlog| found.iter().filter(|other| *other == position).count();
    let Some(most) = found.iter().max_by_key(|position| alike(position)) else { return Ok(false) };
    let (mut kept, mut others) = (Vec::new(), Vec::new());
    for (session, position) in sessions.drain(..).zip(&found) {
        if position == most { kept.push(session) } else { others.push(session) }
    }
    crew::dismiss(others).await;
    let agree = kept.len() > 1;
    *sessions = kept;
    Ok(agree)
}

/// File and offset.
type Binlog = (String, u64);

async fn clock(session: &mut Session) -> Result<String> {
    match session.row("read the server's clock", "SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')").await? {
        Some(row) => row.string(0),
        None => Ok(String::new()),
    }
}

/// File and offset of the binary log that belong to this transaction's view: no lock is needed for it.
async fn binlog(session: &mut Session) -> Result<Option<Binlog>> {
    let (mut file, mut offset) = (String::new(), 0);
    for row in session.rows("read the binary log's position", "SHOW STATUS LIKE 'binlog_snapshot_%'").await? {
        let value = row.text(1)?.unwrap_or_default();
        if row.string(0)?.eq_ignore_ascii_case("binlog_snapshot_file") {
            file = value;
        } else {
            offset = value.parse().unwrap_or(0);
        }
    }
    Ok((!file.is_empty()).then_some((file, offset)))
}

/// The same as people and replicas name it. Where the GTID is not known yet, the server looks for it in its log, and does not always
/// find it.
async fn position(session: &mut Session, gtid: Option<String>) -> Result<Option<Position>> {
    let Some((file, offset)) = binlog(session).await? else { return Ok(None) };
    if gtid.is_some() {
        return Ok(Some(Position { file, offset, gtid }));
    }
    let sql = format!("SELECT BINLOG_GTID_POS({}, {offset})", literal(&file));
    let gtid = match session.row("read the position as GTID", &sql).await {
        Ok(Some(row)) => row.text(0)?.filter(|gtid| !gtid.is_empty()),
        Ok(None) | Err(Error::Refused { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Some(Position { file, offset, gtid }))
}
