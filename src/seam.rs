//! Seams: places in the transaction layer at which a test has this process killed, stopped, held up, or told that its
//! connection broke.
//!
//! Owns the list of places and the text that arms them. Knows nothing of what goes on around a seam. Compiled always, so
//! that what is tested is what runs ([why](../docs/decisions/0022-seams.md)); a seam that is not armed costs one relaxed
//! load, and there are ten a batch and none a message.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// `SEAM=ACTION@HIT,…`, such as `inside-copy=kill@3`. ACTION is `kill`, `error`, `stop` or `delay:TIME`.
pub const FAILPOINTS: &str = "FINSTREAM_FAILPOINTS";
/// Must be `yes`, or [`FAILPOINTS`] is refused.
pub const ALLOW_FAILPOINTS: &str = "FINSTREAM_ALLOW_FAILPOINTS";
/// Longest delay: every wait of a test is bounded.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// A place at which something may be made to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seam {
    /// Partitions were assigned, the epoch is not raised yet.
    BeforeClaim,
    /// The raised epoch is committed, its new owner does not know yet.
    AfterClaim,
    /// The transaction of a batch has begun.
    BeforeCompareAndSet,
    /// It holds the locks of its partitions.
    AfterCompareAndSet,
    /// The rows are on their way, COPY has not ended.
    InsideCopy,
    /// All is written.
    BeforeCommit,
    /// PostgreSQL has committed; an error here is a lost reply.
    AfterCommit,
    /// PostgreSQL is ahead of the group's offset. An error leaves the group's offset behind.
    BeforeKafkaCommit,
    /// Partitions are given back: what was read of them is stored. An error leaves the group's offset behind.
    Revoke,
    /// Changed totals are read.
    BeforePublish,
    /// They are sent, their Kafka transaction is open.
    InsidePublish,
    /// They are published, the change rows still there.
    AfterPublish,
}

impl Seam {
    /// All of them, in the order in which a consumer meets them.
    pub const ALL: [Seam; 12] = [
        Seam::BeforeClaim,
        Seam::AfterClaim,
        Seam::BeforeCompareAndSet,
        Seam::AfterCompareAndSet,
        Seam::InsideCopy,
        Seam::BeforeCommit,
        Seam::AfterCommit,
        Seam::BeforeKafkaCommit,
        Seam::Revoke,
        Seam::BeforePublish,
        Seam::InsidePublish,
        Seam::AfterPublish,
    ];

    /// As it is armed.
    pub fn name(self) -> &'static str {
        match self {
            Seam::BeforeClaim => "before-claim",
            Seam::AfterClaim => "after-claim",
            Seam::BeforeCompareAndSet => "before-compare-and-set",
            Seam::AfterCompareAndSet => "after-compare-and-set",
            Seam::InsideCopy => "inside-copy",
            Seam::BeforeCommit => "before-commit",
            Seam::AfterCommit => "after-commit",
            Seam::BeforeKafkaCommit => "before-kafka-commit",
            Seam::Revoke => "revoke",
            Seam::BeforePublish => "before-publish",
            Seam::InsidePublish => "inside-publish",
            Seam::AfterPublish => "after-publish",
        }
    }
}

impl fmt::Display for Seam {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What happens at a seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL: nothing is cleaned up.
    Kill,
    /// As if the connection broke.
    Error,
    /// As if the machine was busy.
    Delay(Duration),
    /// SIGSTOP: all threads, heartbeats too, until somebody sends SIGCONT.
    Stop,
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Kill => formatter.write_str("kill"),
            Action::Error => formatter.write_str("error"),
            Action::Delay(time) => write!(formatter, "delay:{}ms", time.as_millis()),
            Action::Stop => formatter.write_str("stop"),
        }
    }
}

/// Something that happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failpoint {
    pub seam: Seam,
    pub action: Action,
    /// The first time that the seam is reached is 1.
    pub hit: u64,
}

impl fmt::Display for Failpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}@{}", self.seam, self.action, self.hit)
    }
}

impl FromStr for Failpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let names = Seam::ALL.map(Seam::name).join(", ");
            format!(
                "{FAILPOINTS}: {text:?} is not SEAM=ACTION@HIT, such as inside-copy=kill@3; the actions are kill, error, \
                 stop and delay:TIME ({DELAY_MAX:?} at most), the seams are {names}"
            )
        };
        let (seam, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (action, hit) = rest.split_once('@').unwrap_or((rest, "1"));
        let seam = Seam::ALL.into_iter().find(|known| known.name() == seam).ok_or_else(wrong)?;
        let action = match (action, action.strip_prefix("delay:").map(humantime::parse_duration)) {
            ("kill", _) => Action::Kill,
            ("error", _) => Action::Error,
            ("stop", _) => Action::Stop,
            (_, Some(Ok(time))) if time <= DELAY_MAX => Action::Delay(time),
            _ => return Err(wrong()),
        };
        let hit = hit.parse().ok().filter(|hit| *hit > 0).ok_or_else(wrong)?;
        Ok(Failpoint { seam, action, hit })
    }
}

