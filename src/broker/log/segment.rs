//! One segment: a file of raw batches, its offset index, and the few numbers that retention and recovery need.
//!
//! Only the writer appends. Readers hold the segment's `Arc`, so a file that retention removed stays readable for them.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::batch::{BatchHeader, HEADER_BYTES};
use super::codec::{Decoder, Encoder};
use super::disk::{Disk, DiskFile, OpenMode};
use super::lock;
use super::offset_index::{IndexMark, OffsetIndex};
use super::queue::PendingBatch;

/// Bytes read at once when headers are walked.
const WALK_BYTES: usize = 64 * 1024;

/// What a checkpoint says about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentSnapshot {
    pub base_offset: i64,
    pub length: u64,
    pub max_timestamp: i64,
    /// Wall clock of the first append, for closing by age.
    pub opened_ms: i64,
    /// Wall clock of the last append, for retention by time.
    pub last_append_ms: i64,
    pub index: IndexMark,
}

impl SegmentSnapshot {
    pub const BYTES: usize = 5 * 8 + 2 * 4;

    pub fn empty(base_offset: i64, now_ms: i64) -> Self {
        let (opened_ms, last_append_ms) = (now_ms, now_ms);
        let index = IndexMark::default();
        SegmentSnapshot { base_offset, length: 0, max_timestamp: -1, opened_ms, last_append_ms, index }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put(&self.base_offset.to_le_bytes());
        out.put(&self.length.to_le_bytes());
        out.put(&self.max_timestamp.to_le_bytes());
        out.put(&self.opened_ms.to_le_bytes());
        out.put(&self.last_append_ms.to_le_bytes());
        out.put(&self.index.entries.to_le_bytes());
        out.put(&self.index.crc.to_le_bytes());
    }

    pub fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(SegmentSnapshot {
            base_offset: decoder.i64()?,
            length: decoder.u64()?,
            max_timestamp: decoder.i64()?,
            opened_ms: decoder.i64()?,
            last_append_ms: decoder.i64()?,
            index: IndexMark { entries: decoder.u32()?, crc: decoder.u32()? },
        })
    }
}

struct Tail {
    now: SegmentSnapshot,
    /// None: on disk only; loaded (or rebuilt) when it is needed.
    index: Option<OffsetIndex>,
    index_used: bool,
    /// Holds bytes, or a cut, that are not synced.
    dirty: bool,
}

/// One open segment.
pub(super) struct Segment {
    pub base_offset: i64,
    pub file: Arc<dyn DiskFile>,
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    tail: Mutex<Tail>,
}

/// The name of a segment's file.
pub(super) fn log_name(base_offset: i64) -> String {
    format!("{base_offset:020}.log")
}

fn index_name(base_offset: i64) -> String {
    format!("{base_offset:020}.index")
}

