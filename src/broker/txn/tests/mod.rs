//! The coordinator without sockets: its state machine, and what it makes of a log.

mod recovery;
mod refusals;
mod states;
