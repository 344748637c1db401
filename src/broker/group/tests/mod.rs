//! Groups without sockets: their state machine, and what they keep in the log.

mod durability;
mod states;
