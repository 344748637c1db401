//! The check: whatever a panel or a rule asks, a running finstream gives it fresh numbers.

use crate::dashboards::{Panel, RULE_FILES, Rule, metric, panels, rules, series};
use crate::server::Prometheus;

/// Samples are fresh when they are younger than so many scrapes.
const SCRAPES_MAX: f64 = 2.0;

/// What is missing, one line a panel; empty when all is well.
pub fn faults_of_panels(prometheus: &Prometheus, job: &str, scrape_ms: u64) -> Vec<String> {
    let fault = |panel: &Panel| {
        let faults: Vec<String> = panel
            .queries("expr")
            .iter()
            .filter_map(|expr| fault(prometheus, job, scrape_ms, &filled_in(expr, job)))
            .collect();
        (!faults.is_empty()).then(|| format!("{}: {}", panel.name, faults.join("; ")))
    };
    panels().iter().filter_map(fault).collect()
}

/// The same of rules: what they ask of is there, and they can be evaluated.
pub fn faults_of_rules(prometheus: &Prometheus, job: &str, scrape_ms: u64) -> Vec<String> {
    let all: Vec<Rule> = RULE_FILES.iter().flat_map(|file| rules(file)).collect();
    let mut faults = prometheus.broken_rules();
    for rule in all {
        let asked = series(&rule.expr).into_iter().chain((!rule.is_alert).then(|| rule.name.clone()));
        for name in asked {
            if let Some(fault) = fault(prometheus, job, scrape_ms, &format!("{name}{{job=\"{job}\"}}")) {
                faults.push(format!("{}: {fault}", rule.name));
            }
        }
    }
    faults
}

/// Why an expression is no good: it cannot be asked, gives nothing, no number, or numbers from samples that are old.
fn fault(prometheus: &Prometheus, job: &str, scrape_ms: u64, expr: &str) -> Option<String> {
    let samples = match prometheus.query(expr) {
        Ok(samples) => samples,
        Err(error) => return Some(format!("{error}: {expr}")),
    };
    if !samples.iter().any(|(_, value)| value.is_finite()) {
        return Some(format!("{} samples and no number: {expr}", samples.len()));
    }
    if series(expr).is_empty() {
        return None;
    }
    let up = prometheus.query(&format!("up{{job=\"{job}\"}} == 1")).unwrap_or_default();
    if up.is_empty() {
        return Some(format!("its process is down: {expr}"));
    }
    series(expr).iter().find_map(|name| {
        // A series that ended still answers for five minutes; the time of its sample does not lie.
        let age = prometheus.query(&format!("time() - max(timestamp({name}{{job=\"{job}\"}}))")).unwrap_or_default();
        let age = age.first().map_or(f64::INFINITY, |(_, age)| *age);
        let is_old = age > SCRAPES_MAX * scrape_ms as f64 / 1e3;
        is_old.then(|| format!("the newest sample of {} is {age:.1} s old", metric(name)))
    })
}

/// What Grafana puts in place of its variables.
fn filled_in(expr: &str, job: &str) -> String {
    expr.replace("$__rate_interval", "20s")
        .replace("$__range", "1m")
        .replace("$job", job)
        .replace("$instance", ".*")
        .replace("$topic", ".*")
}
