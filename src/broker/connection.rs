//! One client: its requests one at a time and in order, its answers in the same order.
//!
//! An append does not wait for its sync here: the request is carried out, its answer is queued, and the next request
//! is read. So one client's pipelined appends share a sync. Must not know any API.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::answer::Answer;
use super::dispatch::{self, Client};
use super::frame::{FrameError, FrameReader};
use super::limits::Limits;
use super::node::Node;
use super::sender::Sender;

/// Answers of one connection that wait for their turn, at most; then no further request is read.
const ANSWERS_MAX: usize = 32;

/// Answers that wait for their turn, between the two halves of a connection.
///
/// Both run in one task, the reading half first: what it puts here is looked for in the same turn of that task, so
/// that nobody needs to be woken for it.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    sent: Notify,
}

#[derive(Default)]
struct Waiting {
    answers: VecDeque<Answer>,
    /// Of the answers that wait, and of the one that is being sent.
    bytes: usize,
    is_closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the next request may be carried out: a client that does not read gets no further answers made.
    async fn put(&self, answer: Answer, bytes_max: usize) {
        {
            let mut waiting = self.lock();
            waiting.bytes += answer.weight();
            waiting.answers.push_back(answer);
        }
        loop {
            {
                let waiting = self.lock();
                if waiting.bytes <= bytes_max && waiting.answers.len() < ANSWERS_MAX {
                    return;
                }
            }
            self.sent.notified().await;
        }
    }

    fn close(&self) {
        self.lock().is_closed = true;
    }

    fn try_take(&self) -> Option<Answer> {
        self.lock().answers.pop_front()
    }

    /// The next answer; None when there will be none.
    async fn take(&self) -> Option<Answer> {
        std::future::poll_fn(|_| {
            let mut waiting = self.lock();
            match waiting.answers.pop_front() {
                Some(answer) => Poll::Ready(Some(answer)),
                None if waiting.is_closed => Poll::Ready(None),
                // The reading half is what this task is woken for.
                None => Poll::Pending,
            }
        })
        .await
    }

    fn note_sent(&self, bytes: usize) {
        self.lock().bytes -= bytes;
        self.sent.notify_one();
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
    let queue = Queue::default();
    let frames = FrameReader::new(read_half, limits, node.requests.clone());
    let reading = async {
        let ended = tokio::select! {
            ended = read_requests(node, frames, Client { host }, limits, &queue) => ended,
            () = stop => Ok(()),
        };
        // Which tells the writing half to finish.
        queue.close();
        ended
    };
    let writing = write_answers(&queue, Sender::new(write_half, &limits));
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

async fn read_requests(
    node: Arc<Node>,
    mut frames: FrameReader<tokio::net::tcp::OwnedReadHalf>,
    client: Client,
    limits: Limits,
    queue: &Queue,
) -> Result<(), FrameError> {
    while let Some(frame) = frames.next().await? {
        let answer = Box::pin(dispatch::carry_out(&node, &client, frame)).await?;
        if !matches!(answer, Answer::Nothing) {
            queue.put(answer, limits.waiting_answer_bytes_max).await;
        }
    }
    Ok(())
}

async fn write_answers(queue: &Queue, mut sender: Sender) -> Result<(), FrameError> {
    loop {
        let answer = match queue.try_take() {
            Some(answer) => answer,
            None => {
                sender.flush().await?;
                match queue.take().await {
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
            Answer::Later(mut later, _) => {
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
        queue.note_sent(weight);
    }
}
