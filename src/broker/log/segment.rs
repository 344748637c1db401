//! One segment: a file of raw batches, its offset index, and the few numbers that retention and recovery need.
//!
//! Only the writer appends. Readers hold the segment's `Arc`, so a file that retention removed stays readable for them.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::aborted_index::AbortedIndex;
use super::batch::BatchHeader;
use super::codec::{Decoder, Encoder, Format};
use super::disk::{Disk, DiskFile, OpenMode};
use super::header_walk::HeaderWalk;
use super::lock;
use super::offset_index::{IndexMark, OffsetIndex};
use super::open_transactions::{AbortedTransaction, OpenTransaction};
use super::producer_state::{decode_open, encode_open};
use super::queue::PendingBatch;
use super::segment_name::SegmentName;

/// What a checkpoint says about a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentSnapshot {
    pub base_offset: i64,
    /// How often compaction has written it anew: 0 holds what was appended. Part of the file's name.
    pub generation: u32,
    pub length: u64,
    pub max_timestamp: i64,
    /// Wall clock of the first append, for closing by age.
    pub opened_ms: i64,
    /// Wall clock of the last append, for retention by time.
    pub last_append_ms: i64,
    pub index: IndexMark,
    pub aborted: IndexMark,
    /// The transactions that are open where it begins: it alone tells of its aborted ones, whatever becomes of those
    /// before it.
    pub open: Arc<[OpenTransaction]>,
}

impl SegmentSnapshot {
    /// In a checkpoint of the first format, which is the shortest.
    pub const BYTES_MIN: usize = 5 * 8 + 2 * 4;

    /// `open`: the transactions that are open where it begins.
    pub fn empty(name: SegmentName, now_ms: i64, open: Arc<[OpenTransaction]>) -> Self {
        SegmentSnapshot {
            base_offset: name.base_offset,
            generation: name.generation,
            length: 0,
            max_timestamp: -1,
            opened_ms: now_ms,
            last_append_ms: now_ms,
            index: IndexMark::default(),
            aborted: IndexMark::default(),
            open,
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put(&self.base_offset.to_le_bytes());
        out.put(&self.length.to_le_bytes());
        out.put(&self.max_timestamp.to_le_bytes());
        out.put(&self.opened_ms.to_le_bytes());
        out.put(&self.last_append_ms.to_le_bytes());
        out.put(&self.index.entries.to_le_bytes());
        out.put(&self.index.crc.to_le_bytes());
        out.put(&self.generation.to_le_bytes());
        out.put(&self.aborted.entries.to_le_bytes());
        out.put(&self.aborted.crc.to_le_bytes());
        encode_open(out, self.open.iter().copied());
    }

    pub fn decode(decoder: &mut Decoder<'_>, format: Format) -> Option<Self> {
        let mut snapshot = SegmentSnapshot {
            generation: 0,
            base_offset: decoder.i64()?,
            length: decoder.u64()?,
            max_timestamp: decoder.i64()?,
            opened_ms: decoder.i64()?,
            last_append_ms: decoder.i64()?,
            index: IndexMark { entries: decoder.u32()?, crc: decoder.u32()? },
            aborted: IndexMark::default(),
            open: Arc::default(),
        };
        if format >= Format::Two {
            snapshot.generation = decoder.u32()?;
            snapshot.aborted = IndexMark { entries: decoder.u32()?, crc: decoder.u32()? };
            snapshot.open = decode_open(decoder)?.into();
        }
        Some(snapshot)
    }

    /// What its file is called.
    pub fn name(&self) -> SegmentName {
        SegmentName { base_offset: self.base_offset, generation: self.generation }
    }
}

/// A batch to be counted.
pub(super) struct Noted<'a> {
    pub header: &'a BatchHeader,
    pub total_bytes: usize,
    pub now_ms: i64,
    /// The transaction that it aborted.
    pub aborted: Option<AbortedTransaction>,
}

struct Tail {
    now: SegmentSnapshot,
    /// None: on disk only; loaded (or rebuilt) when it is needed.
    index: Option<OffsetIndex>,
    aborted: Option<AbortedIndex>,
    index_used: bool,
    /// Holds bytes, or a cut, that are not synced.
    dirty: bool,
}

