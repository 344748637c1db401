//! Producer ids: each given out once in the life of the data directory.
//!
//! Ids are taken in blocks that are made durable before the first id of the block is given out; a crash wastes the
//! rest of a block, never repeats one. They are synced whatever the durability is: an id that came back after a power cut
//! would have its first batch taken for a retry of the batch that it once wrote.

use bytes::Bytes;
use tokio::sync::Mutex;

use super::log::{AppendError, Log};

const KEY: &[u8] = b"producer_ids/next";
const BLOCK_IDS: i64 = 1000;

#[derive(Debug)]
struct Block {
    next: i64,
    end: i64,
}

/// Gives out producer ids.
pub(crate) struct ProducerIds {
    log: Log,
    block: Mutex<Block>,
}

impl ProducerIds {
    /// Goes on behind the last block of the log's state.
    pub(crate) fn open(log: Log) -> Self {
        let stored = log.state(KEY).into_iter().next().and_then(|(_, value)| value.as_ref().try_into().ok());
        let next = stored.map_or(0, i64::from_be_bytes);
        ProducerIds { log, block: Mutex::new(Block { next, end: next }) }
    }

    /// An id that was never given out before.
    pub(crate) async fn next(&self) -> Result<i64, AppendError> {
        // A tokio lock: the block must be durable before anyone gets an id of it.
        let mut block = self.block.lock().await;
        if block.next == block.end {
            let end = block.end + BLOCK_IDS;
            let value = Bytes::copy_from_slice(&end.to_be_bytes());
            self.log.put_state_synced(vec![(Bytes::from_static(KEY), Some(value))]).await?;
            block.end = end;
        }
        block.next += 1;
        Ok(block.next - 1)
    }
}
