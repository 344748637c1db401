//! Starts the chosen roles, stops them in order, and carries out the other commands.

pub mod console;
pub mod figures;
pub mod summary;
