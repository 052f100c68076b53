//! CEL expressions over what a check has read, each judged by a process of its own.
//!
//! An expression is a program of whoever may write a Release: loops in loops never end, a doubled list fills the memory, nesting
//! overflows the stack. The interpreter has no limits of its own and a thread can't be stopped, so an expression is judged by
//! `backout evaluate`, this same program, which the kernel holds to [`PROCESSOR_SECONDS`] and [`MEMORY`] and which dies alone.

mod judge;

use std::{
    io::{self, Read as _},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    sync::Semaphore,
    time::timeout,
};

/// An expression over an answer of 1 MiB takes a tenth of this. Twice as much lets whoever writes one hold a place twice as long.
const PROCESSOR_SECONDS: u64 = 1;
/// An answer of 1 MiB takes up to 60 MiB as values. Times [`PLACES`], it must fit beside the operator into the pod's memory.
const MEMORY: u64 = 96 << 20;
/// Expressions that are judged at the same time; others wait their turn.
const PLACES: usize = 2;
/// From the start of the process to its verdict. Longer than [`PROCESSOR_SECONDS`], since it shares the processor; shorter than a check may
/// take, so that the check can say what was wrong.
const DEADLINE: Duration = Duration::from_secs(8);
/// Bytes of a verdict that are read: the judge's messages are shorter.
const LONGEST_VERDICT: u64 = 16 * 1024;

/// Characters of an expression that a message quotes.
const LONGEST_QUOTE: usize = 200;

/// What the judge is asked.
#[derive(Serialize, Deserialize)]
struct Question {
    expression: String,
    variables: Map<String, Value>,
}

/// Whether it comes to true; if not, what there is to say of it.
type Verdict = Result<(), String>;

/// Has expressions judged.
#[derive(Clone)]
pub struct Evaluator {
    program: PathBuf,
    places: Arc<Semaphore>,
}

impl Evaluator {
    /// `program` is the `backout` command.
    pub fn new(program: PathBuf) -> Self {
        Self { program, places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// Whether the expression comes to true; if not, why. Ends within [`DEADLINE`] once it is its turn.
    pub async fn holds<const N: usize>(&self, expression: &str, variables: [(&str, Value); N]) -> Result<(), String> {
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let question = Question { expression: expression.to_owned(), variables };
        self.judged(&question).await.map_err(|why| format!("{} {why}", short(expression, LONGEST_QUOTE)))
    }

    async fn judged(&self, question: &Question) -> Verdict {
        let question = serde_json::to_vec(question).map_err(|error| format!("can't be told: {error}"))?;
        let _place = self.places.acquire().await.map_err(|_| "can't be told: no place is left to judge it".to_owned())?;
        match timeout(DEADLINE, self.ask(question)).await {
            Ok(Ok((Some(verdict), _))) => verdict,
            Ok(Ok((None, status))) => Err(end(status)),
            Ok(Err(error)) => Err(format!("can't be told: its process can't be used: {error}")),
            Err(_) => Err(format!("was not told within {} s", DEADLINE.as_secs())),
        }
    }

    async fn ask(&self, question: Vec<u8>) -> io::Result<(Option<Verdict>, ExitStatus)> {
        let mut child = self.command().spawn()?;
        let verdict = converse(&mut child, &question).await?;
        Ok((serde_json::from_slice(&verdict).ok(), child.wait().await?))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // What the operator was told by its environment is none of an expression's business.
        command.arg("evaluate").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        command
    }
}

async fn converse(child: &mut Child, question: &[u8]) -> io::Result<Vec<u8>> {
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(question).await
        // It died early; how is told by its end.
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error);
    }
    let mut verdict = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(LONGEST_VERDICT).read_to_end(&mut verdict).await?;
    }
    Ok(verdict)
}

/// Why there is no verdict.
fn end(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) if signal == Signal::XCPU.as_raw() || signal == Signal::KILL.as_raw() => {
            format!("takes more than {PROCESSOR_SECONDS} s of the processor; write a cheaper one, or check less")
        }
        Some(_) => format!("takes more than {} MiB of memory, or nests too deep; write a smaller one, or check less", MEMORY >> 20),
        None => format!("can't be told: its process ended with {status}"),
    }
}

/// The other side, in its own process: reads one question, prints the verdict.
///
/// # Errors
/// Limits that can't be set, a question that can't be read. Nothing is judged then.
pub fn answer() -> Result<(), String> {
    // One second between the signal that can be caught and the one that can't.
    limit(Resource::Cpu, PROCESSOR_SECONDS, PROCESSOR_SECONDS + 1)?;
    limit(Resource::Data, MEMORY, MEMORY)?;
    limit(Resource::Core, 0, 0)?;
    let mut question = Vec::new();
    io::stdin().lock().read_to_end(&mut question).map_err(|error| error.to_string())?;
    let Question { expression, variables } = serde_json::from_slice(&question).map_err(|error| error.to_string())?;
    drop(question);
    let verdict: Verdict = judge::holds(&expression, variables);
    println!("{}", serde_json::to_string(&verdict).map_err(|error| error.to_string())?);
    Ok(())
}

fn short(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn limit(resource: Resource, current: u64, maximum: u64) -> Result<(), String> {
    setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) }).map_err(|error| format!("setting a limit: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_judge_that_can_not_be_used_is_no_verdict() {
        for (program, part) in [("/nowhere/backout", "can't be told"), ("/bin/false", "can't be told"), ("/bin/true", "can't be told")] {
            let verdict = Evaluator::new(program.into()).holds("true", []).await;
            assert!(verdict.as_ref().is_err_and(|error| error.contains(part)), "{program}: {verdict:?}");
        }
    }
}
