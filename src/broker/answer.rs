//! What a request leaves behind: the parts of its answer, and what holds them until they are sent.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::budget::Share;
use super::frame::FrameError;
use super::log::FileRange;

/// A part of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// These bytes.
    Bytes(Bytes),
    /// What lies there in a file.
    File(FileRange),
}

impl Part {
    pub(crate) fn len(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::File(range) => range.len(),
        }
    }
}

/// What a request leaves behind.
pub(crate) enum Answer {
    /// Send these bytes.
    Now(Bytes),
    /// Send these one after the other; what was copied for them holds a share of what all answers may take.
    Parts(Vec<Part>, Share),
    /// Send what this resolves to, of so many bytes, about; the next request may be carried out meanwhile.
    Later(BoxFuture<'static, Result<Bytes, FrameError>>, usize),
    /// Send nothing.
    Nothing,
}

impl Answer {
    /// Bytes that wait for their turn.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Answer::Now(bytes) => bytes.len(),
            Answer::Parts(parts, _) => parts.iter().map(Part::len).sum(),
            Answer::Later(_, bytes) => *bytes,
            Answer::Nothing => 0,
        }
    }
}
