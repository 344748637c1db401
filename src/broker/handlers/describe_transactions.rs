//! DescribeTransactions (65), version 0 (KIP-664). Ids that do not fit into an answer of some size any more are answered
//! with an error that clients ask again after.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName, TransactionalId,
};

use super::asked::AnswerRoom;
use super::errors::KafkaError;
use super::text;
use crate::broker::node::Node;
use crate::broker::txn::TxnError;

/// State and partitions of transactions.
pub(crate) fn handle(node: &Node, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let mut asked = request.transactional_ids;
    asked.sort_unstable();
    asked.dedup();
    let mut room = AnswerRoom::new(node.limits.waiting_answer_bytes_max);
    let states = asked.into_iter().map(|id| describe(node, &id, &mut room).with_transactional_id(id));
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn describe(node: &Node, id: &TransactionalId, room: &mut AnswerRoom) -> TransactionState {
    let failed = |code: i16| TransactionState::default().with_error_code(code);
    if id.is_empty() {
        return failed(ResponseError::InvalidRequest.code());
    }
    let Some(known) = node.transactions.describe(id) else { return failed(TxnError::NotFound.code()) };
    if !room.take(known.bytes()) {
        // Asked for again, as this error is, it comes earlier.
        return failed(ResponseError::CoordinatorLoadInProgress.code());
    }
    let topics = known.partitions.into_iter().map(|(topic, indexes)| {
        TopicData::default().with_topic(TopicName(text(topic))).with_partitions(indexes.into_iter().collect())
    });
    TransactionState::default()
        .with_transaction_state(text(known.state.name()))
        .with_transaction_timeout_ms(known.timeout_ms)
        .with_transaction_start_time_ms(known.start_ms)
        .with_producer_id(ProducerId(known.producer.id))
        .with_producer_epoch(known.producer.epoch)
        .with_topics(topics.collect())
}
