//! The session of a Fetch (KIP-227): from the request's fields to what is to be read, and from what was read to what the
//! client has to hear.
//!
//! Epoch 0 asks for a session, -1 for none, any other goes on in one. Whoever asks for a session that there is no room for,
//! or before version 7, is answered with session id 0 and all that it asked for.

use std::sync::Arc;
use std::time::Instant;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use uuid::Uuid;

use super::asked::once;
use super::fetch::{Targets, Topic};
use super::fetch_encoder::{Fetched, FetchedTopic};
use super::text;
use crate::broker::fetch_sessions::{
    FINAL_EPOCH, INITIAL_EPOCH, Key, NO_SESSION, News, SessionError, TopicKey, Turn, Wanted,
};
use crate::broker::node::Node;

/// The first version with sessions.
const SESSIONS_FROM: i16 = 7;
/// The first version that calls topics by their ids.
const IDS_FROM: i16 = 13;

/// What a request is to its session.
pub(super) enum Session {
    /// There is none.
    None,
    /// It begins with the answer.
    New,
    Turn(Turn),
}

impl Session {
    /// That of an answer that refuses to go on.
    pub fn id(&self) -> i32 {
        if let Session::Turn(turn) = self { turn.id } else { NO_SESSION }
    }
}

type NamedTopic = ((TopicName, Uuid), Vec<(i32, Wanted)>);

/// Partitions to read in their order, each once.
pub(super) struct Asked(Vec<NamedTopic>);

impl Asked {
    /// How many partitions.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(_, partitions)| partitions.len()).sum()
    }

    /// By topic; a session's order may name one more than once.
    pub fn into_topics(self) -> impl Iterator<Item = NamedTopic> {
        self.0.into_iter()
    }

    /// Of a request alone, with copies of its names.
    fn of_request(topics: Vec<FetchTopic>) -> Asked {
        let asked = topics.into_iter().map(|topic| ((topic.topic, topic.topic_id), topic.partitions));
        let named = once(asked, |partition| partition.partition).into_iter().map(|((name, id), partitions)| {
            ((TopicName(text(name.as_str())), id), partitions.iter().map(wish).collect())
        });
        Asked(named.collect())
    }

    /// Of all that a session wants.
    fn of_turn(turn: &mut Turn) -> Asked {
        let mut topics: Vec<NamedTopic> = Vec::new();
        let mut last: Option<TopicKey> = None;
        for ((topic, index), wanted) in std::mem::take(&mut turn.wanted) {
            if last.as_ref() != Some(&topic) {
                let named = match &topic {
                    TopicKey::Name(name) => (TopicName(text(&**name)), Uuid::nil()),
                    TopicKey::Id(id) => (TopicName::default(), *id),
                };
                topics.push((named, Vec::new()));
                last = Some(topic);
            }
            if let Some((_, partitions)) = topics.last_mut() {
                partitions.push((index, wanted));
            }
        }
        Asked(topics)
    }
}

/// What is to be read for a request, which its topics are taken from.
///
/// # Errors
/// It does not fit its session.
pub(super) fn open(node: &Node, request: &mut FetchRequest, version: i16) -> Result<(Asked, Session), SessionError> {
    let topics = std::mem::take(&mut request.topics);
    let (id, epoch) = (request.session_id, request.session_epoch);
    if version < SESSIONS_FROM {
        return Ok((Asked::of_request(topics), Session::None));
    }
    if matches!(epoch, INITIAL_EPOCH | FINAL_EPOCH) {
        if id != NO_SESSION {
            node.fetch_sessions.end(id);
        }
        let session = if epoch == INITIAL_EPOCH { Session::New } else { Session::None };
        return Ok((Asked::of_request(topics), session));
    }
    let uses_ids = version >= IDS_FROM;
    let wishes = topics.iter().flat_map(|topic| {
        let key = topic_key(&topic.topic, topic.topic_id, uses_ids);
        topic.partitions.iter().map(wish).map(move |(index, wanted)| ((key.clone(), index), wanted))
    });
    let forgotten: Vec<Key> = request.forgotten_topics_data.iter().flat_map(|topic| keys(topic, uses_ids)).collect();
    let now = Instant::now();
    let mut turn = node.fetch_sessions.go_on((id, epoch), uses_ids, wishes.collect(), &forgotten, now)?;
    Ok((Asked::of_turn(&mut turn), Session::Turn(turn)))
}

/// Leaves in the answer what the client has to hear; the session's id.
///
/// # Errors
/// Another request went on in the session meanwhile.
pub(super) fn close(
    node: &Node,
    session: &Session,
    targets: &Targets,
    answer: &mut Vec<FetchedTopic>,
    version: i16,
) -> Result<i32, SessionError> {
    let uses_ids = version >= IDS_FROM;
    match session {
        Session::None => Ok(NO_SESSION),
        Session::New => {
            let told = targets.iter().zip(&*answer).flat_map(|(topic, fetched)| told(topic, fetched, uses_ids));
            Ok(node.fetch_sessions.begin(uses_ids, told.collect(), Instant::now()))
        }
        Session::Turn(turn) if turn.id == NO_SESSION => Ok(NO_SESSION),
        Session::Turn(turn) => {
            let told = targets.iter().zip(&*answer).flat_map(|(topic, fetched)| told(topic, fetched, uses_ids));
            let news: Vec<(Key, News)> = told.map(|(key, _, news)| (key, news)).collect();
            let mut is_heard = node.fetch_sessions.hear(turn, &news)?.into_iter();
            for topic in &mut *answer {
                topic.partitions.retain(|_| is_heard.next().unwrap_or(true));
            }
            answer.retain(|topic| !topic.partitions.is_empty());
            Ok(turn.id)
        }
    }
}

fn told<'a>(
    topic: &'a Topic,
    fetched: &'a FetchedTopic,
    uses_ids: bool,
) -> impl Iterator<Item = (Key, Wanted, News)> + 'a {
    let key = topic_key(&topic.name, topic.id, uses_ids);
    let pairs = topic.targets.iter().zip(&fetched.partitions);
    pairs.map(move |(target, fetched)| ((key.clone(), target.index), target.wanted, news(fetched)))
}

fn news(fetched: &Fetched) -> News {
    News {
        high_watermark: fetched.data.high_watermark,
        log_start_offset: fetched.data.log_start_offset,
        has_records: !fetched.batches.is_empty(),
        is_error: fetched.data.error_code != 0,
    }
}

fn wish(partition: &FetchPartition) -> (i32, Wanted) {
    let wanted = Wanted {
        offset: partition.fetch_offset,
        bytes_max: partition.partition_max_bytes,
        leader_epoch: partition.current_leader_epoch,
        last_fetched_epoch: partition.last_fetched_epoch,
    };
    (partition.partition, wanted)
}

fn topic_key(name: &TopicName, id: Uuid, uses_ids: bool) -> TopicKey {
    if uses_ids { TopicKey::Id(id) } else { TopicKey::Name(Arc::from(name.as_str())) }
}

fn keys(topic: &ForgottenTopic, uses_ids: bool) -> impl Iterator<Item = Key> {
    let key = topic_key(&topic.topic, topic.topic_id, uses_ids);
    topic.partitions.iter().map(move |index| (key.clone(), *index))
}
