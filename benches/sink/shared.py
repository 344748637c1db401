"""What both consumers share: their arguments, and a Kafka consumer that goes on where the database is.

The next offset of each partition is stored in the transaction that writes a batch, so totals are exact after a crash.
"""

import argparse
import json
import sys
import time

from confluent_kafka import Consumer


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--database", required=True, help="a connection string of libpq")
    parser.add_argument("--group", required=True)
    parser.add_argument("--messages", type=int, required=True, help="stop when so many are stored")
    return parser.parse_args()


def subscribe(asked, connection):
    consumer = Consumer(
        {
            "bootstrap.servers": asked.brokers,
            "group.id": asked.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )

    def assign(consumer, partitions):
        with connection.transaction():
            known = dict(connection.execute("select partition, next_offset from progress"))
        for partition in partitions:
            partition.offset = known.get(partition.partition, 0)
        consumer.assign(partitions)

    consumer.subscribe([asked.topic], on_assign=assign)
    return consumer


def messages_of(polled):
    """Those that are messages; an error ends the program, as an operator would want it."""
    for message in polled:
        if message.error() is not None:
            raise SystemExit(str(message.error()))
    return polled


def sequence_of(message):
    for name, value in message.headers() or ():
        if name == "finstream-sequence":
            return int(value)
    return None


def drain(asked, connection, batch_size, store):
    """Stores batches until as many messages are stored as were asked for."""
    consumer = subscribe(asked, connection)
    stored = 0
    while stored < asked.messages:
        batch = messages_of(consumer.consume(batch_size, timeout=0.1))
        if batch:
            store(connection, batch)
            stored += len(batch)
    say_done(consumer, stored)


def say_done(consumer, stored):
    """Tells when the last batch was committed, and waits until whoever measures has looked."""
    print(json.dumps({"stored": stored, "ended_at_us": time.time_ns() // 1000}), flush=True)
    sys.stdin.read()
    consumer.close()
