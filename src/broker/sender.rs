//! The sending half of a connection: small answers gathered into one write, records sent from their file by the kernel
//! (`sendfile`), and a client given up that does not take what it asked for.
//!
//! Must not know any API.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

use super::answer::Part;
use super::aside::aside;
use super::frame::FrameError;
use super::limits::Limits;
use super::log::FileRange;

/// Small answers are gathered into one write up to this.
const GATHER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a file that are sent before others get their turn on this thread.
const PIECE_BYTES: usize = 1024 * 1024;
/// Bytes of a file that are read at once where the kernel does not send files.
const COPIED_PIECE_BYTES: usize = 128 * 1024;

/// What is being sent, and how long the client may take for it.
struct Delivery {
    began: Instant,
    within: Duration,
    bytes: usize,
    taken: usize,
}

/// Sends answers.
pub(super) struct Sender {
    socket: OwnedWriteHalf,
    /// A client that takes nothing for so long is given up.
    timeout: Duration,
    /// And so is one that takes a large answer slower than this.
    bytes_per_second_min: usize,
    gathered: BytesMut,
    /// The kernel sends this disk's files; false where it refused.
    sends_files: bool,
}

impl Sender {
    pub(super) fn new(socket: OwnedWriteHalf, limits: &Limits) -> Sender {
        Sender {
            socket,
            timeout: limits.request_timeout,
            bytes_per_second_min: limits.answer_rate_min,
            gathered: BytesMut::new(),
            sends_files: cfg!(target_os = "linux"),
        }
    }

    /// Sends bytes now or, if they are few, with what comes next or at the next `flush`.
    pub(super) async fn bytes(&mut self, bytes: &Bytes) -> Result<(), FrameError> {
        if bytes.len() + self.gathered.len() <= GATHER_BYTES_MAX {
            self.gathered.extend_from_slice(bytes);
            return Ok(());
        }
        let mut delivery = self.delivery(self.gathered.len() + bytes.len());
        self.write(bytes, &mut delivery).await
    }

    /// Sends what was gathered.
    pub(super) async fn flush(&mut self) -> Result<(), FrameError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut delivery = self.delivery(self.gathered.len());
        self.write(&[], &mut delivery).await
    }

    /// Sends the parts of one answer.
    pub(super) async fn parts(&mut self, parts: Vec<Part>) -> Result<(), FrameError> {
        if let [Part::Bytes(bytes)] = parts.as_slice() {
            return self.bytes(bytes).await;
        }
        let bytes = self.gathered.len() + parts.iter().map(Part::len).sum::<usize>();
        let mut delivery = self.delivery(bytes);
        // Fields of a few bytes between the records shall not travel as packets of their own.
        self.cork(true);
        for part in parts {
            match part {
                Part::Bytes(bytes) if bytes.len() + self.gathered.len() <= GATHER_BYTES_MAX => {
                    self.gathered.extend_from_slice(&bytes);
                }
                Part::Bytes(bytes) => self.write(&bytes, &mut delivery).await?,
                Part::File(range) => {
                    self.write(&[], &mut delivery).await?;
                    self.file(range, &mut delivery).await?;
                }
            }
        }
        self.write(&[], &mut delivery).await?;
        self.cork(false);
        Ok(())
    }

    fn delivery(&self, bytes: usize) -> Delivery {
        let at_least = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second_min.max(1) as f64);
        Delivery { began: Instant::now(), within: self.timeout + at_least, bytes, taken: 0 }
    }

    #[cfg(target_os = "linux")]
    fn cork(&self, on: bool) {
        // Costs packets if it fails, and nothing else.
        let _ = rustix::net::sockopt::set_tcp_cork(self.socket.as_ref(), on);
    }

    #[cfg(not(target_os = "linux"))]
    fn cork(&self, _on: bool) {}

    /// Writes what was gathered, and `bytes`.
    async fn write(&mut self, bytes: &[u8], delivery: &mut Delivery) -> Result<(), FrameError> {
        let gathered = self.gathered.split().freeze();
        let mut slices = [IoSlice::new(&gathered), IoSlice::new(bytes)];
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = self.socket.write_vectored(rest);
            match delivery.within_time(self.timeout, written).await? {
                0 => return Err(FrameError::Io(io::ErrorKind::WriteZero.into())),
                count => IoSlice::advance_slices(&mut rest, count),
            }
        }
        Ok(())
    }

    async fn file(&mut self, mut range: FileRange, delivery: &mut Delivery) -> Result<(), FrameError> {
        while !range.is_empty() {
            let piece = range.first(if self.sends_files { PIECE_BYTES } else { COPIED_PIECE_BYTES });
            let bytes = piece.len();
            // The kernel would wait for the disk on this thread, and everyone else with it.
            if !piece.is_cached() {
                let cold = piece.clone();
                aside(move || cold.warm()).await.map_err(FrameError::Records)?;
            }
            if !(self.sends_files && self.send_file(piece.clone(), delivery).await?) {
                let copied = piece.read().map_err(FrameError::Records)?;
                self.write(&copied, delivery).await?;
            }
            range.advance(bytes);
            if !range.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Has the kernel send it. False, with nothing sent, when it does not do that for this file.
    #[cfg(target_os = "linux")]
    async fn send_file(&mut self, mut range: FileRange, delivery: &mut Delivery) -> Result<bool, FrameError> {
        use rustix::io::Errno;
        let whole = range.clone();
        let Some(file) = whole.kernel_file() else { return Ok(false) };
        let socket: &tokio::net::TcpStream = self.socket.as_ref();
        while !range.is_empty() {
            let (position, bytes) = (range.position(), range.len());
            let sent = socket.async_io(tokio::io::Interest::WRITABLE, || {
                rustix::fs::sendfile(socket, file, Some(&mut { position }), bytes).map_err(io::Error::from)
            });
            match delivery.within_time(self.timeout, sent).await {
                // Who truncated the file has taken what the answer's length has promised.
                Ok(0) => return Err(FrameError::Records(range.ends_early())),
                Ok(count) => range.advance(count),
                Err(FrameError::Io(error)) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if position == whole.position() => {
                        self.sends_files = false;
                        return Ok(false);
                    }
                    Some(Errno::IO) => return Err(FrameError::Records(error)),
                    _ => return Err(FrameError::Io(error)),
                },
                Err(other) => return Err(other),
            }
        }
        Ok(true)
    }

    #[cfg(not(target_os = "linux"))]
    async fn send_file(&mut self, _range: FileRange, _delivery: &mut Delivery) -> Result<bool, FrameError> {
        Ok(false)
    }
}

