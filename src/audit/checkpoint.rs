//! A checkpoint: what a balanced audit has proven, so that it can be cut, and so that the next audit starts there.
//!
//! It is the evidence that stands for what is gone, so it lies with the ledgers, outside of the log and of PostgreSQL,
//! which it proves; a checksum over all of it tells rot. It holds, per partition, the offset up to which log, rows and
//! totals agreed; the totals at exactly these offsets, which a later audit adds the log to; and per run which sequences
//! were found, so that none may come again, and which were not, so that none of these is missed.
//!
//! `ledger/checkpoint-BOOKS-TOPIC.jsonl` (the schema's `books_id`, a checksum of the topic's name): a line a total, then a line with the rest ([`Head`]), then a line with the checksum.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::Connection;
use uuid::Uuid;

use super::AuditError;
use super::report::CheckpointSummary;
use super::rows::{StoredSymbol, StoredUser};
use super::totals::Totals;
use crate::clock::Micros;
use crate::postgres::{Database, answered};
use crate::transaction::RunId;

pub(super) const VERSION: u32 = 1;
/// Longest wait for PostgreSQL's answer to a small question.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Why a checkpoint cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot {action} the audit's checkpoint {path}: {source}", path = .path.display())]
    Io {
        /// Such as `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its bytes are not those that were written.
    #[error(
        "the audit's checkpoint {path} is damaged ({why}): what was cut behind it cannot be proven any more; restore the \
             file from a copy", path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// All but the totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub version: u32,
    pub topic: String,
    pub cluster_id: Option<String>,
    /// The schema's.
    pub books_id: Uuid,
    pub topic_ref: i32,
    /// Microseconds since 1970.
    pub made_at: i64,
    pub partitions: Vec<PartitionMark>,
    pub runs: Vec<RunMark>,
}

/// How far a partition is proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartitionMark {
    pub partition: i32,
    /// Everything before this offset.
    pub offset: i64,
    /// Messages counted into its totals up to there.
    pub messages: i64,
    /// False: the log of its first audit had been cut already, so its totals were proven not to be too small only.
    pub complete: bool,
    /// Dead letters that had been put through by then, in order.
    pub replayed: Vec<i64>,
}

/// What became of a run's messages up to the marks of the partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunMark {
    pub run: RunId,
    /// Ranges [from, to) of sequences that are settled: stored, refused, skipped on record, or absent.
    pub settled: Vec<(i64, i64)>,
    /// Of these: meant, without an answer, and nowhere when their producer was gone. They may come yet, once.
    pub absent: BTreeSet<i64>,
    /// Of the first range, if that begins at 0: how many were acknowledged.
    pub acknowledged: u64,
    /// Of the first range: those that were found before their answer was read, as ranges.
    #[serde(default)]
    pub unanswered: Vec<(i64, i64)>,
}

#[derive(Serialize, Deserialize)]
enum Line {
    /// Partition, user, currency, counts, sums, events.
    #[serde(rename = "u")]
    User(i32, String, String, Vec<i64>, [String; 3], [i64; 2]),
    /// Partition, symbol, currency, trades, sums, place of the last price.
    #[serde(rename = "s")]
    Symbol(i32, String, String, i64, [String; 3], (i64, i64)),
    #[serde(rename = "head")]
    Head(Box<Head>),
    #[serde(rename = "crc32c")]
    Checksum(u32),
}

impl Head {
    pub(super) fn summary(&self) -> CheckpointSummary {
        CheckpointSummary {
            made_at: Micros(self.made_at).to_string(),
            messages: self.partitions.iter().map(|mark| mark.messages.unsigned_abs()).sum(),
            partitions: self.partitions.iter().map(|mark| (mark.partition, mark.offset)).collect(),
        }
    }
}

impl RunMark {
    /// Nothing is known of a run yet.
    pub(super) fn of(run: RunId) -> RunMark {
        RunMark { run, settled: Vec::new(), absent: BTreeSet::new(), acknowledged: 0, unanswered: Vec::new() }
    }

    /// Everything before this sequence is settled: its ledger is of no more use.
    pub(super) fn settled_below(&self) -> i64 {
        self.settled.first().filter(|(from, _)| *from == 0).map_or(0, |(_, to)| *to)
    }

    /// Whether a sequence is settled.
    pub(super) fn contains(&self, sequence: i64) -> bool {
        let next = self.settled.partition_point(|(from, _)| *from <= sequence);
        next.checked_sub(1).and_then(|at| self.settled.get(at)).is_some_and(|(_, to)| sequence < *to)
    }
}

/// A checkpoint that was read.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub head: Head,
    totals: HashMap<i32, Totals>,
}

