//! What a shell and `man` are told about the command line, from the command line's own types.

use clap::CommandFactory;

use super::Exit;
use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::config::ConfigError;

/// Prints a completion script.
pub(super) fn completions(arguments: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "finstream", &mut script);
    super::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// Prints the manual page of finstream, or of one of its commands.
///
/// # Errors
/// There is no such command.
pub(super) fn manual(arguments: &ManArgs) -> anyhow::Result<Exit> {
    // What the short help leaves out belongs into a manual.
    let whole = |command: clap::Command| command.mut_args(|argument| argument.hide_short_help(false));
    let mut all = whole(Cli::command()).mut_subcommands(whole);
    // Flags that each command understands are in each page.
    all.build();
    let command = match &arguments.command {
        None => all,
        Some(name) => {
            let known: Vec<&str> = all.get_subcommands().map(clap::Command::get_name).collect();
            let unknown = || ConfigError::new(format!("no command {name:?}: write one of {}", known.join(", ")));
            let found = all.find_subcommand(name).ok_or_else(unknown)?;
            found.clone()
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    super::print(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Done)
}
