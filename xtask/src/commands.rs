//! Manual pages and completions of the programs, from their flags.

use anyhow::Result;
use clap::Command;
use clap_complete::{Shell, generate};
use std::path::PathBuf;

fn programs() -> [Command; 3] {
    [xvmfs::command(), xvm_agentd::command(), xvm_bus::forwarder::command()]
}

/// `man/NAME.8` and `completions/NAME.bash` of each program.
pub fn pages() -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for mut command in programs() {
        let name = command.get_name().to_owned();
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).section("8").date("November 2026").render(&mut page)?;
        files.push((PathBuf::from(format!("man/{name}.8")), tidy(&String::from_utf8(page)?)));
        let mut completion = Vec::new();
        generate(Shell::Bash, &mut command, &name, &mut completion);
        files.push((PathBuf::from(format!("completions/{name}.bash")), String::from_utf8(completion)?));
    }
    Ok(files)
}

/// What mandoc objects to: blank lines outside of literal text, and blanks at the ends of lines.
fn tidy(page: &str) -> String {
    let mut out = String::new();
    let mut literal = false;
    for line in page.lines().map(str::trim_end) {
        literal = match line {
            ".nf" => true,
            ".fi" => false,
            _ => literal,
        };
        if line.is_empty() && !literal {
            out.push_str(".PP\n");
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