impl Checkpoint {
    /// The newest checkpoint of a topic of some books, in some ledgers.
    ///
    /// # Errors
    /// A file that is there cannot be read, or is damaged.
    pub(super) fn find(
        ledger_dirs: &[PathBuf],
        books_id: Uuid,
        topic: &str,
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        let mut newest: Option<Checkpoint> = None;
        for dir in ledger_dirs {
            let Some(found) = Self::read(&file(dir, books_id, topic))? else { continue };
            let is_of_these = found.head.topic == topic && found.head.books_id == books_id;
            if is_of_these && newest.as_ref().is_none_or(|known| known.head.made_at < found.head.made_at) {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    fn read(path: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CheckpointError::Io { action: "open", path: path.to_owned(), source }),
        };
        let damaged = |why: String| CheckpointError::Damaged { path: path.to_owned(), why };
        let mut reader = BufReader::new(file);
        let (mut checksum, mut head, mut totals) = (0, None, HashMap::<i32, Totals>::new());
        let mut line = String::new();
        loop {
            line.clear();
            let read = reader.read_line(&mut line);
            let read = read.map_err(|source| CheckpointError::Io { action: "read", path: path.to_owned(), source })?;
            if read == 0 {
                return Err(damaged("it ends early".to_owned()));
            }
            match serde_json::from_str(&line).map_err(|error| damaged(error.to_string()))? {
                Line::User(partition, user_id, currency, counts, sums, events) => {
                    // One that was written before there were declines has three.
                    let [purchases, refunds, trades, ref declines @ ..] = counts[..] else {
                        return Err(damaged(format!("a total of user {user_id} has {} counts", counts.len())));
                    };
                    let counts = [purchases, refunds, trades, declines.first().copied().unwrap_or(0)];
                    let user = StoredUser { user_id, currency, counts, sums, events };
                    let carried = totals.entry(partition).or_default().carry_user(&user);
                    carried.ok_or_else(|| damaged(format!("a total of user {} makes no sense", user.user_id)))?;
                }
                Line::Symbol(partition, symbol, currency, trades, sums, last) => {
                    let symbol = StoredSymbol { symbol, currency, trades, sums, last };
                    let carried = totals.entry(partition).or_default().carry_symbol(&symbol);
                    carried.ok_or_else(|| damaged(format!("a total of symbol {} makes no sense", symbol.symbol)))?;
                }
                Line::Head(read) => head = Some(*read),
                Line::Checksum(expected) => {
                    if expected != checksum {
                        return Err(damaged("its checksum does not match".to_owned()));
                    }
                    break;
                }
            }
            checksum = crc32c::crc32c_append(checksum, line.as_bytes());
        }
        let head = head.ok_or_else(|| damaged("it has no head".to_owned()))?;
        if head.version != VERSION {
            return Err(damaged(format!("its version is {}, this finstream knows {VERSION}", head.version)));
        }
        Ok(Some(Checkpoint { head, totals }))
    }

    /// How far a partition is proven.
    pub(super) fn mark(&self, partition: i32) -> Option<PartitionMark> {
        self.head.partitions.iter().find(|mark| mark.partition == partition).cloned()
    }

    /// What a partition's messages added up to there.
    pub(super) fn take_totals(&mut self, partition: i32) -> Totals {
        self.totals.remove(&partition).unwrap_or_default()
    }
}

/// What a checkpoint stands for, and may be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// When it was made, microseconds since 1970.
    pub made_at: Micros,
    /// The stream.
    pub topic_ref: i32,
    /// Of each partition: everything before this offset.
    pub offsets: BTreeMap<i32, i64>,
    /// Of each run: every sequence before this one.
    pub runs: BTreeMap<RunId, i64>,
}

/// What the checkpoint in a ledger's folder stands for; none when there is no checkpoint of this topic.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn covered(ledger_dir: &Path, books_id: Uuid, topic: &str) -> Result<Option<Covered>, CheckpointError> {
    let found = Checkpoint::find(&[ledger_dir.to_owned()], books_id, topic)?;
    Ok(found.map(|Checkpoint { head, .. }| Covered {
        made_at: Micros(head.made_at),
        topic_ref: head.topic_ref,
        offsets: head.partitions.iter().map(|mark| (mark.partition, mark.offset)).collect(),
        runs: head.runs.iter().map(|mark| (mark.run, mark.settled_below())).collect(),
    }))
}

fn file(dir: &Path, books_id: Uuid, topic: &str) -> PathBuf {
    dir.join(format!("checkpoint-{}-{:08x}.jsonl", books_id.simple(), crc32c::crc32c(topic.as_bytes())))
}

/// A checkpoint that is being made: written beside the old one, which it replaces when the audit has balanced.
#[derive(Debug)]
pub(super) struct CheckpointWriter {
    dir: PathBuf,
    path: PathBuf,
    out: BufWriter<File>,
    checksum: u32,
}

impl CheckpointWriter {
    pub(super) fn begin(dir: &Path, books_id: Uuid, topic: &str) -> Result<CheckpointWriter, CheckpointError> {
        let path = file(dir, books_id, topic);
        let new = path.with_extension("new");
        let opened = fs::create_dir_all(dir).and_then(|()| File::create(&new));
        let opened = opened.map_err(|source| CheckpointError::Io { action: "create", path: new, source })?;
        Ok(CheckpointWriter { dir: dir.to_owned(), path, out: BufWriter::new(opened), checksum: 0 })
    }