/// One open segment.
pub(super) struct Segment {
    pub base_offset: i64,
    pub generation: u32,
    pub file: Arc<dyn DiskFile>,
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    tail: Mutex<Tail>,
}

impl Segment {
    /// A new, empty file. One that is there already is from a life that ended before it was promised.
    pub fn create(disk: &Arc<dyn Disk>, directory: &Path, empty: SegmentSnapshot) -> io::Result<Segment> {
        let file = disk.open(&directory.join(empty.name().log()), OpenMode::Truncate)?;
        Ok(Self::new(disk, directory, file, empty, Some(OffsetIndex::default())))
    }

    /// An existing file of at least the length of the snapshot. Its content is not looked at.
    pub fn open(disk: &Arc<dyn Disk>, directory: &Path, snapshot: SegmentSnapshot) -> io::Result<Segment> {
        let path = directory.join(snapshot.name().log());
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
        let tail = Mutex::new(Tail { now: now.clone(), index, aborted: None, index_used: false, dirty: true });
        let SegmentName { base_offset, generation } = now.name();
        Segment { base_offset, generation, file, disk: disk.clone(), directory: directory.to_owned(), tail }
    }

    pub fn name(&self) -> SegmentName {
        SegmentName { base_offset: self.base_offset, generation: self.generation }
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.join(self.name().log())
    }

    pub fn index_path(&self) -> PathBuf {
        self.directory.join(self.name().index())
    }

    pub fn aborted_path(&self) -> PathBuf {
        self.directory.join(self.name().aborted())
    }

    /// All files of it, with their kinds.
    pub fn files(&self) -> impl Iterator<Item = (PathBuf, &'static str)> {
        let kinds = std::iter::once("log").chain(SegmentName::INDEX_KINDS);
        kinds.map(|kind| (self.directory.join(self.name().file(kind)), kind))
    }

    pub fn length(&self) -> u64 {
        lock(&self.tail).now.length
    }

    pub fn snapshot(&self) -> SegmentSnapshot {
        lock(&self.tail).now.clone()
    }

    /// Makes sure that the indexes are in memory, without which nothing can be added.
    ///
    /// # Errors
    /// Those of reading; `InvalidData` when they are lost, and a batch has rotted that they would be made from.
    pub fn load_indexes(&self) -> io::Result<()> {
        let mut tail = lock(&self.tail);
        self.load_index(&mut tail)?;
        self.load_aborted(&mut tail)
    }

