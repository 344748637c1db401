//! Which APIs in which versions: the one table that ApiVersions advertises and the dispatcher obeys.
//!
//! Hard-coded, because `ApiKey::valid_versions()` of `kafka-protocol` 0.18 overstates what its messages can decode.
//! What needs the second part of KIP-890 (EndTxn 5, TxnOffsetCommit 5) is left out.

use kafka_protocol::messages::ApiKey;

use super::schema::Schema;
use super::schemas as shape;

/// One row: an API and what we take of it.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    /// Name in metrics.
    pub(crate) name: &'static str,
    /// First version that is answered.
    pub(crate) min: i16,
    /// Last version that is answered.
    pub(crate) max: i16,
    pub(crate) schema: &'static Schema,
}

const fn api(key: ApiKey, name: &'static str, min: i16, max: i16, schema: &'static Schema) -> Api {
    Api { key, name, min, max, schema }
}

/// Everything that is answered.
pub(crate) static APIS: [Api; 34] = [
    api(ApiKey::Produce, "Produce", 3, 12, &shape::PRODUCE),
    api(ApiKey::Fetch, "Fetch", 4, 17, &shape::FETCH),
    api(ApiKey::ListOffsets, "ListOffsets", 1, 9, &shape::LIST_OFFSETS),
    api(ApiKey::Metadata, "Metadata", 0, 13, &shape::METADATA),
    api(ApiKey::OffsetCommit, "OffsetCommit", 2, 9, &shape::OFFSET_COMMIT),
    api(ApiKey::OffsetFetch, "OffsetFetch", 1, 9, &shape::OFFSET_FETCH),
    api(ApiKey::FindCoordinator, "FindCoordinator", 0, 6, &shape::FIND_COORDINATOR),
    api(ApiKey::JoinGroup, "JoinGroup", 0, 9, &shape::JOIN_GROUP),
    api(ApiKey::Heartbeat, "Heartbeat", 0, 4, &shape::HEARTBEAT),
    api(ApiKey::LeaveGroup, "LeaveGroup", 0, 5, &shape::LEAVE_GROUP),
    api(ApiKey::SyncGroup, "SyncGroup", 0, 5, &shape::SYNC_GROUP),
    api(ApiKey::DescribeGroups, "DescribeGroups", 0, 6, &shape::DESCRIBE_GROUPS),
    api(ApiKey::ListGroups, "ListGroups", 0, 5, &shape::LIST_GROUPS),
    api(ApiKey::ApiVersions, "ApiVersions", 0, 4, &shape::API_VERSIONS),
    api(ApiKey::CreateTopics, "CreateTopics", 2, 7, &shape::CREATE_TOPICS),
    api(ApiKey::DeleteTopics, "DeleteTopics", 1, 6, &shape::DELETE_TOPICS),
    api(ApiKey::DeleteRecords, "DeleteRecords", 0, 2, &shape::DELETE_RECORDS),
    api(ApiKey::InitProducerId, "InitProducerId", 0, 5, &shape::INIT_PRODUCER_ID),
    api(ApiKey::AddPartitionsToTxn, "AddPartitionsToTxn", 0, 3, &shape::ADD_PARTITIONS_TO_TXN),
    api(ApiKey::AddOffsetsToTxn, "AddOffsetsToTxn", 0, 4, &shape::ADD_OFFSETS_TO_TXN),
    api(ApiKey::EndTxn, "EndTxn", 0, 4, &shape::END_TXN),
    api(ApiKey::WriteTxnMarkers, "WriteTxnMarkers", 1, 1, &shape::WRITE_TXN_MARKERS),
    api(ApiKey::TxnOffsetCommit, "TxnOffsetCommit", 0, 4, &shape::TXN_OFFSET_COMMIT),
    api(ApiKey::OffsetForLeaderEpoch, "OffsetForLeaderEpoch", 2, 4, &shape::OFFSET_FOR_LEADER_EPOCH),
    api(ApiKey::DescribeConfigs, "DescribeConfigs", 1, 4, &shape::DESCRIBE_CONFIGS),
    api(ApiKey::AlterConfigs, "AlterConfigs", 0, 2, &shape::ALTER_CONFIGS),
    api(ApiKey::CreatePartitions, "CreatePartitions", 0, 3, &shape::CREATE_PARTITIONS),
    api(ApiKey::DeleteGroups, "DeleteGroups", 0, 2, &shape::DELETE_GROUPS),
    api(ApiKey::IncrementalAlterConfigs, "IncrementalAlterConfigs", 0, 1, &shape::INCREMENTAL_ALTER_CONFIGS),
    api(ApiKey::OffsetDelete, "OffsetDelete", 0, 0, &shape::OFFSET_DELETE),
    api(ApiKey::DescribeCluster, "DescribeCluster", 0, 2, &shape::DESCRIBE_CLUSTER),
    api(ApiKey::DescribeProducers, "DescribeProducers", 0, 0, &shape::DESCRIBE_PRODUCERS),
    api(ApiKey::DescribeTransactions, "DescribeTransactions", 0, 0, &shape::DESCRIBE_TRANSACTIONS),
    api(ApiKey::ListTransactions, "ListTransactions", 0, 1, &shape::LIST_TRANSACTIONS),
];

