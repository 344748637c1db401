//! One client: its requests one at a time and in order, its answers in the same order.
//!
//! An append does not wait for its sync here: the request is carried out, its answer is queued, and the next request
//! is read. So one client's pipelined appends share a sync. Must not know any API.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::dispatch::{self, Client};
use super::frame::{FrameError, FrameReader};
use super::node::Node;
use super::server::Limits;

/// Answers of one connection that wait for their turn, at most; then no further request is read.
const ANSWERS_MAX: usize = 32;
/// Small answers are gathered into one write up to this.
const GATHER_BYTES_MAX: usize = 64 * 1024;

/// What a request leaves behind.
pub(crate) enum Answer {
    /// Send these bytes.
    Now(Bytes),
    /// Send what this resolves to; the next request may be carried out meanwhile.
    Later(BoxFuture<'static, Result<Bytes, FrameError>>),
    /// Send nothing.
    Nothing,
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
    let reading = async {
        // The sender goes with this block, which tells the writer to finish.
        let answers = sender;
        let requests = read_requests(node, FrameReader::new(read_half, limits), host, &answers);
        tokio::select! {
            ended = requests => ended,
            () = stop => Ok(()),
        }
    };
    let writing = write_answers(receiver, &mut write_half);
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

async fn read_requests(
    node: Arc<Node>,
    mut frames: FrameReader<tokio::net::tcp::OwnedReadHalf>,
    host: String,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), FrameError> {
    let client = Client { host };
    while let Some(frame) = frames.next().await? {
        let answer = Box::pin(dispatch::carry_out(&node, &client, frame)).await?;
        if !matches!(answer, Answer::Nothing) && answers.send(answer).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn write_answers(
    mut answers: mpsc::Receiver<Answer>,
    socket: &mut (impl AsyncWrite + Unpin),
) -> Result<(), FrameError> {
    let mut gathered = BytesMut::new();
    loop {
        let answer = match answers.try_recv() {
            Ok(answer) => answer,
            Err(_) => {
                flush(&mut gathered, socket).await?;
                match answers.recv().await {
                    Some(answer) => answer,
                    None => return Ok(()),
                }
            }
        };
        let bytes = match answer {
            Answer::Now(bytes) => bytes,
            Answer::Nothing => continue,
            Answer::Later(mut later) => {
                tokio::select! {
                    biased;
                    bytes = &mut later => bytes?,
                    () = std::future::ready(()) => {
                        flush(&mut gathered, socket).await?;
                        later.await?
                    }
                }
            }
        };
        if bytes.len() + gathered.len() > GATHER_BYTES_MAX {
            flush(&mut gathered, socket).await?;
            socket.write_all(&bytes).await?;
        } else {
            gathered.extend_from_slice(&bytes);
        }
    }
}

async fn flush(gathered: &mut BytesMut, socket: &mut (impl AsyncWrite + Unpin)) -> Result<(), FrameError> {
    if !gathered.is_empty() {
        socket.write_all(gathered).await?;
        gathered.clear();
    }
    Ok(())
}
