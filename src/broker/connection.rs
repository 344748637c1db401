//! One client: its requests one at a time and in order, its answers in the same order.
//!
//! An append does not wait for its sync here: the request is carried out, its answer is queued, and the next request
//! is read. So one client's pipelined appends share a sync. Must not know any API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::answer::Answer;
use super::dispatch::{self, Client};
use super::frame::{FrameError, FrameReader};
use super::limits::Limits;
use super::node::Node;
use super::sender::Sender;

/// Answers of one connection that wait for their turn, at most; then no further request is read.
const ANSWERS_MAX: usize = 32;

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
    let (read_half, write_half) = socket.into_split();
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
    let writing = write_answers(receiver, Sender::new(write_half, &limits), &waiting);
    tokio::pin!(reading, writing);
    tokio::select! {
        // In this order, what was carried out just now is answered at once.
        biased;
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

async fn write_answers(
    mut answers: mpsc::Receiver<Answer>,
    mut sender: Sender,
    waiting: &Waiting,
) -> Result<(), FrameError> {
    loop {
        let answer = match answers.try_recv() {
            Ok(answer) => answer,
            Err(_) => {
                sender.flush().await?;
                match answers.recv().await {
                    Some(answer) => answer,
                    None => return Ok(()),
                }
            }
        };
        let weight = answer.weight();
        match answer {
            Answer::Now(bytes) => sender.bytes(&bytes).await?,
            Answer::Parts(parts, _share) => sender.parts(parts).await?,
            Answer::Nothing => {}
            Answer::Later(mut later) => {
                let bytes = tokio::select! {
                    biased;
                    bytes = &mut later => bytes?,
                    () = std::future::ready(()) => {
                        sender.flush().await?;
                        later.await?
                    }
                };
                sender.bytes(&bytes).await?;
            }
        }
        waiting.take(weight);
    }
}