/// The base offset in a segment's file name.
pub(super) fn base_offset_of(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

impl Segment {
    /// A new, empty file. One that is there already is from a life that ended before it was promised.
    pub fn create(disk: &Arc<dyn Disk>, directory: &Path, base_offset: i64, now_ms: i64) -> io::Result<Segment> {
        let file = disk.open(&directory.join(log_name(base_offset)), OpenMode::Truncate)?;
        Ok(Self::new(disk, directory, file, SegmentSnapshot::empty(base_offset, now_ms), Some(OffsetIndex::default())))
    }

    /// An existing file of at least the length of the snapshot. Its content is not looked at.
    pub fn open(disk: &Arc<dyn Disk>, directory: &Path, snapshot: SegmentSnapshot) -> io::Result<Segment> {
        let path = directory.join(log_name(snapshot.base_offset));
        let file = disk.open(&path, OpenMode::Write)?;
        Ok(Self::new(disk, directory, file, snapshot, None))
    }

    fn new(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        file: Arc<dyn DiskFile>,
        now: SegmentSnapshot,
        index: Option<OffsetIndex>,
    ) -> Segment {
        let tail = Mutex::new(Tail { now, index, index_used: false, dirty: true });
        Segment { base_offset: now.base_offset, file, disk: disk.clone(), directory: directory.to_owned(), tail }
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.join(log_name(self.base_offset))
    }

    pub fn index_path(&self) -> PathBuf {
        self.directory.join(index_name(self.base_offset))
    }

    pub fn length(&self) -> u64 {
        lock(&self.tail).now.length
    }

    pub fn snapshot(&self) -> SegmentSnapshot {
        lock(&self.tail).now
    }

    /// Writes the batches behind the last one. They count, and are seen, after [`Segment::note`].
    pub fn write(&self, batches: &[PendingBatch]) -> io::Result<()> {
        let length = {
            let mut tail = lock(&self.tail);
            self.load_index(&mut tail)?;
            tail.now.length
        };
        let parts: Vec<&[u8]> = batches
            .iter()
            .flat_map(|pending| [pending.batch.head.as_slice(), pending.batch.records.as_ref()])
            .collect();
        self.file.write_all_at(&parts, length)
    }

    /// Counts batches that lie in the file behind the last one that was counted.
    pub fn note<'a>(&self, batches: impl Iterator<Item = (&'a BatchHeader, usize, i64)>) -> io::Result<()> {
        let mut tail = lock(&self.tail);
        self.load_index(&mut tail)?;
        let Tail { now, index, dirty, .. } = &mut *tail;
        for (header, total_bytes, now_ms) in batches {
            if let Some(index) = index {
                index.note(self.base_offset, header, now.length, now.max_timestamp);
            }
            now.length += total_bytes as u64;
            now.max_timestamp = now.max_timestamp.max(header.max_timestamp);
            now.last_append_ms = now.last_append_ms.max(now_ms);
        }
        *dirty = true;
        Ok(())
    }

    /// Cuts the file behind what counts, and returns how many bytes went.
    pub fn cut(&self) -> io::Result<u64> {
        let mut tail = lock(&self.tail);
        let excess = self.file.length()?.saturating_sub(tail.now.length);
        if excess > 0 {
            self.file.set_length(tail.now.length)?;
            tail.dirty = true;
        }
        Ok(excess)
    }

    /// Where to begin to look for `offset`.
    pub fn position_of(&self, offset: i64) -> io::Result<u64> {
        let relative = offset.saturating_sub(self.base_offset).max(0) as u64;
        self.with_index(|index| index.position_of(relative))
    }

    /// As `position_of`, if the index is in memory.
    pub fn indexed_position_of(&self, offset: i64) -> Option<u64> {
        let relative = offset.saturating_sub(self.base_offset).max(0) as u64;
        lock(&self.tail).index.as_ref().map(|index| index.position_of(relative))
    }

    /// The last indexed batch that begins neither behind `position` nor behind `offset`.
    pub fn last_within(&self, position: u64, offset: i64) -> io::Result<u64> {
        let relative = offset.saturating_sub(self.base_offset).max(0) as u64;
        self.with_index(|index| index.last_within(position, relative))
    }

    /// Where to begin to look for the first batch with a timestamp of at least `timestamp_ms`.
    pub fn position_of_time(&self, timestamp_ms: i64) -> io::Result<u64> {
        self.with_index(|index| index.position_of_time(timestamp_ms))
    }

    fn with_index<T>(&self, look: impl FnOnce(&OffsetIndex) -> T) -> io::Result<T> {
        let mut tail = lock(&self.tail);
        self.load_index(&mut tail)?;
        tail.index_used = true;
        tail.index.as_ref().map(look).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn load_index(&self, tail: &mut Tail) -> io::Result<()> {
        if tail.index.is_some() {
            return Ok(());
        }
        if tail.now.length == 0 {
            tail.index = Some(OffsetIndex::default());
            return Ok(());
        }
        let stored =
            (tail.now.index.entries > 0).then(|| OffsetIndex::load(&*self.disk, &self.index_path(), tail.now.index));
        if let Some(Some(index)) = stored {
            tail.index = Some(index);
            return Ok(());
        }
        tracing::warn!("rebuilding the offset index {}", self.index_path().display());
        let mut index = OffsetIndex::default();
        let mut max_timestamp = -1;
        let mut walk = HeaderWalk::new(&*self.file, 0, tail.now.length);
        while let Some((position, header)) = walk.next()? {
            index.note(self.base_offset, &header, position, max_timestamp);
            max_timestamp = max_timestamp.max(header.max_timestamp);
        }
        tail.now.index = self.persist(&index, IndexMark::default());
        tail.index = Some(index);
        Ok(())
    }

    /// What a checkpoint says about this segment, and whether it must be synced before it says so. Stores the index as
    /// far as it goes.
    pub fn checkpoint(&self) -> (SegmentSnapshot, bool) {
        let mut tail = lock(&self.tail);
        let Tail { now, index, dirty, .. } = &mut *tail;
        if let (true, Some(index)) = (*dirty, index) {
            now.index = self.persist(index, now.index);
        }
        (*now, std::mem::take(dirty))
    }

    /// An index that cannot be stored is only rebuilt later.
    fn persist(&self, index: &OffsetIndex, held: IndexMark) -> IndexMark {
        index.persist(&*self.disk, &self.index_path(), held).unwrap_or_else(|error| {
            tracing::warn!("cannot write {}: {error}; it will be rebuilt", self.index_path().display());
            IndexMark::default()
        })
    }

    /// Gives the memory of the index back if nobody looked since the last call and the file holds all of it.
    pub fn release_index(&self) {
        let mut tail = lock(&self.tail);
        let used = std::mem::take(&mut tail.index_used);
        if !used && !tail.dirty {
            tail.index = None;
        }
    }
}

