//! `kafka-topics.sh` as far as librdkafka's suite calls it, without Java.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaResult;

/// What was asked for.
#[derive(Default)]
struct Asked {
    server: String,
    action: String,
    topic: String,
    partitions: Option<i32>,
    configs: Vec<(String, String)>,
}

/// Carries out one command line, without the program's name; why not, if not.
pub fn main(arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let asked = parse(arguments)?;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &asked.server).create().map_err(|error| error.to_string())?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer: KafkaResult<Vec<TopicResult>> = runtime.block_on(async {
        match asked.action.as_str() {
            "--create" => {
                let mut topic = NewTopic::new(&asked.topic, asked.partitions.unwrap_or(1), TopicReplication::Fixed(1));
                for (name, value) in &asked.configs {
                    topic = topic.set(name, value);
                }
                admin.create_topics([&topic], &options).await
            }
            "--alter" => {
                let count = asked.partitions.unwrap_or_default().unsigned_abs() as usize;
                admin.create_partitions([&NewPartitions::new(&asked.topic, count)], &options).await
            }
            _ => admin.delete_topics(&[&asked.topic], &options).await,
        }
    });
    let results = answer.map_err(|error| error.to_string())?;
    results.into_iter().try_for_each(|result| result.map(drop).map_err(|(topic, error)| format!("{topic}: {error}")))
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked::default();
    while let Some(argument) = arguments.next() {
        if ["--create", "--alter", "--delete"].contains(&argument.as_str()) {
            asked.action = argument;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--bootstrap-server" => asked.server = value,
            "--topic" => asked.topic = value,
            "--partitions" => asked.partitions = Some(value.parse().map_err(|error| format!("{value}: {error}"))?),
            "--config" => {
                let (name, value) = value.split_once('=').ok_or_else(|| format!("{value}: no ="))?;
                asked.configs.push((name.to_string(), value.to_string()));
            }
            // One node.
            "--replication-factor" => {}
            _ => return Err(format!("{argument} is not known here")),
        }
    }
    if asked.action.is_empty() { Err("--create, --alter or --delete?".to_string()) } else { Ok(asked) }
}