impl Delivery {
    /// Counts what one write took; whoever takes a byte now and then is not there to read, either.
    async fn within_time(
        &mut self,
        timeout: Duration,
        written: impl Future<Output = io::Result<usize>>,
    ) -> Result<usize, FrameError> {
        let end = self.began + self.within;
        let deadline = (Instant::now() + timeout).min(end);
        match tokio::time::timeout_at(deadline, written).await {
            Ok(written) => {
                let count = written?;
                self.taken += count;
                Ok(count)
            }
            Err(_) if Instant::now() < end => Err(FrameError::Unread(timeout)),
            Err(_) => Err(FrameError::Slow { taken: self.taken, bytes: self.bytes, within: self.within }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kafka_protocol::records::{
        Compression, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchEncoder, RecordEncodeOptions,
        TimestampType,
    };
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use uuid::Uuid;

    use super::super::log::{Batches, Durability, Isolation, Log, LogSettings, PartitionConfig, PartitionId};
    use super::*;

    fn batch(bytes: usize) -> Bytes {
        let record = Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset: 0,
            sequence: NO_SEQUENCE,
            timestamp: 0,
            key: None,
            value: Some((0..bytes).map(|at| at as u8).collect()),
            headers: Default::default(),
        };
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut out, [&record], &options).unwrap();
        out.freeze()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn parts_arrive_whole_and_in_order_whether_the_kernel_sends_files_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let settings = LogSettings { durability: Durability::Os, journal_bytes_max: 1 << 20 };
        let (log, _) = Log::open(dir.path(), settings).unwrap();
        let config = PartitionConfig {
            segment_bytes_max: 1 << 30,
            segment_age_ms_max: 3_600_000,
            retention_bytes: None,
            retention_ms: None,
            batch_bytes_max: 8 << 20,
            log_append_time: false,
            compaction: None,
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: i64::MAX,
        };
        let id = PartitionId { topic_id: Uuid::from_u128(1), partition: 0 };
        let partition = log.create_partition(id, "t-0", config).unwrap();
        let appended = partition.append(batch(5 << 20), 0, 0).unwrap();
        partition.durable(&appended).await.unwrap();
        let Batches::InFile(range) =
            partition.find(0, usize::MAX, true, usize::MAX, Isolation::Uncommitted).unwrap().batches
        else {
            panic!("much is not copied")
        };
        let records = range.read().unwrap();
        for sends_files in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (_read_half, write_half) = listener.accept().await.unwrap().0.into_split();
            let mut sender = Sender::new(write_half, &Limits::default());
            sender.sends_files &= sends_files;
            let small = Bytes::from_static(b"small");
            let large = Bytes::from(vec![7; 3 * GATHER_BYTES_MAX]);
            let part = |bytes: &Bytes| Part::Bytes(bytes.clone());
            let parts =
                vec![part(&small), Part::File(range.clone()), part(&large), Part::File(range.first(9)), part(&small)];
            let expected = [&small, &small, &records, &large, &records.slice(..9), &small, &small].map(|b| b.to_vec());
            let sending = tokio::spawn(async move {
                sender.bytes(&small).await.unwrap();
                sender.parts(parts).await.unwrap();
                sender.bytes(&small).await.unwrap();
                sender.flush().await.unwrap();
            });
            let mut came = Vec::new();
            client.read_to_end(&mut came).await.unwrap();
            sending.await.unwrap();
            assert!(came == expected.concat(), "sends_files: {sends_files}");
        }
        log.close().await.unwrap();
    }
}
