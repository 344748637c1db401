//! What the terminal shows while the pipeline runs: one live line or a progress bar on a TTY. Elsewhere, where lines pile
//! up, one after 5 s and then less and less often, and none that says what the last one said. Everything goes to stderr; samples of data go to stdout.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::broadcast::error::RecvError;

use super::figures::{elapsed, latency, thousands};
use crate::config::Roles;
use crate::progress::{Progress, Sample, Stage};
use crate::shutdown::{self, Shutdown};

/// Between two refreshes on a TTY.
const REFRESH: Duration = Duration::from_secs(1);
/// Elsewhere: until the first line, which tells that it works,
const FIRST_LINE_AFTER: Duration = Duration::from_secs(5);
/// and between two lines in the long run, so that days of them still make a log that can be read.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// How far the run is meant to go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Goal {
    /// Stop after this many messages.
    pub count: Option<u64>,
    /// Stop after this long.
    pub duration: Option<Duration>,
}

/// Shows the live line until the shutdown is complete or the task is dropped.
pub async fn live(progress: Arc<Progress>, roles: Roles, mut goal: Goal, mut shutdown: Shutdown) {
    let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let mut shown = bar(goal, on_terminal);
    let started = Instant::now();
    let mut before = Reading::take(&progress);
    let mut said = String::new();
    loop {
        let pause = if on_terminal { REFRESH } else { until_next_line(started.elapsed()) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.reached(shutdown::Stage::Now) => break,
        }
        let now = Reading::take(&progress);
        let line = line(roles, &before, &now, &progress);
        let total = progress.total.load(Ordering::Relaxed);
        if goal.count.is_none() && goal.duration.is_none() && total > 0 {
            // The source has been opened: how much there is to do is known now.
            goal.count = Some(total);
            if let Some(without_end) = std::mem::replace(&mut shown, bar(goal, on_terminal)) {
                without_end.finish_and_clear();
            }
        }
        match (&shown, on_terminal) {
            (Some(bar), true) => {
                match (goal.count, goal.duration) {
                    (Some(_), _) => bar.set_position(now.sent),
                    (None, Some(_)) => bar.set_position(started.elapsed().as_millis() as u64),
                    (None, None) => bar.tick(),
                }
                bar.set_message(line);
            }
            _ if line == said => {}
            _ => {
                say!("{:>7}  {line}", elapsed(started.elapsed()));
                said = line;
            }
        }
        before = now;
    }
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
}

/// Twice as long after the start as the line before, until the pauses are as long as they get.
fn until_next_line(elapsed: Duration) -> Duration {
    elapsed.clamp(FIRST_LINE_AFTER, LINE_EVERY)
}

fn bar(goal: Goal, on_terminal: bool) -> Option<ProgressBar> {
    if !on_terminal {
        return None;
    }
    let (length, template) = match (goal.count, goal.duration) {
        (Some(count), _) => (Some(count), "{bar:24.cyan} {percent:>3}% {eta:>4} left  {msg}"),
        (None, Some(time)) => (Some(time.as_millis() as u64), "{bar:24.cyan} {percent:>3}% {elapsed:>4}  {msg}"),
        (None, None) => (None, "{spinner} {elapsed:>4}  {msg}"),
    };
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    Some(bar)
}

/// The counters at one moment.
struct Reading {
    at: Instant,
    scheduled: u64,
    sent: u64,
    acknowledged: u64,
    stored: u64,
    end_to_end: Histogram<u64>,
}

impl Reading {
    fn take(progress: &Progress) -> Self {
        Reading {
            at: Instant::now(),
            scheduled: progress.scheduled.load(Ordering::Relaxed),
            sent: progress.sent.load(Ordering::Relaxed),
            acknowledged: progress.acknowledged.load(Ordering::Relaxed),
            stored: progress.stored.load(Ordering::Relaxed),
            end_to_end: progress.latencies(Stage::EndToEnd).histogram,
        }
    }
}

fn line(roles: Roles, before: &Reading, now: &Reading, progress: &Progress) -> String {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
    let per_second = |from: u64, to: u64| thousands(((to - from) as f64 / seconds).round() as u64);
    let mut parts = Vec::new();
    if roles.producer {
        parts.push(format!("in {}/s", per_second(before.sent, now.sent)));
        parts.push(format!("acknowledged {}/s", per_second(before.acknowledged, now.acknowledged)));
        let late = now.scheduled.saturating_sub(now.sent);
        if late > 0 {
            parts.push(format!("{} late", thousands(late)));
        }
    }
    if roles.consumer {
        parts.push(format!("stored {}/s", per_second(before.stored, now.stored)));
        parts.push(match progress.lag_messages.load(Ordering::Relaxed) {
            lag if lag < 0 => "lag unknown".to_string(),
            lag => {
                let behind = progress.lag_us.load(Ordering::Relaxed).max(0) as f64 / 1e6;
                format!("lag {} ({behind:.1} s)", thousands(lag as u64))
            }
        });
        let mut recent = now.end_to_end.clone();
        if recent.subtract(&before.end_to_end).is_ok() && !recent.is_empty() {
            let (p50, p99) = (recent.value_at_quantile(0.5), recent.value_at_quantile(0.99));
            parts.push(format!("end to end p50 {} p99 {}", latency(p50), latency(p99)));
        }
        let dead = progress.dead_letters.load(Ordering::Relaxed);
        if dead > 0 {
            parts.push(format!("{} dead letters", thousands(dead)));
        }
    }
    if parts.is_empty() {
        parts.push("broker is up".to_string());
    }
    parts.join("  ")
}

/// Which samples are wanted on stdout.
#[derive(Clone, Copy, Debug)]
pub struct SampleChoice {
    /// `--print-transactions`
    pub transactions: bool,
    /// `--print-aggregates`
    pub aggregates: bool,
    /// None: every one; else at most one of a kind in this time (a consumer started alone shows a few by itself).
    pub at_most_every: Option<Duration>,
}

/// Prints samples to stdout until the roles are gone or nobody reads stdout any more.
pub async fn print_samples(progress: Arc<Progress>, choice: SampleChoice) {
    let mut samples = progress.samples();
    drop(progress);
    let mut shown: [Option<Instant>; 2] = [None, None];
    let mut missed = 0u64;
    loop {
        let sample = match samples.recv().await {
            Ok(sample) => sample,
            Err(RecvError::Lagged(count)) => {
                missed += count;
                continue;
            }
            Err(RecvError::Closed) => break,
        };
        let (wanted, kind, text) = match &sample {
            Sample::Transaction(text) => (choice.transactions, 0, text),
            Sample::Aggregate(text) => (choice.aggregates, 1, text),
        };
        let due = match (choice.at_most_every, shown[kind]) {
            (Some(every), Some(last)) => last.elapsed() >= every,
            _ => true,
        };
        if wanted && due {
            shown[kind] = Some(Instant::now());
            if writeln!(std::io::stdout(), "{text}").is_err() {
                break;
            }
        }
    }
    if missed > 0 && choice.at_most_every.is_none() {
        say!("{} samples were not shown: the terminal was slower than the pipeline", thousands(missed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirected_log_gets_a_line_soon_and_then_one_a_minute() {
        let mut at = Duration::ZERO;
        let lines: Vec<u64> = (0..7)
            .map(|_| {
                at += until_next_line(at);
                at.as_secs()
            })
            .collect();
        assert_eq!(lines, [5, 10, 20, 40, 80, 140, 200]);
    }
}
