//! A batch of transactions of one partition -> what it adds to each total.
//!
//! Owns the arithmetic of the totals: what counts as spend, what as a refund, which price is the last one,
//! which window an event belongs to and when it is late. Pure: must
//! know neither Kafka nor SQL nor a runtime, so that the sink, the replay of a dead letter and the audit can all lean
//! on the same sums.

mod delta;
mod exact;
mod window;

pub use delta::{Deltas, Event, Kind, LastPrice, SymbolDelta, UserDelta, aggregate};
pub use exact::{ExactSum, NotExact};
pub use window::{CategoryWindowDelta, Late, SymbolWindowDelta, WindowLength, Windowing};
