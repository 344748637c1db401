//! What one client may take of the windows: a place among few, for a short time.
//!
//! Connections are bounded in number; further ones wait in the kernel's queue. So a place that nothing is done with
//! must become free: a request's head has a deadline, idle time between requests included, and so has each piece of an
//! answer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// A pause after a failed accept: file descriptors run out, and come back.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What clients may take; every bound has a name.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections: a browser or Prometheus needs a handful.
    pub connections_max: usize,
    /// Of these, viewers that follow the events: they stay, and Prometheus must still come in.
    pub viewers_max: usize,
    /// From the end of an answer, or the connection's beginning, to the end of the next request's head.
    pub head_timeout: Duration,
    /// For a client to take something of an answer.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 128,
            viewers_max: 96,
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// Accepts a connection only while a place is free.
pub(super) struct LimitedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    write_timeout: Duration,
}

/// A connection and the place that it takes until it is dropped.
pub(super) struct LimitedStream {
    stream: TcpStream,
    write_timeout: Duration,
    /// Runs while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl LimitedListener {
    pub(super) fn new(listener: TcpListener, limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.connections_max));
        LimitedListener { listener, places, write_timeout: limits.write_timeout }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) async fn accept(&self) -> LimitedStream {
        // The semaphore is never closed, so a missing permit cannot happen; it would only lift the limit.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    return LimitedStream { stream, write_timeout: self.write_timeout, stalled: None, _place: place };
                }
                Err(error) => {
                    tracing::debug!("cannot accept an HTTP connection: {error}; it is tried again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl LimitedStream {
    /// Passes on what a write came to; one that waits too long is an error.
    fn within<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.within(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.within(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
