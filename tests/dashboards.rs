//! What can be known of dashboards, rules and runbook without a Prometheus: tests/prometheus asks a real one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/dashboards.rs"]
mod dashboards;

use std::collections::BTreeSet;

use dashboards::{BOARDS, RULE_FILES, Rule, board, metric, panels, read, rules, series, with_durations};
use finstream::metrics::{
    CATALOG, LAG_SLO_SECONDS, LATENCY_SLO_BUDGET, LATENCY_SLO_SECONDS, MetricKind, stage_bounds_seconds,
};

/// Exposed and shown nowhere, each for a reason.
const NOT_SHOWN: [(&str, &str); 1] =
    [("process_max_fds", "a limit that does not move; connections are refused, and that is shown, before it is met")];

fn all_rules() -> Vec<Rule> {
    RULE_FILES.iter().flat_map(|file| rules(file)).collect()
}

fn annotation_expressions() -> Vec<String> {
    let of = |name: &&str| {
        let board = board(name);
        let list = board["annotations"]["list"].as_array().unwrap().clone();
        list.into_iter().map(|annotation| annotation["expr"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    BOARDS.iter().flat_map(of).collect()
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    assert!(panels().len() > 50);
    for panel in panels() {
        let (name, value) = (&panel.name, &panel.value);
        assert!(value["description"].as_str().is_some_and(|text| text.len() > 20), "{name}: no description");
        assert!(value["fieldConfig"]["defaults"]["unit"].is_string(), "{name}: no unit");
        let uid = value["datasource"]["uid"].as_str().unwrap();
        let language = if uid == "${prometheus}" { "expr" } else { "rawSql" };
        assert!(["${prometheus}", "${postgresql}"].contains(&uid), "{name}: a datasource that no variable names");
        let targets = value["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && panel.queries(language).len() == targets.len(), "{name}: shows nothing");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], uid, "{name}");
        }
        if value["type"] == "heatmap" {
            assert!(value["options"]["yAxis"]["unit"].is_string(), "{name}: no unit of the buckets");
            assert_eq!(targets[0]["format"], "heatmap", "{name}");
        }
    }
}

#[test]
fn panels_lie_beside_each_other_and_have_names_of_their_own() {
    for name in BOARDS {
        let board = board(name);
        let (mut taken, mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for panel in board["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}: an id twice");
            assert!(titles.insert(title), "{name}: {title}: a title twice");
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{name}: {title}: wider than the page");
            for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
                assert!(taken.insert((x, y)), "{name}: {title} lies on another panel");
            }
        }
    }
}

#[test]
fn dashboards_are_fixed_linked_and_marked_with_starts_and_alerts() {
    for name in BOARDS {
        let board = board(name);
        assert_eq!(board["uid"], format!("finstream-{name}"));
        assert_eq!(board["editable"], false);
        let link = &board["links"][0];
        assert!(link["keepTime"] == true && link["includeVars"] == true && link["tags"] == board["tags"], "{name}");
        let annotations = board["annotations"]["list"].to_string();
        assert!(annotations.contains("process_start_time_seconds") && annotations.contains("ALERTS{"), "{name}");
        let variables = board["templating"]["list"].as_array().unwrap();
        for wanted in ["job", "topic"] {
            assert!(variables.iter().any(|variable| variable["name"] == wanted), "{name}: no variable {wanted}");
        }
        for variable in variables {
            // The data sources are chosen, so that the dashboards are of use in a Grafana that has its own; here they are ours.
            if variable["type"] == "datasource" {
                assert!(["prom", "pg"].contains(&variable["current"]["value"].as_str().unwrap()), "{name}");
                continue;
            }
            let uid = variable["datasource"]["uid"].as_str().unwrap();
            assert!(["${prometheus}", "${postgresql}"].contains(&uid), "{name}");
            let (used, text) = (variable["name"].as_str().unwrap(), board["panels"].to_string() + &annotations);
            assert!(
                text.contains(&format!("${used}")) || text.contains(&format!("${{{used}")),
                "{name}: {used} unused"
            );
        }
    }
}

#[test]
fn queries_ask_for_a_window_that_holds_data_and_for_the_chosen_processes() {
    for panel in panels() {
        for expr in panel.queries("expr") {
            let name = &panel.name;
            assert!(!expr.contains("$__interval"), "{name}: empty at short ranges: {expr}");
            for window in expr.split('[').skip(1).map(|rest| rest.split(']').next().unwrap()) {
                assert!(["$__rate_interval", "$__range"].contains(&window), "{name}: [{window}]");
            }
            for series in series(&expr) {
                let chosen = format!("{series}{{job=~\"$job\"");
                assert_eq!(expr.matches(&series).count(), expr.matches(&chosen).count(), "{name}: {series}: {expr}");
            }
        }
    }
}

/// The lag of a consumer without partitions is NaN, and so would be every sum with it.
#[test]
fn sums_over_consumers_leave_out_those_that_do_not_know() {
    let panels = panels();
    let all = panels.iter().flat_map(|panel| panel.queries("expr").into_iter().map(|expr| (&panel.name, expr)));
    let sums = all.filter(|(_, expr)| (expr.contains("sum(") || expr.contains("sum by")) && expr.contains("_lag_"));
    for (name, expr) in sums.collect::<Vec<_>>() {
        assert!(expr.contains("} >= 0)"), "{name}: {expr}");
    }
}

#[test]
fn every_metric_used_is_exposed_and_every_exposed_one_is_shown_or_listed() {
    let shown: BTreeSet<String> =
        panels().iter().flat_map(|panel| panel.queries("expr")).flat_map(|expr| series(&expr)).collect();
    let all = shown.iter().cloned();
    let all = all.chain(annotation_expressions().into_iter().flat_map(|expr| series(&expr)));
    let all: BTreeSet<String> = all.chain(all_rules().into_iter().flat_map(|rule| series(&rule.expr))).collect();

    let records: BTreeSet<String> = rules("recording").into_iter().map(|rule| rule.name).collect();
    let exposed: BTreeSet<&str> = CATALOG.iter().map(|metric| metric.name).collect();
    for name in &all {
        let known = records.contains(name) || exposed.contains(name.as_str()) || exposed.contains(metric(name));
        assert!(known, "{name} is used and not exposed");
    }
    for record in &records {
        assert!(all.contains(record), "{record} is worked out for nobody");
    }
    let shown: BTreeSet<&str> = shown.iter().map(|name| metric(name)).chain(shown.iter().map(String::as_str)).collect();
    for name in exposed {
        let excused = NOT_SHOWN.iter().any(|(excused, _)| *excused == name);
        assert!(shown.contains(name) != excused, "{name}: shown: {}, listed as not shown: {excused}", !excused);
    }
}

#[test]
fn names_say_kind_and_unit_and_help_says_what_for() {
    let mut names = BTreeSet::new();
    for metric in CATALOG {
        let name = metric.name;
        assert!(names.insert(name), "{name} twice");
        let is_ours = name.starts_with("finstream_") || name.starts_with("process_");
        assert!(is_ours && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert_eq!(metric.kind == MetricKind::Counter, name.ends_with("_total"), "{name}");
        assert!(metric.help.ends_with('.') && metric.help.len() > 20, "{name}: {}", metric.help);
        for shortened in ["_ms", "_us", "_secs", "_milliseconds", "_kb", "_mb"] {
            assert!(!name.ends_with(shortened), "{name}: base units only");
        }
    }
}

#[test]
fn thresholds_are_the_service_level_and_nothing_else() {
    let burn = 14.4 * LATENCY_SLO_BUDGET;
    // 1: something that should be 0, or that should be 1.
    let allowed = [LATENCY_SLO_SECONDS, LAG_SLO_SECONDS, LATENCY_SLO_BUDGET, 1.0 - LATENCY_SLO_BUDGET, burn, 1.0];
    for panel in panels() {
        let defaults = &panel.value["fieldConfig"]["defaults"];
        for step in defaults["thresholds"]["steps"].as_array().unwrap() {
            let Some(value) = step["value"].as_f64() else { continue };
            let is_known = allowed.iter().any(|known| (known - value).abs() < 1e-9);
            assert!(is_known, "{}: a threshold of {value}", panel.name);
        }
    }
    assert!(stage_bounds_seconds().contains(&LATENCY_SLO_SECONDS));
    let bound = format!("le=\"{LATENCY_SLO_SECONDS}\"");
    for rule in rules("recording").iter().filter(|rule| rule.name.contains("latency_slow")) {
        assert!(rule.expr.contains(&bound), "{}: {}", rule.name, rule.expr);
    }
    let alert = |name: &str| rules("alerts").into_iter().find(|rule| rule.name == name).unwrap().expr;
    assert!(alert("FinstreamLagGrowing").contains(&format!("> {LAG_SLO_SECONDS} ")));
    assert!(alert("FinstreamFsyncSlow").contains(&format!("> {LATENCY_SLO_SECONDS}")));
    for burn in ["FinstreamLatencyBurnFast", "FinstreamLatencyBurnSlow"] {
        assert_eq!(alert(burn).matches(&format!("* {LATENCY_SLO_BUDGET}")).count(), 2, "{burn}");
    }
    let runbook = read("docs/RUNBOOK.md");
    assert!(
        runbook.contains("99 % of messages") && runbook.contains("within 50 ms") && runbook.contains("older than 5 s")
    );
}

#[test]
fn every_alert_has_its_words_its_section_of_the_runbook_and_a_unit_test() {
    let (runbook, unit_tests) = (read("docs/RUNBOOK.md"), read("grafana/prometheus/rules_test.yml"));
    let alerts: Vec<Rule> = rules("alerts").into_iter().filter(|rule| rule.is_alert).collect();
    for alert in &alerts {
        let (name, text) = (&alert.name, &alert.text);
        assert!(text.contains("severity: critical") || text.contains("severity: warning"), "{name}");
        assert!(text.contains("summary: \"") && text.contains("description: \""), "{name}");
        let link = format!("runbook: docs/RUNBOOK.md#{}\n", name.to_lowercase());
        assert!(text.contains(&link), "{name}: no {link}");
        let section = runbook.split(&format!("\n## {name}\n")).nth(1).expect(name);
        let section = section.split("\n## ").next().unwrap();
        for part in ["**Means**", "**Look at**", "**Do**"] {
            assert!(section.contains(part), "{name}: the runbook lacks {part}");
        }
        assert!(unit_tests.contains(&format!("alertname: {name}\n")), "{name} has no unit test");
    }
    let sections = runbook.lines().filter(|line| line.starts_with("## Finstream")).count();
    assert_eq!(sections, alerts.len(), "a section for an alert that is not there");
}

#[test]
fn sql_panels_read_what_the_migrations_make() {
    let migrations: String = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    for panel in panels() {
        for query in panel.queries("rawSql") {
            let words: Vec<&str> = query.split_whitespace().collect();
            let relations = words.windows(2).filter(|pair| pair[0] == "from").map(|pair| pair[1].trim_end_matches(')'));
            for relation in relations.filter(|relation| !relation.contains('(') && *relation != "1") {
                let made = ["create view ", "create table ", "create or replace view "]
                    .iter()
                    .any(|make| migrations.contains(&format!("{make}{relation} ")));
                assert!(made, "{}: no {relation}: {query}", panel.name);
            }
            assert_eq!(query, query.to_lowercase().replace("$__timefilter", "$__timeFilter"), "{}", panel.name);
        }
    }
}

#[test]
fn grafana_s_home_is_a_dashboard_of_ours_and_its_scrape_interval_prometheus_s() {
    let value = |text: &str, key: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(key).map(|value| value.trim().to_owned())).unwrap()
    };
    let (prometheus, datasources) =
        (read("grafana/prometheus/prometheus.yml"), read("grafana/provisioning/datasources/finstream.yml"));
    assert_eq!(value(&prometheus, "scrape_interval:"), value(&datasources, "timeInterval:"));
    for uid in ["uid: prom", "uid: pg"] {
        assert!(datasources.lines().any(|line| line.trim() == uid), "no datasource with {uid}");
    }
    assert!(read("docker-compose.yml").contains("/overview.json"));
    assert!(read("docker-compose.yml").contains("./grafana/prometheus/rules:/etc/prometheus/rules:ro"));
    assert!(read("grafana/provisioning/dashboards/finstream.yml").contains("allowUiUpdates: false"));
}

#[test]
fn durations_are_shortened_where_they_are_durations() {
    let text = "expr: rate(x_total[5m]) > 0 and y:rate5m{a=\"[1h]\"}\n  for: 30s\nsummary: for 30 s\n";
    let shortened = with_durations(text, |ms| ms / 10);
    assert_eq!(
        shortened,
        "expr: rate(x_total[30000ms]) > 0 and y:rate5m{a=\"[360000ms]\"}\n  for: 3000ms\nsummary: for 30 s\n"
    );
}
