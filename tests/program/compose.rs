//! The containers around finstream: what can be checked without a container.

use std::fs;
use std::path::Path;
use std::process::Command;

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
        // The Console's image has no check, and nothing waits for it.
        assert!(*name == "console" || whole.contains("healthcheck:"), "{name}: no health check");
        let is_first = ["redpanda", "postgres", "prometheus"].contains(name);
        let waits = whole.contains("condition: service_healthy") || whole.contains("*brokers\n");
        assert!(is_first || waits, "{name}: starts in no order");
        // `up --wait` waits until they are ready; the image's own check asks for less.
        if ["producer", "consumer"].contains(name) {
            assert!(whole.contains("[\"CMD\", \"finstream-health\", \"/readyz\"]"), "{name}: not ready, only alive");
        }
        if ["producer", "consumer", "console"].contains(name) {
            assert!(own.contains("*brokers\n"), "{name}: does not wait for all nodes of a cluster");
        }
    }
    let brokers = shared("brokers");
    assert!(brokers.contains("redpanda: { condition: service_healthy }"));
    for node in ["redpanda-1", "redpanda-2"] {
        assert!(brokers.contains(&format!("{node}: {{ condition: service_healthy, required: false }}")), "{node}");
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

/// What Prometheus scrapes in each way of starting it: services of the compose file, and nothing that is not started there.
#[test]
fn each_folder_of_targets_names_what_runs_beside_it() {
    let compose = read("docker-compose.yml");
    let services: Vec<&str> = services(&compose).iter().map(|(name, _)| *name).collect();
    let targets = |path: &str| -> Vec<String> {
        let groups: serde_json::Value = serde_json::from_str(&read(path)).unwrap();
        let of = |group: &serde_json::Value| group["targets"].as_array().unwrap().clone();
        let all = groups.as_array().unwrap().iter().flat_map(of);
        all.map(|target| target.as_str().unwrap().to_owned()).collect()
    };
    let folder = "grafana/prometheus/targets";
    for chosen in ["containers", "cluster"] {
        assert_eq!(targets(&format!("{folder}/{chosen}/finstream.json")), ["producer:8080", "consumer:8080"]);
    }
    assert_eq!(targets(&format!("{folder}/containers/redpanda.json")), ["redpanda:9644"]);
    let nodes: Vec<String> =
        services.iter().filter(|name| name.starts_with("redpanda")).map(|name| format!("{name}:9644")).collect();
    assert_eq!(targets(&format!("{folder}/cluster/redpanda.json")), nodes);
    assert_eq!(targets(&format!("{folder}/host/finstream.json")), ["host.docker.internal:8080"]);
    let beside_host = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("host/redpanda.json");
    assert!(!beside_host.exists(), "no Redpanda runs in profile watch");
    let (prometheus, makefile) = (read("grafana/prometheus/prometheus.yml"), read("Makefile"));
    for job in ["finstream", "redpanda"] {
        assert!(prometheus.contains(&format!("job_name: {job}\n")), "{job}");
        assert!(prometheus.contains(&format!("files: [targets/{job}.json]")), "{job}");
    }
    assert!(compose.contains("targets/${FINSTREAM_COMPOSE_TARGETS:-containers}:/etc/prometheus/targets:ro"));
    for chosen in ["cluster", "host"] {
        assert!(makefile.contains(&format!("FINSTREAM_COMPOSE_TARGETS={chosen} ")), "{chosen}");
    }
}

#[test]
fn the_image_is_pinned_runs_without_root_and_says_whether_it_is_alive() {
    let dockerfile = read("Dockerfile");
    let bases: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(bases.len(), 2);
    for base in bases {
        let tag = base.split_whitespace().next().unwrap().rsplit_once(':').map_or("", |(_, tag)| tag);
        assert!(tag.contains('.') && tag.contains(|digit: char| digit.is_ascii_digit()), "{base}");
    }
    let last_user = dockerfile.lines().rfind(|line| line.starts_with("USER ")).unwrap();
    assert_eq!(last_user, "USER finstream");
    // Without a path it asks whether finstream is alive: a database that is away is no reason to start it anew.
    let check = dockerfile.lines().find(|line| line.starts_with("HEALTHCHECK")).unwrap();
    assert!(check.ends_with("CMD [\"finstream-health\"]") && dockerfile.contains("STOPSIGNAL SIGTERM"), "{check}");
    let wanted = read("Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = ").map(str::to_owned));
    let wanted = wanted.unwrap().trim_matches('"').to_owned();
    assert!(dockerfile.contains(&format!("FROM rust:{wanted}.")), "another Rust than Cargo.toml asks for: {wanted}");
}

