//! What no client should send: what each broker does with the connection.

use kafka_protocol::messages::{ApiVersionsRequest, HeartbeatRequest, MetadataRequest};

use super::batch::Batch;
use super::requests::{metadata, produce};
use super::scenario::{Scenario, scenario};
use super::wire::frame;

pub const SCENARIOS: &[Scenario] = &[
    scenario("a frame of an API that there is not", |s| {
        s.throw("API 999", &request(999, 0, &[]));
        s.throw("API -1", &request(-1, 0, &[]));
    }),
    scenario("a frame of an API of controllers", |s| {
        s.throw("Vote", &request(52, 0, &[0; 8]));
        s.throw("LeaderAndIsr", &request(4, 0, &[0; 8]));
    }),
    scenario("a frame of a version that there is not", |s| {
        s.throw("Metadata v99", &request(3, 99, &[0; 8]));
        s.throw("Metadata v-1", &request(3, -1, &[0; 8]));
        s.throw("Fetch v3", &request(1, 3, &[0; 32]));
        s.throw("Fetch v99", &request(1, 99, &[0; 32]));
        s.throw("CreateTopics v1", &request(19, 1, &[0; 16]));
        s.throw("JoinGroup v99", &request(11, 99, &[0; 16]));
    }),
    scenario("a Produce of a version that is advertised only", |s| {
        for version in 0..=2 {
            s.throw(&format!("Produce v{version}"), &request(0, version, &[0, 1, 0, 0, 0, 1, 0, 0, 0, 0]));
        }
    }),
    scenario("frames of impossible length", |s| {
        s.throw("length -1", &[0xff, 0xff, 0xff, 0xff]);
        s.throw("length of 2 GiB", &[0x7f, 0xff, 0xff, 0xff]);
        s.throw("length 0", &[0, 0, 0, 0]);
        s.throw("length 4", &[0, 0, 0, 4, 0, 3, 0, 0]);
    }),
    scenario("a frame of more than a hundred megabytes", |s| {
        s.throw("length 104857601", &[0x06, 0x40, 0x00, 0x01]);
    }),
    scenario("a browser and a TLS client", |s| {
        s.throw("GET", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        s.throw("ClientHello", &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]);
    }),
    scenario("a body cut short", |s| {
        let whole = frame(&metadata(&["a-topic"]), 5, 1);
        for missing in [1, 4, 9] {
            s.throw(&format!("{missing} bytes missing"), &with_length(&whole[4..whole.len() - missing]));
        }
    }),
    scenario("a flexible body cut short", |s| {
        let whole = frame(&metadata(&["a-topic"]), 12, 1);
        for missing in [1, 4, 9] {
            s.throw(&format!("{missing} bytes missing"), &with_length(&whole[4..whole.len() - missing]));
        }
    }),
    scenario("bytes behind a body", |s| {
        let mut whole = frame(&HeartbeatRequest::default(), 0, 1)[4..].to_vec();
        whole.extend([1, 2, 3]);
        s.throw("three bytes more", &with_length(&whole));
        let mut whole = frame(&HeartbeatRequest::default(), 4, 1)[4..].to_vec();
        whole.extend([1, 2, 3]);
        s.throw("three bytes more, flexible", &with_length(&whole));
    }),
    scenario("an array of more than there is", |s| {
        s.throw("a million topics", &request(3, 1, &[0, 0x0f, 0x42, 0x40]));
        s.throw("two billion topics", &request(3, 1, &[0x7f, 0xff, 0xff, 0xff]));
        s.throw("-2 topics", &request(3, 1, &[0xff, 0xff, 0xff, 0xfe]));
    }),
    scenario("a null where none may be", |s| {
        s.throw("Metadata v0 with null topics", &request(3, 0, &[0xff, 0xff, 0xff, 0xff]));
        s.throw("Metadata v1 with a topic without a name", &request(3, 1, &[0, 0, 0, 1, 0xff, 0xff]));
        s.throw("FindCoordinator v0 without a key", &request(10, 0, &[0xff, 0xff]));
    }),
    scenario("a text that is none", |s| {
        s.throw("a group of stray bytes", &request(12, 0, &[0, 2, 0xff, 0xfe, 0, 0, 0, 1, 0, 1, b'm']));
    }),
    scenario("a tag that nobody knows", |s| {
        let mut body = frame(&MetadataRequest::default().with_topics(Some(Vec::new())), 12, 1)[4..].to_vec();
        body.pop();
        // One tag, number 99, two bytes.
        body.extend([1, 99, 2, 7, 7]);
        s.throw("tag 99 behind the body", &with_length(&body));
    }),
    scenario("a header without a client id", |s| {
        let mut frame = vec![0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff];
        frame.extend([0, 0, 0, 0]);
        s.throw("Metadata v1 of nothing", &frame);
    }),
    scenario("a second request behind a first one that is wrong", |s| {
        let mut both = request(999, 0, &[]);
        both.extend(frame(&ApiVersionsRequest::default(), 0, 2));
        s.throw("API 999 and ApiVersions", &both);
    }),
    scenario("pipelined requests are answered in their order", |s| {
        let topic = s.topic("t", 1);
        let waiting: Vec<_> = (0..5).map(|_| s.send_at(9, produce(&topic, 0, Some(Batch::of(2).bytes())))).collect();
        waiting.into_iter().for_each(|waiting| drop(s.receive(waiting)));
    }),
];

/// A request's frame without a client id, in the header of old versions.
fn request(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = key.to_be_bytes().to_vec();
    frame.extend(version.to_be_bytes());
    frame.extend([0, 0, 0, 7, 0xff, 0xff]);
    frame.extend(body);
    with_length(&frame)
}

fn with_length(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}