impl Api {
    /// The row of an API key as it stands on the wire.
    pub(crate) fn find(key: i16) -> Option<&'static Api> {
        APIS.iter().find(|api| api.key as i16 == key)
    }

    /// Whether requests of `version` are answered.
    pub(crate) fn takes(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// The first version in ApiVersions. librdkafka before 2.11.1 turns compression off silently unless Produce v0 is
    /// advertised, so we advertise it and reject 0-2, as Apache Kafka 4 does (KAFKA-18659).
    pub(crate) fn advertised_min(&self) -> i16 {
        if self.key == ApiKey::Produce { 0 } else { self.min }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use kafka_protocol::messages::RequestKind;

    use super::super::sample;
    use super::*;

    #[test]
    fn every_table_agrees_with_the_decoder_in_every_version() {
        for api in &APIS {
            for version in api.min..=api.max {
                for elements in 0..3 {
                    let body = sample::body(api.schema, version, elements, &mut Vec::new());
                    let name = format!("{} v{version} with {elements}", api.name);
                    assert_eq!(api.schema.check(&body, version), Ok(()), "{name}");
                    let mut bytes = Bytes::from(body);
                    RequestKind::decode(api.key, &mut bytes, version).unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert!(bytes.is_empty(), "{name}: {} bytes left", bytes.len());
                }
            }
        }
    }

    #[test]
    fn every_truncation_of_every_request_is_refused() {
        for api in &APIS {
            for version in api.min..=api.max {
                let body = sample::body(api.schema, version, 2, &mut Vec::new());
                for length in 0..body.len() {
                    assert!(
                        api.schema.check(&body[..length], version).is_err(),
                        "{} v{version} cut at {length}",
                        api.name
                    );
                }
            }
        }
    }

    #[test]
    fn whatever_forged_count_passes_is_decoded_without_a_huge_allocation() {
        let forged: [&[u8]; 4] = [
            &[0x7f, 0xff, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0x7f],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x00, 0xff, 0xff, 0xff],
        ];
        for api in &APIS {
            for version in api.min..=api.max {
                let mut lengths = Vec::new();
                let body = sample::body(api.schema, version, 2, &mut lengths);
                assert!(!lengths.is_empty() || body.len() < 8, "{} v{version}", api.name);
                // At every byte, hence at every count and length, nested ones too.
                for at in 0..body.len() {
                    for pattern in forged {
                        let mut frame = body.clone();
                        frame.splice(at..(at + pattern.len()).min(body.len()), pattern.iter().copied());
                        // An allocation from a forged count would end this process: over a hundred gigabytes.
                        if api.schema.check(&frame, version).is_ok() {
                            let _ = RequestKind::decode(api.key, &mut Bytes::from(frame), version);
                        }
                    }
                }
            }
        }
    }
}