/// The build in the image fails where a dependency asks for a newer Rust than the one there, which is the one that we ask for.
#[test]
fn no_dependency_asks_for_a_newer_rust_than_we_do() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let version = Command::new(&cargo).args(["--version", "--verbose"]).output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    // What is for other machines only need not be here, and nothing is fetched.
    let output = Command::new(&cargo)
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |package: &serde_json::Value| -> Option<(Vec<u32>, String)> {
        let rust = package["rust_version"].as_str()?;
        let mut numbers: Vec<u32> = rust.split('.').map(|number| number.parse().unwrap()).collect();
        numbers.resize(3, 0);
        Some((numbers, format!("{} {} asks for Rust {rust}", package["name"], package["version"])))
    };
    let packages = metadata["packages"].as_array().unwrap();
    let ours = packages.iter().find(|package| package["name"] == env!("CARGO_PKG_NAME")).and_then(of).unwrap();
    let newest = packages.iter().filter_map(of).max().unwrap();
    assert!(packages.len() > 100 && newest.0 <= ours.0, "{}; {}", newest.1, ours.1);
}

/// The image is built from what .dockerignore lets through.
#[test]
fn the_image_gets_all_that_a_build_reads() {
    let ignored = read(".dockerignore");
    let comes = |path: &str| ignored.lines().any(|line| line.strip_prefix('!') == Some(path));
    // Cargo looks for the benches that Cargo.toml names, whatever it builds.
    for needed in ["Cargo.toml", "Cargo.lock", "src", "migrations", "benches", "packaging"] {
        assert!(comes(needed), "{needed}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(!root.join("build.rs").exists() || comes("build.rs"));
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for macro_name in ["include_str!(\"", "include_bytes!(\"", "embed_migrations!(\""] {
                for name in text.split(macro_name).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                    let from = if macro_name.starts_with("embed") { root } else { path.parent().unwrap() };
                    let included = from.join(name).canonicalize().unwrap();
                    let inside = included.strip_prefix(root.canonicalize().unwrap()).unwrap();
                    let is_there = inside.ancestors().filter_map(Path::to_str).any(comes);
                    assert!(is_there, "{}: {name}", path.display());
                }
            }
        }
    }
}

/// What the image says of its health, on the real binary: the script needs bash and nothing else.
#[test]
fn the_health_check_tells_a_finstream_that_is_alive_or_ready_from_one_that_is_not_there() {
    let sandbox = crate::support::Sandbox::new();
    let mut running = sandbox.spawn(&["--role", "broker"]);
    let http = running.wait_ready()["http"].as_str().unwrap().to_owned();
    let address = http.trim_start_matches("http://").trim_end_matches('/');
    let says = |path: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/health");
        Command::new(script).args(path).env("FINSTREAM_HTTP", address).output().unwrap().status.success()
    };
    assert!(says(&[]) && says(&["/healthz"]), "{address} is alive");
    crate::support::wait_until("it to be ready", || says(&["/readyz"]));
    assert!(!says(&["/nothing"]), "there is no such page");
    assert_eq!(running.stop().0, Some(0));
    assert!(!says(&[]) && !says(&["/readyz"]), "{address} is gone");
}
