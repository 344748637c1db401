//! The command line explains itself: completions for each shell, manual pages for each command.

use std::process::{Command, Stdio};

use crate::support::Sandbox;

fn told(arguments: &[&str]) -> String {
    let output = Sandbox::new().run(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `help` lists under Commands.
fn commands() -> Vec<String> {
    let help = told(&["--help"]);
    let listed = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names = listed.lines().filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn bash_completes_flags_and_commands() {
    let script = told(&["completions", "bash"]);
    let ask =
        "COMP_WORDS=(finstream --batch-); COMP_CWORD=1; _finstream finstream --batch- finstream; echo ${COMPREPLY[@]}";
    let mut bash = Command::new("bash").arg("--norc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut bash.stdin.take().unwrap(), format!("{script}\n{ask}\n").as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    let offered = String::from_utf8(output.stdout).unwrap();
    assert!(offered.contains("--batch-max") && offered.contains("--batch-wait"), "{offered}");
    for shell in ["zsh", "fish"] {
        assert!(told(&["completions", shell]).contains("dead-letters"), "{shell}");
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let commands = commands();
    assert!(commands.len() >= 7, "{commands:?}");
    let main = told(&["man"]);
    assert!(
        main.starts_with(".ie") && main.contains(".TH finstream 1") && main.contains("\\-\\-batch\\-wait"),
        "{main}"
    );
    for command in commands {
        let page = told(&["man", &command]);
        assert!(page.contains(&format!(".TH finstream-{command} 1")), "{page}");
        assert!(page.contains(".SH DESCRIPTION") || page.contains(".SH NAME"), "{page}");
    }
    let output = Sandbox::new().run(&["man", "nonsense"]);
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("nonsense") && said.contains("verify"), "{said}");
}