    /// Whether the indexes are in memory.
    pub fn has_indexes_at_hand(&self) -> bool {
        let tail = lock(&self.tail);
        tail.index.is_some() && tail.aborted.is_some()
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

    /// Writes whole batches behind the last one, likewise. By compaction, to a segment that nobody else knows yet.
    pub fn write_bytes(&self, batches: &[u8]) -> io::Result<()> {
        self.file.write_all_at(&[batches], self.length())
    }

    /// Counts batches that lie in the file behind the last one that was counted. After an error nothing was asked of
    /// `batches`.
    pub fn note<'a>(&self, batches: impl Iterator<Item = Noted<'a>>) -> io::Result<()> {
        let mut tail = lock(&self.tail);
        self.load_index(&mut tail)?;
        self.load_aborted(&mut tail)?;
        let Tail { now, index, aborted: aborted_index, dirty, .. } = &mut *tail;
        for Noted { header, total_bytes, now_ms, aborted } in batches {
            if let (Some(index), Some(aborted)) = (&mut *aborted_index, aborted) {
                index.note(aborted);
            }
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
        let tail = lock(&self.tail);
        tail.index.as_ref().map(|index| index.position_of(relative).min(tail.now.length))
    }

    /// The last indexed batch that begins neither behind `position` nor behind `offset`.
    pub fn last_within(&self, position: u64, offset: i64) -> io::Result<u64> {
        let relative = offset.saturating_sub(self.base_offset).max(0) as u64;
        self.with_index(|index| index.last_within(position, relative))
    }

    /// An offset that no record before `position` reaches; none when only the segment's end is known to be one.
    pub fn offset_from(&self, position: u64) -> io::Result<Option<i64>> {
        let mut tail = lock(&self.tail);
        self.load_index(&mut tail)?;
        let relative = tail.index.as_ref().and_then(|index| index.offset_from(position));
        Ok(relative.map(|relative| self.base_offset.saturating_add(i64::from(relative))))
    }

    /// Where to begin to look for the first batch with a timestamp of at least `timestamp_ms`.
    pub fn position_of_time(&self, timestamp_ms: i64) -> io::Result<u64> {
        self.with_index(|index| index.position_of_time(timestamp_ms))
    }

    fn with_index(&self, look: impl FnOnce(&OffsetIndex) -> u64) -> io::Result<u64> {
        let mut tail = lock(&self.tail);
        self.load_index(&mut tail)?;
        tail.index_used = true;
        // An index that points beyond the end finds nothing.
        let position = tail.index.as_ref().map(look).ok_or(ErrorKind::NotFound)?;
        Ok(position.min(tail.now.length))
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

    /// Adds to `found` the aborted transactions that a reader of the offsets from `from` up to `to` must know, as far
    /// as their markers lie here. True: no later segment knows of more.
    pub fn collect_aborted(&self, from: i64, to: i64, found: &mut Vec<AbortedTransaction>) -> io::Result<bool> {
        let mut tail = lock(&self.tail);
        // Whatever ends from here on began behind what is asked for.
        if self.base_offset >= to && tail.now.open.iter().all(|open| open.first_offset >= to) {
            return Ok(true);
        }
        self.load_aborted(&mut tail)?;
        tail.index_used = true;
        Ok(tail.aborted.as_ref().is_some_and(|aborted| aborted.collect(from, to, found)))
    }

    /// Finds the aborted transactions in what was written, for a segment that was not told of them.
    pub fn find_aborted(&self) -> io::Result<()> {
        let mut tail = lock(&self.tail);
        tail.aborted = Some(AbortedIndex::rebuild(&*self.file, tail.now.length, &tail.now.open)?);
        Ok(())
    }

    fn load_aborted(&self, tail: &mut Tail) -> io::Result<()> {
        if tail.aborted.is_some() {
            return Ok(());
        }
        let (path, mark) = (self.aborted_path(), tail.now.aborted);
        let stored = AbortedIndex::load(&*self.disk, &path, mark);
        if stored.is_none() {
            tracing::warn!("rebuilding the index of aborted transactions {}", path.display());
            let index = AbortedIndex::rebuild(&*self.file, tail.now.length, &tail.now.open)?;
            let rebuilt = index.mark(IndexMark::default());
            if rebuilt != mark {
                tracing::error!("{} does not hold the aborted transactions that it did", self.log_path().display());
            }
            tail.now.aborted = self.persist_aborted(&index, IndexMark::default());
            tail.aborted = Some(index);
        } else {
            tail.aborted = stored;
        }
        Ok(())
    }

    /// What the file shall hold; if it cannot be stored, that tells, and it is rebuilt later.
    fn persist_aborted(&self, index: &AbortedIndex, held: IndexMark) -> IndexMark {
        if let Err(error) = index.persist(&*self.disk, &self.aborted_path(), held) {
            tracing::warn!("cannot write {}: {error}; it will be rebuilt", self.aborted_path().display());
        }
        index.mark(held)
    }

    /// What a checkpoint says about this segment, and whether it must be synced before it says so. Stores the index as
    /// far as it goes.
    pub fn checkpoint(&self) -> (SegmentSnapshot, bool) {
        let mut tail = lock(&self.tail);
        let Tail { now, index, aborted, dirty, .. } = &mut *tail;
        if let (true, Some(index)) = (*dirty, index) {
            now.index = self.persist(index, now.index);
        }
        if let (true, Some(aborted)) = (*dirty, aborted) {
            now.aborted = self.persist_aborted(aborted, now.aborted);
        }
        (now.clone(), std::mem::take(dirty))
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
            tail.aborted = None;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::producer::{FutureProducer, FutureRecord};
    use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

    use super::super::lock;
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
        let settings = BrokerSettings::limited(dir.path().to_owned());
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
