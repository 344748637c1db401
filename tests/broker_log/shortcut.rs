//! Appends that whoever appends writes: at once where no disk is needed, in order with all that the writer does.

use std::collections::BTreeMap;

use finstream::broker::log::{Durability, Log};
use futures_util::FutureExt;

use crate::support::*;

#[tokio::test]
async fn with_os_an_append_can_be_read_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path(), settings(Durability::Os)).unwrap();
    let partition = create(&log, 0);
    // The first one makes the segment, which is the writer's.
    put(&partition, BatchOf::records(1).bytes()).await;
    let mut at_once = 0;
    for offset in 1..200 {
        let appended = log.append(&partition, BatchOf::records(1).bytes(), 5, NOW_MS).unwrap();
        assert_eq!(appended.base_offset, offset);
        // Unless this machine was so busy that a write took long, which leaves the next ones to the writer.
        if partition.durable(&appended).now_or_never() == Some(Ok(())) {
            at_once += 1;
            assert_eq!(partition.high_watermark(), offset + 1);
        }
        partition.durable(&appended).await.unwrap();
    }
    assert!(at_once > 0);
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_of_all_ways_at_once_get_every_offset_once_and_keep_the_order_of_each_client() {
    const CLIENTS: u8 = 4;
    const EACH: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    for durability in [Durability::Os, Durability::Fsync] {
        let (log, _) = Log::open(&dir.path().join(format!("{durability:?}")), settings(durability)).unwrap();
        let partitions = [create(&log, 0), create(&log, 1)];
        let clients = (0..CLIENTS).map(|client| {
            let (log, partitions) = (log.clone(), partitions.clone());
            tokio::spawn(async move {
                let mut sent = Vec::new();
                for number in 0..EACH {
                    let which = number % 2;
                    // Now and then larger than what is written at once, and larger than a segment's rest.
                    let value_bytes = if number % 50 == 49 { 90_000 } else { 20 + usize::from(client) };
                    let batch = BatchOf { value_bytes, ..BatchOf::records(1 + number % 3) }.bytes();
                    let appended = match number % 3 {
                        0 => partitions[which].append(batch.clone(), 5, NOW_MS),
                        _ => log.append(&partitions[which], batch.clone(), 5, NOW_MS),
                    }
                    .unwrap();
                    if number % 20 == 7 {
                        log.put_state(vec![(vec![client].into(), Some(vec![number as u8].into()))]).await.unwrap();
                    }
                    if number % 7 == 3 {
                        partitions[which].durable(&appended).await.unwrap();
                    }
                    sent.push((which, appended, as_sent(&batch)));
                }
                for (which, appended, _) in &sent {
                    partitions[*which].durable(appended).await.unwrap();
                }
                sent
            })
        });
        let sent = futures_util::future::join_all(clients).await;
        for (which, partition) in partitions.iter().enumerate() {
            let mut expected = BTreeMap::new();
            for client in &sent {
                let mine = client.as_ref().unwrap().iter().filter(|(to, ..)| *to == which);
                let mut last = -1;
                for (_, appended, bytes) in mine {
                    assert!(appended.base_offset > last, "{durability:?}: a client's batches changed places");
                    last = appended.last_offset;
                    assert!(expected.insert(appended.base_offset, bytes.clone()).is_none());
                }
            }
            let found: BTreeMap<_, _> = batches_from(partition, 0).into_iter().collect();
            assert!(found == expected, "{durability:?}, partition {which}");
        }
        log.close().await.unwrap();
    }
}
