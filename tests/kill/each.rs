//! PostgreSQL, the broker and the consumer, each killed at random moments; and consumers of which one takes over from
//! another.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::behind::Behind;
use super::support::{self, Running, Sandbox, setting, wait_until};
use super::{let_it_run, moments, rounds};

const DEFAULT_RATE: u64 = 20_000;
/// The bar: from the restart of the same instance until everything is in PostgreSQL, p99.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(5);
/// The bar of a take-over: the session of the one that died, and 2 s.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(8);
/// Fewer say nothing about a p99.
const ENOUGH_ROUNDS: u64 = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    PostgreSql,
    Broker,
    Consumer,
}

/// A process a role, and the rate at which the producer sends.
struct Fleet {
    sandbox: Sandbox,
    listen: String,
    broker: Option<Running>,
    rate: u64,
}

impl Fleet {
    /// The broker; the consumer is up to the test.
    fn start() -> Fleet {
        let sandbox = Sandbox::new();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let rate = setting("FINSTREAM_TEST_KILL_RATE", DEFAULT_RATE);
        let mut fleet = Fleet { sandbox, listen: format!("127.0.0.1:{port}"), broker: None, rate };
        fleet.start_broker();
        fleet
    }

    fn start_broker(&mut self) {
        self.broker = Some(self.sandbox.spawn(&["--role", "broker", "--kafka-listen", &self.listen]));
    }

    fn consumer(&self) -> Running {
        self.sandbox.spawn(&["--role", "consumer"])
    }

    fn producer(&self) -> Running {
        self.sandbox.start(&["--role", "producer", "--rate", &self.rate.to_string()])
    }

    /// A quarter of a second's messages are on their way at any time.
    fn on_their_way(&self) -> i64 {
        (self.rate / 4).max(100) as i64
    }

    /// Everything stops well, and the books balance.
    fn end(self, producer: Running, consumers: Vec<Running>) {
        let (code, output) = producer.stop();
        assert_eq!(code, Some(0), "{output}");
        self.sandbox.expect(0, &["verify"]);
        assert_eq!(self.sandbox.sql("select count(*) from dead_letters"), "0", "an outage is not a bad message");
        for consumer in consumers {
            let (code, output) = consumer.stop();
            assert_eq!(code, Some(0), "{output}");
        }
        let (code, output) = self.broker.unwrap().stop();
        assert_eq!(code, Some(0), "{output}");
    }
}

#[test]
fn killing_any_service_at_any_moment_costs_a_moment_and_no_message() {
    let mut random = moments();
    let mut fleet = Fleet::start();
    let mut consumer = fleet.consumer();
    consumer.wait_ready();
    let producer = fleet.producer();
    let mut behind = Behind::new(&fleet.sandbox, &fleet.listen);
    let mut victims: Vec<Victim> =
        (0..rounds()).flat_map(|_| [Victim::PostgreSql, Victim::Broker, Victim::Consumer]).collect();
    let mut times: BTreeMap<Victim, Vec<Duration>> = BTreeMap::new();
    while !victims.is_empty() {
        let victim = victims.swap_remove(random.random_range(0..victims.len()));
        let_it_run(&mut random, 1_500);
        let killed = Instant::now();
        match victim {
            Victim::PostgreSql => {
                let before = fleet.sandbox.postmaster_pid();
                support::kill_by_id(before);
                // Its consumer starts it again; a pid of before must not be taken for the next one's.
                wait_until("PostgreSQL to be started again", || {
                    fleet.sandbox.postmaster_pid_now().is_some_and(|now| now != before)
                });
            }
            Victim::Broker => {
                fleet.broker.take().unwrap().kill();
                fleet.start_broker();
            }
            Victim::Consumer => {
                consumer.kill();
                consumer = fleet.consumer();
            }
        }
        behind.until_caught_up(fleet.on_their_way());
        times.entry(victim).or_default().push(killed.elapsed());
    }
    for (victim, times) in &mut times {
        print_figures(&format!("{victim:?} killed, restart to caught up"), times);
    }
    fleet.end(producer, vec![consumer]);
    if rounds() >= ENOUGH_ROUNDS {
        let slow = times.values().filter(|times| percentile(times, 99) > CAUGHT_UP_WITHIN).count();
        assert_eq!(slow, 0, "p99 above {CAUGHT_UP_WITHIN:?}");
    }
}

#[test]
fn a_consumer_that_is_killed_is_followed_by_another_within_its_session() {
    let mut random = moments();
    let fleet = Fleet::start();
    let mut consumers = vec![fleet.consumer(), fleet.consumer()];
    wait_until("both to have their partitions", || consumers.iter().all(Running::is_ready));
    let producer = fleet.producer();
    let mut behind = Behind::new(&fleet.sandbox, &fleet.listen);
    let mut times = Vec::new();
    for _ in 0..rounds().div_ceil(3) {
        let_it_run(&mut random, 1_000);
        let killed = Instant::now();
        consumers.swap_remove(random.random_range(0..consumers.len())).kill();
        behind.until_caught_up(fleet.on_their_way());
        times.push(killed.elapsed());
        let next = fleet.consumer();
        wait_until("the next one to have its partitions", || next.is_ready());
        consumers.push(next);
    }
    print_figures("a consumer killed, another has caught up", &mut times);
    fleet.end(producer, consumers);
    if rounds() >= ENOUGH_ROUNDS {
        assert!(percentile(&times, 99) <= TAKEN_OVER_WITHIN, "p99 above {TAKEN_OVER_WITHIN:?}");
    }
}

fn print_figures(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let seconds = |percent| percentile(times, percent).as_secs_f64();
    println!(
        "{what}, {} times: p50 {:.2} s, p99 {:.2} s, at most {:.2} s",
        times.len(),
        seconds(50),
        seconds(99),
        seconds(100)
    );
}

/// Of sorted times.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent).div_ceil(100).saturating_sub(1)]
}
