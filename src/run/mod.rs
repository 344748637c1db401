//! Starts the chosen roles, stops them in order, and carries out the other commands.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::config::ConfigError;

/// Progress for people, on stderr. A terminal that is gone is no reason to stop, as it is for `eprintln`.
macro_rules! say {
    ($($text:tt)*) => { $crate::run::say_line(format_args!($($text)*)) };
}

mod ask;
mod conclude;
mod console;
mod database;
mod disk_guard;
mod exit;
mod figures;
mod gauges;
mod kafka;
mod keeping;
mod letters;
mod manuals;
mod pipeline;
mod plan;
mod process;
mod reset;
mod roles;
mod signals;
mod startup;
mod summary;

pub use exit::Exit;

/// Carries out what the command line asks for.
///
/// # Errors
/// What could not be done, in one line, with its cure.
pub fn main(cli: Cli) -> anyhow::Result<Exit> {
    start_log();
    crate::seam::arm_from_environment().map_err(ConfigError::new)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime's threads")?;
    let ended = runtime.block_on(async {
        match &cli.command {
            None => pipeline::run(&cli).await,
            Some(Command::Verify(arguments)) => ask::verify(&cli, arguments).await,
            Some(Command::Sql(arguments)) => ask::sql(&cli, arguments).await,
            Some(Command::DeadLetters(arguments)) => letters::run(&cli, arguments).await,
            Some(Command::Reset(arguments)) => reset::run(&cli, arguments).await,
            Some(Command::Completions(arguments)) => manuals::completions(arguments),
            Some(Command::Man(arguments)) => manuals::manual(arguments),
            Some(Command::Schema) => print(&crate::transaction::schema_json()).map(|()| Exit::Done),
            Some(Command::Openapi) => print(crate::http::openapi_json()).map(|()| Exit::Done),
        }
    });
    // Nothing is waited for any more: what had to be finished was awaited above.
    runtime.shutdown_background();
    ended
}

fn say_line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Tells an error in one line, each cause once.
pub fn tell(error: &anyhow::Error) {
    let mut line = String::from("finstream: ");
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Many errors repeat their cause in their own words.
        if !told.contains(&cause) {
            let separator = if told.is_empty() { "" } else { ": " };
            line.push_str(separator);
            line.push_str(&cause);
            told.push_str(&cause);
        }
    }
    say!("{line}");
}

/// The exit code of an error.
pub fn exit_for(error: &anyhow::Error) -> Exit {
    if error.is::<ConfigError>() { Exit::Usage } else { Exit::Failed }
}

/// Writes data to stdout. A reader that left early (`| head`) is not an error.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n')) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

/// What is told without being asked for: our own notices, other crates' warnings.
const LOG_FILTER_DEFAULT: &str = "warn,finstream=info";

/// The log goes to stderr; FINSTREAM_LOG asks for more or less, in tracing's own words.
fn start_log() {
    let asked = std::env::var("FINSTREAM_LOG").unwrap_or_else(|_| LOG_FILTER_DEFAULT.to_string());
    let filter = EnvFilter::try_new(&asked).unwrap_or_else(|error| {
        say!("FINSTREAM_LOG={asked} is not understood ({error}), so it is ignored; try FINSTREAM_LOG=finstream=debug.");
        EnvFilter::new(LOG_FILTER_DEFAULT)
    });
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(coloured)
        .with_target(false)
        .init();
}
