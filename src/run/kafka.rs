//! Finds the Kafka API that this process uses: its own embedded broker, another process's, or an external cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::broker::log::Durability;
use crate::broker::{Broker, BrokerError};
use crate::config::BrokerSettings;
use crate::data_dir::{DataDir, ServiceLock};
use crate::shutdown::{Shutdown, Stage};

/// Between two looks for a broker that is to be started in another terminal.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The service name of the broker's lock and endpoint.
pub const SERVICE: &str = "broker";

/// What a broker tells the other processes on its data directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BrokerEndpoint {
    /// HOST:PORT of the Kafka API.
    pub kafka: String,
    /// Where it listens, which need not be what it advertises.
    pub port: u16,
    /// `fsync` or `os`.
    pub durability: String,
    /// Of its process.
    pub pid: u32,
}

/// A broker in this process, with its lock.
pub struct EmbeddedBroker {
    /// The broker.
    pub broker: Broker,
    /// What the others are told.
    pub endpoint: BrokerEndpoint,
    lock: ServiceLock,
}

impl EmbeddedBroker {
    /// Takes the lock and starts the broker. `for_others`: tells the other processes on the data directory where it is; a
    /// broker that a question starts for itself is not theirs, since it leaves with the answer.
    ///
    /// # Errors
    /// Another process runs it; the port is taken; the log cannot be opened.
    pub async fn start(
        data_dir: &DataDir,
        settings: BrokerSettings,
        for_others: bool,
    ) -> anyhow::Result<EmbeddedBroker> {
        let lock = data_dir.lock(SERVICE)?;
        data_dir.raise_format()?;
        let durability = durability_name(settings.durability).to_string();
        let advertise = settings.advertise.clone();
        let broker = match last_port(data_dir).filter(|_| for_others && settings.listen.port() == 0) {
            // Any free port will do, but those who wait for us know the last one.
            Some(port) => {
                let mut as_before = settings.clone();
                as_before.listen.set_port(port);
                match Broker::start(as_before).await {
                    Err(BrokerError::Listen { .. }) => Broker::start(settings).await?,
                    started => started?,
                }
            }
            None => Broker::start(settings).await?,
        };
        let kafka = advertise.map_or_else(|| broker.address().to_string(), |told| told.to_string());
        let endpoint = BrokerEndpoint { kafka, port: broker.address().port(), durability, pid: std::process::id() };
        if for_others {
            data_dir.publish_endpoint(&lock, &endpoint)?;
        }
        Ok(EmbeddedBroker { broker, endpoint, lock })
    }

    /// Writes what waits, marks a clean stop, gives the lock back.
    ///
    /// # Errors
    /// The last write or sync failed; the next start recovers.
    pub async fn stop(self) -> anyhow::Result<()> {
        let stopped = self.broker.stop().await.context("the broker did not stop cleanly; its next start recovers");
        drop(self.lock);
        stopped
    }
}

/// The word for it on the command line and in records.
pub fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Fsync => "fsync",
        Durability::Os => "os",
    }
}

/// Where the broker before this one listened.
fn last_port(data_dir: &DataDir) -> Option<u16> {
    let last: BrokerEndpoint = serde_json::from_value(data_dir.last_endpoint(SERVICE)?).ok()?;
    Some(last.port)
}

/// The broker of another process on this data directory, if one runs.
pub fn running(data_dir: &DataDir) -> Option<BrokerEndpoint> {
    data_dir.endpoint(SERVICE).and_then(|value| serde_json::from_value(value).ok())
}

/// Waits for a broker on this data directory, and says so; none when the user stopped the wait.
pub async fn wait_for_running(data_dir: &DataDir, page: SocketAddr, shutdown: &mut Shutdown) -> Option<BrokerEndpoint> {
    let mut said = false;
    loop {
        if let Some(endpoint) = running(data_dir) {
            return Some(endpoint);
        }
        if !said {
            said = true;
            say!(
                "Waiting for a broker on {}: start `finstream --role broker` there in another terminal, or give --brokers. \
                 The page is there already: http://{page}/",
                shown(data_dir.path())
            );
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.reached(Stage::Drain) => return None,
        }
    }
}

/// A path as the user would write it.
pub fn shown(path: &Path) -> String {
    let relative = std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    match relative {
        Some(relative) => format!("./{}", relative.display()),
        None => path.display().to_string(),
    }
}
