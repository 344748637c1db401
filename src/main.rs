//! Parse, run one command, exit code.

use std::process::ExitCode;

use clap::Parser;
use finstream::cli::Cli;
use finstream::run;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run::main(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("finstream: {error:#}");
            run::exit_for(&error).into()
        }
    }
}
