//! Parse, run one command, exit code.

use std::process::ExitCode;

use finstream::cli::Cli;
use finstream::run;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::from_process();
    match run::main(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            run::tell(&error);
            run::exit_for(&error).into()
        }
    }
}