    fn new_file(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    pub(super) fn users(&mut self, partition: i32, users: &[StoredUser]) -> Result<(), CheckpointError> {
        users.iter().try_for_each(|user| {
            let (user_id, currency) = (user.user_id.clone(), user.currency.clone());
            self.line(&Line::User(partition, user_id, currency, user.counts.to_vec(), user.sums.clone(), user.events))
        })
    }

    pub(super) fn symbols(&mut self, partition: i32, symbols: &[StoredSymbol]) -> Result<(), CheckpointError> {
        symbols.iter().try_for_each(|symbol| {
            let (name, currency) = (symbol.symbol.clone(), symbol.currency.clone());
            self.line(&Line::Symbol(partition, name, currency, symbol.trades, symbol.sums.clone(), symbol.last))
        })
    }

    /// Replaces the old checkpoint, durably: what it proves may be cut when this has returned.
    pub(super) fn finish(mut self, head: Head) -> Result<(), CheckpointError> {
        self.line(&Line::Head(Box::new(head)))?;
        self.line(&Line::Checksum(self.checksum))?;
        let (new, path) = (self.new_file(), self.path.clone());
        let replaced = self
            .out
            .flush()
            .and_then(|()| self.out.get_ref().sync_all())
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        replaced.map_err(|source| CheckpointError::Io { action: "write", path, source })
    }

    /// Forgets what was written: the books do not balance.
    pub(super) fn abandon(self) {
        // It is of no use, and the next one overwrites it.
        let _ = fs::remove_file(self.new_file());
    }

    fn line(&mut self, line: &Line) -> Result<(), CheckpointError> {
        let path = self.new_file();
        let failed = |source| CheckpointError::Io { action: "write", path: path.clone(), source };
        let mut text = serde_json::to_vec(line).map_err(|error| failed(std::io::Error::other(error)))?;
        text.push(b'\n');
        self.out.write_all(&text).map_err(failed)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &text);
        Ok(())
    }
}

/// What of a topic's rows was cut, and how far it was applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// None where no consumer was yet.
    pub books_id: Option<Uuid>,
    pub topic_ref: Option<i32>,
    next_offsets: HashMap<i32, i64>,
    /// Stream, partition, and the offset before which rows may be gone.
    cuts: Vec<(i32, i32, i64)>,
}

impl Standing {
    pub(super) async fn look(database: &Database, topic: &str) -> Result<Standing, AuditError> {
        let mut connection = database.named("finstream audit").connect().await?;
        let looking = async {
            let books_id =
                sqlx::query_scalar("select books_id from schema_owner").fetch_optional(&mut connection).await?;
            let topic_ref = sqlx::query_scalar("select topic_ref from streams where topic = $1 and retired_at is null")
                .bind(topic)
                .fetch_optional(&mut connection)
                .await?;
            let next_offsets: Vec<(i32, i64)> =
                sqlx::query_as("select partition, next_offset from partition_offsets where topic_ref = $1")
                    .bind(topic_ref)
                    .fetch_all(&mut connection)
                    .await?;
            let cuts = sqlx::query_as(
                "select c.topic_ref, c.partition, c.cut_before from retention_cuts c join streams s using (topic_ref)
                 where s.topic = $1 order by 1, 2",
            );
            let cuts = cuts.bind(topic).fetch_all(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(Standing {
                books_id,
                topic_ref,
                next_offsets: next_offsets.into_iter().collect(),
                cuts,
            })
        };
        Ok(answered(ANSWER_DEADLINE, looking).await?)
    }

    /// Why a checkpoint is not of these books; none where it is.
    pub(super) fn mismatch(&self, head: &Head, cluster_id: Option<&str>) -> Option<String> {
        let other_cluster = head.cluster_id.as_deref().zip(cluster_id).is_some_and(|(known, found)| known != found);
        if self.topic_ref != Some(head.topic_ref) || other_cluster {
            return Some("it is of another life of the topic, or of another cluster".to_owned());
        }
        head.partitions.iter().find_map(|mark| {
            let applied = self.next_offsets.get(&mark.partition).copied().unwrap_or(0);
            (applied < mark.offset).then(|| {
                let PartitionMark { partition, offset, .. } = mark;
                format!(
                    "it covers partition {partition} up to offset {offset}, and PostgreSQL has applied {applied} only"
                )
            })
        })
    }

    /// The first place where rows are gone that no checkpoint stands for.
    pub(super) fn uncovered(&self, head: Option<&Head>) -> Option<(i32, i64)> {
        let is_covered = |(topic_ref, partition, before): &(i32, i32, i64)| {
            head.is_some_and(|head| {
                let mark = head.partitions.iter().find(|mark| mark.partition == *partition);
                head.topic_ref == *topic_ref && mark.is_some_and(|mark| mark.offset >= *before)
            })
        };
        self.cuts.iter().find(|cut| !is_covered(cut)).map(|(_, partition, before)| (*partition, *before))
    }
}
