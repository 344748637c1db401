//! The containers around finstream: what can be checked without a container.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn containers_are_pinned_on_loopback_and_hold_no_secret() {
    let compose = read("docker-compose.yml");
    let mut images = 0;
    for line in compose.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(image) = line.strip_prefix("image: ") {
            images += 1;
            let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
            assert!(
                tag.starts_with(|first: char| first.is_ascii_digit() || first == 'v') && tag.contains('.'),
                "{image}"
            );
        }
        if let Some(port) = line.strip_prefix("- \"").filter(|line| line.contains(':')) {
            assert!(port.starts_with("127.0.0.1:"), "published beyond loopback: {line}");
        }
        if let Some((name, value)) = line.split_once(": ").filter(|(name, _)| name.contains("PASSWORD")) {
            assert!(name.ends_with("_FILE") && value.starts_with("/run/secrets/"), "a secret in the file: {line}");
        }
        assert!(!line.contains("dev-container") && !line.contains("bypass-fsync=true"), "no durability: {line}");
    }
    assert_eq!(images, 6, "Redpanda, its Console, PostgreSQL, finstream, Prometheus, Grafana");
    assert!(read(".gitignore").lines().any(|line| line == "/.secrets"));
    assert!(!read(".env").to_lowercase().contains("password="));
}

/// The services of the compose file: each with its lines.
fn services(compose: &str) -> Vec<(&str, String)> {
    let body = compose.split("\nservices:\n").nth(1).unwrap().split("\nvolumes:\n").next().unwrap();
    let mut services: Vec<(&str, String)> = Vec::new();
    for line in body.lines() {
        match line.strip_prefix("  ").filter(|line| !line.starts_with([' ', '#']) && line.ends_with(':')) {
            Some(name) => services.push((name.trim_end_matches(':'), String::new())),
            None => services.last_mut().unwrap().1.extend([line, "\n"]),
        }
    }
    services
}

#[test]
fn every_service_has_a_profile_limits_and_a_start_order() {
    let compose = read("docker-compose.yml");
    let shared = |name: &str| {
        let block = compose.split(&format!("\nx-{name}: &{name}\n")).nth(1).unwrap();
        block.split("\n\n").next().unwrap().to_owned()
    };
    let services = services(&compose);
    assert_eq!(services.len(), 9);
    for (name, own) in &services {
        let whole = match own.split("<<: *").nth(1).and_then(|rest| rest.lines().next()) {
            Some(base) => format!("{own}{}", shared(base)),
            None => own.clone(),
        };
        for needed in ["profiles: [", "limits: { cpus:", "restart: "] {
            assert!(whole.contains(needed), "{name}: no {needed}");
        }
        // finstream's own check is in its image; the Console's image has none, and nothing waits for it.
        let checks_itself = ["producer", "consumer", "console"].contains(name);
        assert!(checks_itself || whole.contains("healthcheck:"), "{name}: no health check");
        let waits =
            ["redpanda", "postgres", "prometheus"].contains(name) || whole.contains("condition: service_healthy");
        assert!(waits, "{name}: starts in no order");
    }
    let with = |profile: &str| {
        let has = |own: &str| own.lines().any(|line| line.contains("profiles:") && line.contains(profile));
        services.iter().filter(|(_, own)| has(own)).map(|(name, _)| *name).collect::<Vec<_>>()
    };
    assert_eq!(with("watch"), ["prometheus", "grafana"]);
    assert_eq!(with("full").len(), 7);
    assert_eq!(with("cluster").len(), 9);
    assert!(read(".env").contains("COMPOSE_PROFILES=full"), "docker compose up alone brings up the whole");
    for port in ["19092:19092", "8090:8080"] {
        assert!(compose.contains(&format!("\"127.0.0.1:{port}\"")), "not on the port that README names: {port}");
    }
}

#[test]
fn the_image_is_pinned_runs_without_root_and_says_whether_it_is_ready() {
    let dockerfile = read("Dockerfile");
    let bases: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(bases.len(), 2);
    for base in bases {
        let tag = base.split_whitespace().next().unwrap().rsplit_once(':').map_or("", |(_, tag)| tag);
        assert!(tag.contains('.') && tag.contains(|digit: char| digit.is_ascii_digit()), "{base}");
    }
    let last_user = dockerfile.lines().rfind(|line| line.starts_with("USER ")).unwrap();
    assert_eq!(last_user, "USER finstream");
    assert!(dockerfile.contains("HEALTHCHECK") && dockerfile.contains("STOPSIGNAL SIGTERM"));
    let wanted = read("Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = ").map(str::to_owned));
    let wanted = wanted.unwrap().trim_matches('"').to_owned();
    assert!(dockerfile.contains(&format!("FROM rust:{wanted}.")), "another Rust than Cargo.toml asks for: {wanted}");
}

/// What the image says of its health, on the real binary: the script needs bash and nothing else.
#[test]
fn the_health_check_tells_a_ready_finstream_from_one_that_is_not_there() {
    let sandbox = support::Sandbox::new();
    let mut running = sandbox.spawn(&["--role", "broker"]);
    let http = running.wait_ready()["http"].as_str().unwrap().to_owned();
    let asked = |address: &str| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/health");
        std::process::Command::new(script).env("FINSTREAM_HTTP", address).output().unwrap().status.success()
    };
    let address = http.trim_start_matches("http://").trim_end_matches('/');
    assert!(asked(address), "{address} is ready");
    assert_eq!(running.stop().0, Some(0));
    assert!(!asked(address), "{address} is gone");
}
