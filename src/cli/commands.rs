//! What finstream does instead of running its roles.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const VERIFY_EXITS: &str = "\
Exit codes:
  0  the books balance
  1  they do not; the differences are named
  2  bad usage
  3  it cannot be decided: something is missing, or there is nothing to verify
  4  it could not be done";

const DEAD_LETTERS_EXITS: &str = "\
With --json: one object a line.

Exit codes:
  0  listed; with --replay, all were put through
  2  bad usage
  4  it could not be done, or some are still refused";

const COMPLETIONS_HELP: &str = "\
Where it belongs:
  bash  finstream completions bash > ~/.local/share/bash-completion/completions/finstream
  zsh   finstream completions zsh > \"${fpath[1]}/_finstream\"
  fish  finstream completions fish > ~/.config/fish/completions/finstream.fish";

/// What to do instead of running the pipeline.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Do the books balance? Compares ledger, log and PostgreSQL to the cent
    #[command(after_help = VERIFY_EXITS)]
    Verify(VerifyArgs),
    /// psql on the totals, or the answer to QUERY
    Sql(SqlArgs),
    /// What could not be stored, and why; with --replay it is put through after a fix
    #[command(name = "dead-letters", after_help = DEAD_LETTERS_EXITS)]
    DeadLetters(DeadLettersArgs),
    /// Start over (says what goes, and asks), or skip lost records on record
    Reset(ResetArgs),
    /// Print the JSON schema of a transaction
    Schema,
    /// Print the OpenAPI document of the HTTP API
    Openapi,
    /// Print what completes finstream's flags in a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Print the manual page, or that of COMMAND; read it with `finstream man | man -l -`
    Man(ManArgs),
}

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Further ledger folders, of producers elsewhere
    #[arg(long, value_name = "DIR")]
    pub ledger: Vec<PathBuf>,
}

/// Flags of `sql`.
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// The question; without one, psql is opened
    pub query: Option<String>,
}

/// Flags of `dead-letters`.
#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    /// Put each through that can be stored now: a row and part of the totals, in one transaction. Consumers may run
    #[arg(long)]
    pub replay: bool,
}

/// Flags of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The topic of which a partition is moved [default: everything in the data directory goes]
    #[arg(long, requires_all = ["partition", "to"])]
    pub topic: Option<String>,
    /// The partition to move
    #[arg(long, requires = "topic")]
    pub partition: Option<i32>,
    /// The offset of the next record to apply
    #[arg(long, requires = "topic")]
    pub to: Option<i64>,
    /// Agree that records between are not counted; the audit will name them
    #[arg(long, requires = "topic")]
    pub accept_loss: bool,
    /// Agree that records which are in the totals already are counted once more
    #[arg(long, requires = "topic")]
    pub count_again: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Flags of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// One of the commands
    pub command: Option<String>,
}
