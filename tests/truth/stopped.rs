//! A consumer that is stopped (SIGSTOP) at a seam: the others go on, and it is fenced when it is let go.

use std::time::{Duration, Instant};

use finstream::seam::{Action, Failpoint, Seam};

use super::drive::{REACHED, words_of};
use super::support::{Running, Sandbox, Signal, wait_until};
use super::world::{Lane, World, until};
use super::{alone, published};

/// The bar: the session of a member, and 2 s for the rest.
const GO_ON_WITHIN: Duration = Duration::from_secs(8);
/// On top of it, for a machine that has six of these at once and other things to do.
const BUSY: Duration = Duration::from_secs(4);
const READY_WITHIN: Duration = Duration::from_secs(30);
const SAID_WITHIN: Duration = Duration::from_secs(20);
/// At the same time: they wait for the end of a session, all of them.
const LANES: usize = 6;

#[test]
fn a_consumer_stopped_at_any_seam_is_fenced_and_the_others_go_on_within_its_session() {
    let _alone = alone();
    let world = World::start();
    let mut times = Vec::new();
    for seams in Seam::ALL.chunks(LANES) {
        std::thread::scope(|scope| {
            let stops: Vec<_> = seams.iter().map(|seam| (seam, scope.spawn(|| stop_at(&world, *seam)))).collect();
            for (seam, stop) in stops {
                let time = stop.join().unwrap().unwrap_or_else(|why| panic!("stopped at {seam}: {why}"));
                println!("stopped at {seam:22}: the others have everything after {:.2} s", time.as_secs_f64());
                times.push(time);
            }
        });
    }
    let longest = times.into_iter().max().unwrap();
    println!("the longest: {:.2} s, the bar is {GO_ON_WITHIN:?}", longest.as_secs_f64());
    assert!(longest <= GO_ON_WITHIN + BUSY, "{longest:?}");
}

/// What it had read lies between it and its writer when it is let go: the writer finds the fence before the group tells of it.
#[test]
fn a_consumer_stopped_under_load_reads_what_it_is_given_again() {
    let _alone = alone();
    let sandbox = Sandbox::new();
    let first = sandbox.start(&["--rate", "500"]);
    let second = sandbox.start(&["--role", "consumer"]);
    let owners = || sandbox.sql("select count(distinct owner_instance) from partition_offsets");
    wait_until("both to have partitions", || owners() == "2");
    for _ in 0..2 {
        second.signal(Signal::STOP);
        wait_until("the first to have all partitions", || owners() == "1");
        second.signal(Signal::CONT);
        wait_until("the second to have partitions again", || owners() == "2");
        let offsets = || {
            let offsets =
                sandbox.sql("select string_agg(next_offset::text, ' ' order by partition) from partition_offsets");
            offsets.split(' ').map(|offset| offset.parse::<i64>().unwrap()).collect::<Vec<_>>()
        };
        let before = offsets();
        wait_until("every partition to go on", || offsets().iter().zip(&before).all(|(now, then)| now > then));
    }
    for running in [second, first] {
        let (code, output) = running.stop();
        assert_eq!(code, Some(0), "{output}");
    }
    sandbox.expect(0, &["verify"]);
}

fn stop_at(world: &World, seam: Seam) -> Result<Duration, String> {
    let mut lane = Lane::new(world, &format!("stop_{}", seam.name().replace('-', "_")));
    let mut consumers = Vec::new();
    let stopped = stop(&mut lane, seam, &mut consumers);
    stopped.map_err(|why| {
        let words: Vec<String> = consumers.iter().map(words_of).collect();
        format!("{why}\n{}", words.join("\n--\n"))
    })
}

fn stop(lane: &mut Lane, seam: Seam, consumers: &mut Vec<Running>) -> Result<Duration, String> {
    let stops = [Failpoint { seam, action: Action::Stop, hit: 1 }];
    // Whoever claims stops when it comes, whoever gives back when another comes. What one of them alone does, or does at
    // all times, happens before there is another. The rest happens while there is work.
    let stops_as_second = matches!(seam, Seam::BeforeClaim | Seam::AfterClaim);
    let stops_alone =
        matches!(seam, Seam::BeforeKafkaCommit | Seam::BeforePublish | Seam::InsidePublish | Seam::AfterPublish);
    consumers.push(lane.consumer(None, if stops_as_second { &[] } else { &stops[..] }));
    if stops_alone {
        lane.send(200);
    } else {
        ready(&mut consumers[0])?;
        consumers.push(lane.consumer(None, if stops_as_second { &stops[..] } else { &[] }));
    }
    let stopped = usize::from(stops_as_second);
    if !stops_as_second && !stops_alone && seam != Seam::Revoke {
        ready(&mut consumers[1])?;
        lane.send(200);
    }
    until(READY_WITHIN, "the failpoint", || Ok(consumers[stopped].output().contains(REACHED)))?;
    if stops_alone {
        consumers.push(lane.consumer(None, &[]));
    }
    let began = Instant::now();
    lane.send(300);
    until(READY_WITHIN, "the others to go on", || Ok(lane.is_applied()))?;
    let time = began.elapsed();
    consumers[stopped].signal(Signal::CONT);
    until(SAID_WITHIN, "the stopped one to say that it is fenced", || {
        Ok(consumers[stopped].output().contains("fenced:"))
    })?;
    lane.send(100);
    until(READY_WITHIN, "all to be applied", || Ok(lane.is_applied()))?;
    // The stopped one comes back into the group, and reads what it is given there, also what it was fenced from.
    until(READY_WITHIN, "the stopped one to have partitions again", || Ok(lane.owners() == 2))?;
    lane.send(100);
    until(READY_WITHIN, "all to be applied by both", || Ok(lane.is_applied()))?;
    until(READY_WITHIN, "all to be published", || Ok(lane.is_published()))?;
    for consumer in consumers.iter_mut() {
        consumer.signal(Signal::TERM);
        let code = consumer.wait();
        if code != Some(0) {
            return Err(format!("a consumer stopped with {code:?}"));
        }
    }
    lane.audit()?;
    published::compare(lane)?;
    Ok(time)
}

fn ready(consumer: &mut Running) -> Result<(), String> {
    until(READY_WITHIN, "a consumer to be ready", || match consumer.is_running() {
        true => Ok(consumer.is_ready()),
        false => Err("a consumer ended by itself".to_owned()),
    })
}
