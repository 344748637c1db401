//! `finstream dead-letters`: what could not be stored, and how it is put through after a fix.

use serde_json::json;
use sqlx::PgConnection;

use super::database::DatabaseService;
use super::figures::thousands;
use super::{Exit, ask, plan, print};
use crate::aggregate::WindowLength;
use crate::cli::{Cli, DeadLettersArgs};
use crate::postgres::answered;
use crate::sink::{DeadLetter, Replay, SinkError, dead_letters, replay, window_length};

/// Longest wait for one answer of PostgreSQL.
const ANSWER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);
/// Characters shown of a message; `--json` shows all.
const SHOWN_CHARS_MAX: usize = 160;

/// `finstream dead-letters [--replay]`
///
/// # Errors
/// The database cannot be reached.
pub async fn run(cli: &Cli, arguments: &DeadLettersArgs) -> anyhow::Result<Exit> {
    let shared = &cli.shared;
    let data_dir = ask::existing_data_dir(shared)?;
    let database = ask::database(shared, &data_dir).await?;
    // Nobody is asked there.
    let topic = plan::kafka_settings(shared, &[], "").transactions_topic();
    ask::with_services(database, None, async |database| {
        let command = Command { json: shared.json, replays: arguments.replay, topic: &topic };
        command.carry_out(database).await
    })
    .await
}

struct Command<'a> {
    json: bool,
    replays: bool,
    topic: &'a str,
}

#[derive(Default)]
struct Tally {
    letters: u64,
    applied: u64,
    refused: u64,
}

impl Command<'_> {
    async fn carry_out(&self, database: &DatabaseService) -> anyhow::Result<Exit> {
        let mut connection = database.database().named("finstream dead-letters").connect().await?;
        let length = answered(ANSWER_DEADLINE, window_length(&mut connection)).await?;
        let (mut tally, mut after) = (Tally::default(), None);
        loop {
            let page = answered(ANSWER_DEADLINE, dead_letters(&mut connection, self.topic, after)).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.topic_ref, last.partition, last.offset));
            for letter in &page {
                self.one(&mut connection, letter, length, &mut tally).await?;
            }
        }
        self.conclude(&tally);
        Ok(if tally.refused > 0 { Exit::Failed } else { Exit::Done })
    }

    async fn one(
        &self,
        connection: &mut PgConnection,
        letter: &DeadLetter,
        length: WindowLength,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        tally.letters += 1;
        let replayed = match self.replays {
            true => Some(answered::<_, SinkError>(ANSWER_DEADLINE, replay(connection, letter, length)).await?),
            false => None,
        };
        match &replayed {
            Some(Replay::Applied) => tally.applied += 1,
            Some(Replay::Refused(_)) => tally.refused += 1,
            Some(Replay::Gone) | None => {}
        }
        print(&if self.json { as_json(letter, replayed.as_ref()) } else { as_text(letter, replayed.as_ref()) })
    }

    fn conclude(&self, tally: &Tally) {
        let Tally { letters, applied, refused } = tally;
        match (self.replays, letters) {
            (_, 0) => say!("There are no dead letters of {}.", self.topic),
            (false, _) => say!(
                "{} dead letters. Once what refused them is mended, finstream dead-letters --replay puts them through.",
                thousands(*letters)
            ),
            (true, _) => say!(
                "{} put through, {} still refused. The totals hold those that were put through; verify counts them.",
                thousands(*applied),
                thousands(*refused)
            ),
        }
    }
}

fn as_json(letter: &DeadLetter, replayed: Option<&Replay>) -> String {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let mut line = json!({
        "partition": letter.partition,
        "offset": letter.offset,
        "received_at": letter.received_at.to_string(),
        "reason": letter.reason,
        "run_id": letter.identity.map(|id| id.run.to_string()),
        "sequence": letter.identity.map(|id| id.sequence),
        "key": text(&letter.key),
        "payload": text(&letter.payload),
    });
    if let Some(replayed) = replayed {
        line["replay"] = match replayed {
            Replay::Applied => json!("applied"),
            Replay::Refused(reason) => json!({ "refused": reason }),
            Replay::Gone => json!("gone"),
        };
    }
    line.to_string()
}

fn as_text(letter: &DeadLetter, replayed: Option<&Replay>) -> String {
    let DeadLetter { partition, offset, received_at, reason, .. } = letter;
    let payload = letter.payload.as_deref().map_or_else(|| "no value".to_owned(), shown);
    let from = letter.identity.map_or_else(|| "foreign".to_owned(), |id| format!("run {} {}", id.run, id.sequence));
    let outcome = match replayed {
        None => String::new(),
        Some(Replay::Applied) => "\n  put through".to_owned(),
        Some(Replay::Refused(again)) => format!("\n  still refused: {again}"),
        Some(Replay::Gone) => "\n  somebody else has put it through".to_owned(),
    };
    format!("partition {partition} offset {offset}  received {received_at}  {from}\n  {reason}\n  {payload}{outcome}")
}

/// The message as far as it fits on a line, and harmless to a terminal.
fn shown(payload: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(payload).chars().take(SHOWN_CHARS_MAX + 1).collect();
    let cut = text.chars().count() > SHOWN_CHARS_MAX;
    let escaped: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .flat_map(|character| {
            let plain = !character.is_control();
            plain
                .then_some(character)
                .into_iter()
                .chain((!plain).then(|| character.escape_default()).into_iter().flatten())
        })
        .collect();
    if cut { format!("{escaped}…") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_message_is_shown_on_one_line_and_cannot_steer_the_terminal() {
        assert_eq!(shown(b"{\"a\":1}"), "{\"a\":1}");
        assert_eq!(shown(b"a\n\x1b[2Jb\0"), "a\\n\\u{1b}[2Jb\\u{0}");
        assert_eq!(shown(&[b'x'; 200]).chars().count(), 161);
        assert_eq!(shown(b"\xff"), "\u{fffd}");
    }
}
