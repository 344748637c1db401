"""The consumer that most teams would write first: json, executemany, batches of 1,000, one upsert a message."""

import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import psycopg
from shared import arguments, drain, sequence_of

BATCH = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

INSERT_MESSAGE = """
insert into messages ("offset", sequence, scheduled_at, sent_at, received_at, partition)
values (%s, %s, %s, %s, %s, %s)"""

UPSERT_USER = """
insert into user_aggregates as t (user_id, currency, purchases, spend, refunds, refunded, trades, traded, first_event, last_event)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
on conflict (user_id, currency) do update
set purchases = t.purchases + excluded.purchases, spend = t.spend + excluded.spend,
    refunds = t.refunds + excluded.refunds, refunded = t.refunded + excluded.refunded,
    trades = t.trades + excluded.trades, traded = t.traded + excluded.traded,
    first_event = least(t.first_event, excluded.first_event), last_event = greatest(t.last_event, excluded.last_event)"""

UPSERT_SYMBOL = """
insert into symbol_aggregates as t (symbol, currency, trades, quantity, notional) values (%s, %s, 1, %s, %s)
on conflict (symbol, currency) do update
set trades = t.trades + 1, quantity = t.quantity + excluded.quantity, notional = t.notional + excluded.notional"""

UPSERT_PROGRESS = """
insert into progress (partition, next_offset) values (%s, %s)
on conflict (partition) do update set next_offset = excluded.next_offset"""


def time_of(microseconds):
    return None if microseconds is None else EPOCH + timedelta(microseconds=microseconds)


def message_row(message, transaction, received_at):
    scheduled_at = time_of(transaction.get("scheduled_at_us"))
    sent_at = time_of(transaction.get("sent_at_us"))
    return message.offset(), sequence_of(message), scheduled_at, sent_at, received_at, message.partition()


def user_row(transaction):
    amount, zero = Decimal(transaction["amount"]), Decimal(0)
    event_time = datetime.fromisoformat(transaction["event_time"])
    kind = transaction["type"]
    return (
        transaction["user_id"],
        transaction["currency"],
        int(kind == "purchase"),
        amount if kind == "purchase" else zero,
        int(kind == "refund"),
        amount if kind == "refund" else zero,
        int(kind == "trade"),
        amount if kind == "trade" else zero,
        event_time,
        event_time,
    )


def store(connection, batch):
    received_at = datetime.now(timezone.utc)
    transactions = [json.loads(message.value()) for message in batch]
    trades = [transaction for transaction in transactions if transaction["type"] == "trade"]
    next_offsets = {message.partition(): message.offset() + 1 for message in batch}
    with connection.transaction(), connection.cursor() as cursor:
        rows = [message_row(message, transaction, received_at) for message, transaction in zip(batch, transactions)]
        cursor.executemany(INSERT_MESSAGE, rows)
        cursor.executemany(UPSERT_USER, [user_row(transaction) for transaction in transactions])
        if trades:
            symbols = [(t["symbol"], t["currency"], t["quantity"], Decimal(t["amount"])) for t in trades]
            cursor.executemany(UPSERT_SYMBOL, symbols)
        cursor.executemany(UPSERT_PROGRESS, list(next_offsets.items()))


def main():
    asked = arguments()
    with psycopg.connect(asked.database, autocommit=True) as connection:
        drain(asked, connection, BATCH, store)


if __name__ == "__main__":
    main()
