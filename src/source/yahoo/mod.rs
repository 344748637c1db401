//! Live trades from Yahoo Finance: a thread of its own asks, politely, and whoever publishes takes what there is.
//!
//! `client` asks, `poll` says when and what for, `tape` makes trades of the answers.

use std::thread::{Builder, JoinHandle};

use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::oneshot;

use self::client::Client;
use self::poll::Poller;
use super::{Draft, Next, SkipReport, Source, SourceError, check_users, files};
use crate::config::YahooSettings;
use crate::transaction::SYMBOL_CHARS_MAX;

mod client;
mod poll;
mod tape;

const MINUTE_US: i64 = 60_000_000;
/// All of them are asked for in one request.
const SYMBOLS_MAX: usize = 50;
/// Trades that wait to be published, at most: whoever asks waits then.
const WAITING_MAX: usize = 4_096;
/// Characters of a symbol that an error repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// What the thread that asks has to say.
enum News {
    Trade(Box<Draft>),
    Skipped(&'static str, String),
    Kept(&'static str, String),
    Failed(SourceError),
}

/// Live trades. Dropping it ends the thread.
pub(super) struct Yahoo {
    symbols: Vec<String>,
    /// None only while it is dropped.
    news: Option<mpsc::Receiver<News>>,
    thread: Option<JoinHandle<()>>,
    skipped: SkipReport,
}

impl Yahoo {
    /// Whether the symbols can be asked for; Yahoo is not asked yet.
    pub(super) fn check(settings: &YahooSettings) -> Result<(), SourceError> {
        check_users(settings.users)?;
        let refuse = |why: String| Err(SourceError::Setting(format!("--source yahoo: {why}")));
        let symbols = &settings.symbols;
        if symbols.is_empty() || symbols.len() > SYMBOLS_MAX {
            return refuse(format!("{} symbols are not within 1 to {SYMBOLS_MAX}", symbols.len()));
        }
        for (place, symbol) in symbols.iter().enumerate() {
            let shown = files::shorten(symbol, SHOWN_CHARS_MAX);
            if symbol.contains('&') {
                return refuse(format!("{shown:?} cannot be asked for live; --source yfinance:FILE takes it"));
            }
            if !is_symbol(symbol) {
                return refuse(format!(
                    "{shown:?} is no symbol of at most {SYMBOL_CHARS_MAX} capitals, digits and .^=- such as AAPL, BRK-B, ^GSPC"
                ));
            }
            if symbols[..place].contains(symbol) {
                return refuse(format!("{symbol} stands there twice"));
            }
        }
        Ok(())
    }

    /// Waits for the first answer, so that who is offline learns it now.
    pub(super) fn open(settings: &YahooSettings) -> Result<Yahoo, SourceError> {
        Yahoo::check(settings)?;
        let client = Client::new(settings)?;
        let (sender, news) = mpsc::channel(WAITING_MAX);
        let (ready, first) = oneshot::channel();
        let poller = Poller::new(settings, client, sender.clone(), ready);
        let failed = |error: std::io::Error| SourceError::Setting(format!("--source yahoo: no thread starts: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let ask = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = sender.closed() => {}
                    () = poller.run() => {}
                }
            });
            // A look-up of a name may hang for long; nobody waits for it.
            runtime.shutdown_background();
        };
        let thread = Builder::new().name("yahoo".to_owned()).spawn(ask).map_err(failed)?;
        let symbols = settings.symbols.clone();
        let yahoo = Yahoo { symbols, news: Some(news), thread: Some(thread), skipped: SkipReport::default() };
        // An error is a thread that ended without a word, which is noticed when trades are asked for.
        first.blocking_recv().unwrap_or(Ok(())).map(|()| yahoo)
    }
}

fn is_symbol(symbol: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b".^=-".contains(&byte);
    (1..=SYMBOL_CHARS_MAX).contains(&symbol.len())
        && symbol.bytes().all(is_known)
        && symbol.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

impl Drop for Yahoo {
    fn drop(&mut self) {
        // Without a receiver the thread ends, whatever it waits for.
        self.news = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Source for Yahoo {
    fn next_into(&mut self, out: &mut Draft) -> Result<Next, SourceError> {
        loop {
            match self.news.as_mut().map_or(Err(TryRecvError::Disconnected), mpsc::Receiver::try_recv) {
                Ok(News::Trade(draft)) => {
                    *out = *draft;
                    return Ok(Next::Draft);
                }
                Ok(News::Skipped(kind, why)) => self.skipped.note(kind, || why),
                Ok(News::Kept(kind, why)) => self.skipped.note_kept(kind, || why),
                Ok(News::Failed(error)) => return Err(error),
                Err(TryRecvError::Empty) => return Ok(Next::NotYet),
                Err(TryRecvError::Disconnected) => {
                    return Err(SourceError::Setting("--source yahoo: the thread that asks has ended".to_owned()));
                }
            }
        }
    }

    fn describe(&self) -> String {
        format!("yahoo:{}", self.symbols.join(","))
    }

    fn total(&self) -> Option<u64> {
        None
    }

    fn skipped(&self) -> SkipReport {
        self.skipped.clone()
    }

    fn fingerprint(&self) -> Option<String> {
        None
    }

    fn has_event_times(&self) -> bool {
        true
    }
}
