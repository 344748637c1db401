//! One run: a consumer meets its failpoint, whoever is left goes on, and the books are looked at.

use std::time::Duration;

use finstream::seam::{Action, Seam};

use super::plan::Plan;
use super::published;
use super::support::{Running, Signal};
use super::world::{Lane, until};

/// For a failpoint to be reached, with a group that has to form first.
const REACHED_WITHIN: Duration = Duration::from_secs(30);
/// For what is in the log to be in PostgreSQL: the session of a member that is gone, and then some.
const APPLIED_WITHIN: Duration = Duration::from_secs(40);
const PUBLISHED_WITHIN: Duration = Duration::from_secs(40);
/// A few messages now and then keep batches and totals coming until the failpoint is reached.
const TRICKLE: i64 = 8;
const TRICKLE_EVERY: Duration = Duration::from_millis(100);
/// What says that a failpoint is reached.
pub const REACHED: &str = "is reached";

/// Does what the plan says; `url` is where its consumers reach PostgreSQL.
///
/// # Errors
/// What is wrong with the books, or with a process.
pub fn drive(lane: &mut Lane, plan: &Plan, url: Option<&str>) -> Result<(), String> {
    if plan.before > 0 {
        lane.send(plan.before);
    }
    let mut consumers =
        vec![lane.consumer(url, &[Some(plan.failpoint), plan.also].into_iter().flatten().collect::<Vec<_>>())];
    let driven = go_through(lane, plan, url, &mut consumers);
    driven.map_err(|why| {
        let words: Vec<String> =
            consumers.iter().map(|consumer| format!("[{}] said:\n{}", consumer.pid(), words_of(consumer))).collect();
        format!("{why}\n{}", words.join("\n"))
    })
}

fn go_through(lane: &mut Lane, plan: &Plan, url: Option<&str>, consumers: &mut Vec<Running>) -> Result<(), String> {
    let is_revoke = plan.failpoint.seam == Seam::Revoke;
    if is_revoke {
        have_it_give_back(lane, plan, url, consumers)?;
    }
    trickle_until_reached(lane, &mut consumers[0])?;
    let is_gone = plan.failpoint.action == Action::Kill || is_revoke;
    if is_gone {
        until(REACHED_WITHIN, "the first consumer's end", || Ok(!consumers[0].is_running()))?;
        consumers.remove(0);
    }
    if let Some(failpoints) = plan.rival.as_ref().filter(|_| !is_revoke) {
        consumers.push(lane.rival(url, failpoints));
    }
    if is_gone {
        // After the rival: whoever takes the place of the dead one is then not always the same.
        consumers.push(lane.consumer(url, &[]));
    }
    lane.send(plan.after);
    until(APPLIED_WITHIN, "everything to be in PostgreSQL", || all_alive(consumers).map(|()| lane.is_applied()))?;
    until(PUBLISHED_WITHIN, "all totals to be published", || all_alive(consumers).map(|()| lane.is_published()))?;
    for mut consumer in consumers.drain(..) {
        if std::env::var_os("FINSTREAM_TEST_WORDS").is_some() {
            println!("[{}] of {} said:\n{}", consumer.pid(), lane.name, words_of(&consumer));
        }
        if plan.ends_killed && plan.rival.is_none() {
            consumer.kill();
            continue;
        }
        consumer.signal(Signal::TERM);
        let code = consumer.wait();
        if code != Some(0) {
            return Err(format!("a consumer stopped with {code:?}:\n{}", words_of(&consumer)));
        }
    }
    lane.audit()?;
    published::compare(lane)
}

/// Partitions are given back when another comes, as far as they are its share, and at the end, all of them.
fn have_it_give_back(lane: &Lane, plan: &Plan, url: Option<&str>, consumers: &mut Vec<Running>) -> Result<(), String> {
    until(REACHED_WITHIN, "the first consumer to be ready", || {
        alive(&mut consumers[0]).map(|()| consumers[0].is_ready())
    })?;
    if let Some(failpoints) = &plan.rival {
        let mut rival = lane.rival(url, failpoints);
        let come = until(REACHED_WITHIN, "the rival to be ready", || {
            alive(&mut rival).map(|()| rival.is_ready() || consumers[0].output().contains(REACHED))
        });
        consumers.push(rival);
        come?;
    }
    if consumers[0].is_running() {
        consumers[0].signal(Signal::TERM);
    }
    Ok(())
}

fn trickle_until_reached(lane: &mut Lane, consumer: &mut Running) -> Result<(), String> {
    let mut waited = Duration::ZERO;
    loop {
        let reached = until(TRICKLE_EVERY, REACHED, || Ok(consumer.output().contains(REACHED)));
        if reached.is_ok() {
            return Ok(());
        }
        waited += TRICKLE_EVERY;
        if let Err(why) = alive(consumer) {
            // It may have come between the two looks.
            return if consumer.output().contains(REACHED) { Ok(()) } else { Err(why) };
        }
        if waited > REACHED_WITHIN {
            return Err("the failpoint is not reached".to_owned());
        }
        lane.send(TRICKLE);
    }
}

/// What it printed, without the samples of transactions and totals.
pub fn words_of(consumer: &Running) -> String {
    consumer.output().lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n")
}

fn all_alive(consumers: &mut [Running]) -> Result<(), String> {
    consumers.iter_mut().try_for_each(alive)
}

fn alive(consumer: &mut Running) -> Result<(), String> {
    if consumer.is_running() { Ok(()) } else { Err(format!("consumer {} ended by itself", consumer.pid())) }
}
