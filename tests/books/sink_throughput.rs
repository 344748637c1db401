//! How many rows a second one worker writes. Ignored: a figure for `docs/MEASUREMENTS.md`, not a claim to check.
//! `FINSTREAM_TEST_FSYNC=on cargo test --release --test books sink_throughput -- --ignored --nocapture`

use std::time::{Duration, Instant};

use crate::sink_support::{Schema, message, patience, purchase};
use finstream::sink::Batch;
use rand::SeedableRng;
use rand_distr::{Distribution, Zipf};

const BATCHES: usize = 100;
const USERS: f64 = 10_000.0;

#[tokio::test]
#[ignore = "a measurement"]
async fn rows_a_second_of_one_worker() {
    for (batch_messages, partitions) in [(1_000, 6), (5_000, 6), (20_000, 6), (5_000, 1)] {
        let schema = Schema::create().await;
        let topic_ref = schema.stream(partitions).await;
        let owned: Vec<i32> = (0..partitions).collect();
        let mut worker = schema.worker(topic_ref, "i", &owned).await;
        let mut random = rand_chacha_seeded();
        let zipf = Zipf::new(USERS, 1.0).unwrap();
        let mut next = vec![0i64; partitions as usize];
        let mut storing = Duration::ZERO;
        for _ in 0..BATCHES {
            let mut batch = Batch::new();
            for _ in 0..batch_messages {
                let user: f64 = zipf.sample(&mut random);
                let partition = user as usize % partitions as usize;
                let message = message(partition as i32, next[partition]);
                let mut transaction = purchase("", 1_234);
                transaction.transaction_id =
                    finstream::transaction::derived_transaction_id(message.identity.unwrap()).into();
                transaction.user_id = format!("user-{user:05}").into();
                batch.push_transaction(message, &transaction);
                next[partition] += 1;
            }
            let started = Instant::now();
            worker.store(&batch, &mut patience().1).await.unwrap();
            storing += started.elapsed();
        }
        let rows = (BATCHES * batch_messages) as f64;
        println!(
            "{batch_messages} a batch, {partitions} partitions: {:.0} rows/s, {:.2} ms a batch",
            rows / storing.as_secs_f64(),
            storing.as_secs_f64() * 1e3 / BATCHES as f64
        );
    }
}

fn rand_chacha_seeded() -> rand::rngs::ChaCha8Rng {
    rand::rngs::ChaCha8Rng::seed_from_u64(7)
}