/// One that is armed, and how often its seam was reached.
struct Armed {
    failpoint: Failpoint,
    hits: AtomicU64,
}

static IS_ARMED: AtomicBool = AtomicBool::new(false);
static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

/// Arms what the environment asks for; says so on stderr, for such a process is broken on purpose.
///
/// # Errors
/// What is wrong with the request, for people.
pub fn arm_from_environment() -> Result<(), String> {
    let asked = std::env::var(FAILPOINTS).unwrap_or_default();
    let failpoints = parse(&asked, std::env::var(ALLOW_FAILPOINTS).is_ok_and(|value| value == "yes"))?;
    if failpoints.is_empty() {
        return Ok(());
    }
    tracing::warn!("{FAILPOINTS}={asked}: this process will break itself, for a test");
    let armed = failpoints.into_iter().map(|failpoint| Armed { failpoint, hits: AtomicU64::new(0) }).collect();
    let _ = ARMED.set(armed);
    IS_ARMED.store(true, Ordering::Release);
    Ok(())
}

fn parse(asked: &str, is_allowed: bool) -> Result<Vec<Failpoint>, String> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    if !is_allowed {
        return Err(format!(
            "{FAILPOINTS} is set: it makes this process kill or break itself, for tests of finstream. Unset it; if that is \
             what you want, set {ALLOW_FAILPOINTS}=yes as well"
        ));
    }
    asked.split(',').map(str::parse).collect()
}

/// Reached by a task.
///
/// # Errors
/// A broken connection, if that was asked for.
pub async fn reach(seam: Seam) -> io::Result<()> {
    match due(seam) {
        None => Ok(()),
        Some(Action::Delay(time)) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Some(action) => act(seam, action),
    }
}

/// Reached by a thread that may block.
///
/// # Errors
/// As [`reach`].
pub fn reach_blocking(seam: Seam) -> io::Result<()> {
    due(seam).map_or(Ok(()), |action| act(seam, action))
}

#[inline]
fn due(seam: Seam) -> Option<Action> {
    if IS_ARMED.load(Ordering::Relaxed) { hit(seam) } else { None }
}

#[cold]
fn hit(seam: Seam) -> Option<Action> {
    let armed = ARMED.get()?.iter().filter(|armed| armed.failpoint.seam == seam);
    // Each counts, though one at most happens.
    let due = armed.filter(|armed| armed.hits.fetch_add(1, Ordering::Relaxed) + 1 == armed.failpoint.hit);
    let failpoint = due.map(|armed| armed.failpoint).last()?;
    // Before it happens: afterwards there may be nobody left to say it.
    tracing::warn!("failpoint {failpoint} is reached");
    Some(failpoint.action)
}

fn act(seam: Seam, action: Action) -> io::Result<()> {
    match action {
        Action::Kill => signal_myself(Signal::KILL),
        Action::Stop => signal_myself(Signal::STOP),
        Action::Delay(time) => {
            std::thread::sleep(time);
            Ok(())
        }
        Action::Error => {
            Err(io::Error::new(io::ErrorKind::ConnectionReset, format!("failpoint {seam}: connection broken")))
        }
    }
}

fn signal_myself(signal: Signal) -> io::Result<()> {
    Ok(kill_process(getpid(), signal)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for seam in Seam::ALL {
            for action in [Action::Kill, Action::Error, Action::Stop, Action::Delay(Duration::from_millis(1_500))] {
                let failpoint = Failpoint { seam, action, hit: 3 };
                assert_eq!(failpoint.to_string().parse(), Ok(failpoint));
            }
        }
        assert_eq!("revoke=kill".parse::<Failpoint>().unwrap().hit, 1);
    }

    #[test]
    fn nothing_is_armed_without_consent_or_by_a_typing_error() {
        assert_eq!(parse("", false), Ok(Vec::new()));
        assert!(parse("revoke=kill@1", false).unwrap_err().contains(ALLOW_FAILPOINTS));
        assert_eq!(parse("revoke=kill@1,inside-copy=stop@2", true).unwrap().len(), 2);
        for wrong in
            ["revoke", "revoke=", "revoke=kil", "revoked=kill", "revoke=kill@0", "revoke=delay:61s", "revoke=kill,"]
        {
            assert!(parse(wrong, true).is_err(), "{wrong}");
        }
    }
}
