//! One client: its requests one at a time and in order, its answers in the same order.
//!
//! An append does not wait for its sync here: the request is carried out, its answer is queued, and the next request
//! is read. So one client's pipelined appends share a sync. Must not know any API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::budget::Share;
use super::dispatch::{self, Client};
use super::frame::{FrameError, FrameReader};
use super::limits::Limits;
use super::node::Node;

/// Answers of one connection that wait for their turn, at most; then no further request is read.
const ANSWERS_MAX: usize = 32;
/// Small answers are gathered into one write up to this.
const GATHER_BYTES_MAX: usize = 64 * 1024;

/// What a request leaves behind.
pub(crate) enum Answer {
    /// Send these bytes.
    Now(Bytes),
    /// Send these, which hold a share of what all answers may take.
    Held(Bytes, Share),
    /// Send what this resolves to; the next request may be carried out meanwhile.
    Later(BoxFuture<'static, Result<Bytes, FrameError>>),
    /// Send nothing.
    Nothing,
}

impl Answer {
    /// What it holds while it waits for its turn.
    fn weight(&self) -> usize {
        match self {
            Answer::Now(bytes) | Answer::Held(bytes, _) => bytes.len(),
            Answer::Later(_) | Answer::Nothing => 0,
        }
    }
}

/// Bytes of answers that wait for their turn.
#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    sent: Notify,
}

impl Waiting {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn take(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.sent.notify_one();
    }

    /// Resolves when no more than that waits: a client that does not read gets no further answers made.
    async fn below(&self, bytes_max: usize) {
        while self.bytes.load(Ordering::Acquire) > bytes_max {
            self.sent.notified().await;
        }
    }
}

/// Serves one client until it leaves, breaks the protocol, or `stop` resolves.
pub(crate) async fn serve(
    node: Arc<Node>,
    socket: TcpStream,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> Result<(), FrameError> {
    socket.set_nodelay(true)?;
    let host = socket.peer_addr()?.ip().to_string();
    let (read_half, mut write_half) = socket.into_split();
    let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
    let waiting = Waiting::default();
    let frames = FrameReader::new(read_half, limits, node.requests.clone());
    let reading = async {
        // The sender goes with this block, which tells the writer to finish.
        let answers = sender;
        let requests =
            read_requests(node, frames, Client { host }, limits, Queue { answers: &answers, waiting: &waiting });
        tokio::select! {
            ended = requests => ended,
            () = stop => Ok(()),
        }
    };
    let writer = Writer {
        socket: &mut write_half,
        timeout: limits.request_timeout,
        bytes_per_second_min: limits.answer_rate_min,
    };
    let writing = write_answers(receiver, writer, &waiting);
    tokio::pin!(reading, writing);
    tokio::select! {
        ended = &mut reading => {
            // What was appended is still answered.
            let written = writing.await;
            ended.and(written)
        }
        ended = &mut writing => ended,
    }
}

/// Where answers go, and what waits there.
struct Queue<'a> {
    answers: &'a mpsc::Sender<Answer>,
    waiting: &'a Waiting,
}

async fn read_requests(
    node: Arc<Node>,
    mut frames: FrameReader<tokio::net::tcp::OwnedReadHalf>,
    client: Client,
    limits: Limits,
    queue: Queue<'_>,
) -> Result<(), FrameError> {
    while let Some(frame) = frames.next().await? {
        let answer = Box::pin(dispatch::carry_out(&node, &client, frame.bytes)).await?;
        drop(frame.room);
        queue.waiting.add(answer.weight());
        if !matches!(answer, Answer::Nothing) && queue.answers.send(answer).await.is_err() {
            break;
        }
        queue.waiting.below(limits.waiting_answer_bytes_max).await;
    }
    Ok(())
}

async fn write_answers<W: AsyncWrite + Unpin>(
    mut answers: mpsc::Receiver<Answer>,
    mut writer: Writer<'_, W>,
    waiting: &Waiting,
) -> Result<(), FrameError> {
    let mut gathered = BytesMut::new();
    loop {
        let answer = match answers.try_recv() {
            Ok(answer) => answer,
            Err(_) => {
                writer.flush(&mut gathered).await?;
                match answers.recv().await {
                    Some(answer) => answer,
                    None => return Ok(()),
                }
            }
        };
        let weight = answer.weight();
        let (bytes, _share) = match answer {
            Answer::Now(bytes) => (bytes, None),
            Answer::Held(bytes, share) => (bytes, Some(share)),
            Answer::Nothing => continue,
            Answer::Later(mut later) => {
                let bytes = tokio::select! {
                    biased;
                    bytes = &mut later => bytes?,
                    () = std::future::ready(()) => {
                        writer.flush(&mut gathered).await?;
                        later.await?
                    }
                };
                (bytes, None)
            }
        };
        if bytes.len() + gathered.len() > GATHER_BYTES_MAX {
            writer.flush(&mut gathered).await?;
            writer.write(&bytes).await?;
        } else {
            gathered.extend_from_slice(&bytes);
        }
        waiting.take(weight);
    }
}

/// The sending half; a client that takes nothing for `timeout` is given up, and so is one that takes a large answer too
/// slowly.
struct Writer<'a, W> {
    socket: &'a mut W,
    timeout: Duration,
    bytes_per_second_min: usize,
}

impl<W: AsyncWrite + Unpin> Writer<'_, W> {
    async fn flush(&mut self, gathered: &mut BytesMut) -> Result<(), FrameError> {
        self.write(gathered).await?;
        gathered.clear();
        Ok(())
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        let all = bytes.len();
        let within = self.timeout + Duration::from_secs_f64(all as f64 / self.bytes_per_second_min.max(1) as f64);
        let began = Instant::now();
        while !bytes.is_empty() {
            // Whoever takes a byte now and then is not there to read, either.
            let deadline = (Instant::now() + self.timeout).min(began + within);
            let written = tokio::time::timeout_at(deadline, self.socket.write(bytes)).await;
            let gone = |_| match Instant::now() < began + within {
                true => FrameError::Unread(self.timeout),
                false => FrameError::Slow { taken: all - bytes.len(), bytes: all, within },
            };
            match written.map_err(gone)?? {
                0 => return Err(FrameError::Io(std::io::ErrorKind::WriteZero.into())),
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }
}