/// Walks batch headers in a part of a file that holds whole batches.
pub(super) struct HeaderWalk<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    window: Vec<u8>,
    window_from: u64,
    window_bytes: usize,
}

impl<'a> HeaderWalk<'a> {
    pub fn new(file: &'a dyn DiskFile, from: u64, end: u64) -> Self {
        Self::reading(file, from, end, WALK_BYTES)
    }

    /// Reads so many bytes at once.
    pub fn reading(file: &'a dyn DiskFile, from: u64, end: u64, window_bytes: usize) -> Self {
        HeaderWalk { file, position: from, end, window: Vec::new(), window_from: from, window_bytes }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at a batch further on; one that lies behind stays passed.
    pub fn skip_to(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// What was read for the headers, if it is all of `[from, to)`.
    pub fn seen(&self, from: u64, to: u64) -> Option<&[u8]> {
        let start = from.checked_sub(self.window_from)? as usize;
        self.window.get(start..start + (to - from) as usize)
    }

    /// The next header and its position.
    ///
    /// # Errors
    /// `InvalidData` when what lies there is no whole batch.
    pub fn next(&mut self) -> io::Result<Option<(u64, BatchHeader)>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let invalid = || io::Error::new(ErrorKind::InvalidData, format!("no batch at byte {position}"));
        let header = self.header()?.ok_or_else(invalid)?;
        let total = header.total_bytes().ok_or_else(invalid)? as u64;
        if header.magic != 2 || total > self.end - position {
            return Err(invalid());
        }
        self.position += total;
        Ok(Some((position, header)))
    }

    fn header(&mut self) -> io::Result<Option<BatchHeader>> {
        let within = |walk: &Self| (walk.position - walk.window_from) as usize;
        if within(self) + HEADER_BYTES > self.window.len() {
            let wanted = self.window_bytes.min((self.end - self.position) as usize);
            self.window.resize(wanted, 0);
            self.window_from = self.position;
            self.file.read_exact_at(&mut self.window, self.position)?;
        }
        Ok(self.window.get(within(self)..).and_then(BatchHeader::read))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::mpsc;
    use std::time::Duration;

    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::producer::{FutureProducer, FutureRecord};
    use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

    use super::super::{Durability, lock};
    use crate::broker::Broker;
    use crate::config::BrokerSettings;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn send(producer: &FutureProducer) -> Result<i64, rdkafka::error::KafkaError> {
        let payload = vec![b'x'; 900_000];
        let record = FutureRecord::<(), [u8]>::to("t").partition(0).payload(&payload);
        producer.send(record, PATIENCE).await.map(|delivery| delivery.offset).map_err(|(error, _)| error)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_reader_of_a_cold_segment_holds_up_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let settings = BrokerSettings {
            dir: dir.path().to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            durability: Durability::Fsync,
            default_partitions: 1,
            retention: Duration::from_secs(3600),
            retention_bytes_per_partition: 1 << 30,
        };
        let broker = Broker::start(settings).await.unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.address().to_string()).set("group.id", "g");
        config.set("message.timeout.ms", "3000").set("enable.auto.commit", "false");
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let topic = NewTopic::new("t", 1, TopicReplication::Fixed(1)).set("segment.bytes", "1048576");
        admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        let producer: FutureProducer = config.create().unwrap();
        for offset in 0..3 {
            assert_eq!(send(&producer).await.unwrap(), offset);
        }
        let (id, _) = broker.node.log.partitions()[0];
        let first = lock(&broker.node.log.partition(id).unwrap().0.store).segments[0].clone();
        // A disk that does not answer: whoever looks into the first segment waits for this thread.
        let (release, released) = mpsc::channel::<()>();
        let (holds, held) = mpsc::channel();
        let disk = std::thread::spawn(move || {
            let _tail = lock(&first.tail);
            holds.send(()).unwrap();
            let _ = released.recv();
        });
        held.recv().unwrap();
        let consumer: BaseConsumer = config.create().unwrap();
        let mut from_start = TopicPartitionList::new();
        from_start.add_partition_offset("t", 0, Offset::Offset(0)).unwrap();
        consumer.assign(&from_start).unwrap();
        assert!(consumer.poll(Duration::from_millis(500)).is_none());
        let sent = send(&producer).await;
        drop(release);
        disk.join().unwrap();
        assert_eq!(sent.unwrap(), 3);
        assert_eq!(consumer.poll(PATIENCE).unwrap().unwrap().offset(), 0);
        drop(consumer);
        broker.stop().await.unwrap();
    }
}
