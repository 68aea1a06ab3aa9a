//! Manual pages and completions of the programs, from their flags.

use crate::roff::Page;
use anyhow::Result;
use clap::{Arg, Command};
use clap_complete::{Shell, generate};
use std::path::PathBuf;

/// The programs with the sections of their pages.
fn programs() -> [(Command, u8); 6] {
    [
        (xvmfs::config::command(), 8),
        (xvm_agentd::command(), 8),
        (xvm_imaged::command(), 8),
        (xvm_guestd::command(), 8),
        (xvm_bus::forwarder::command(), 8),
        (xvm_sim::flags::command(), 1),
    ]
}

/// `man/NAME.SECTION` and `completions/NAME.bash` of each program.
pub fn pages() -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for (mut command, section) in programs() {
        let name = command.get_name().to_owned();
        files.push((PathBuf::from(format!("man/{name}.{section}")), page(&mut command, section)));
        let mut completion = Vec::new();
        generate(Shell::Bash, &mut command, &name, &mut completion);
        files.push((PathBuf::from(format!("completions/{name}.bash")), String::from_utf8(completion)?));
    }
    Ok(files)
}

fn page(command: &mut Command, section: u8) -> String {
    command.build();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut p = Page::new(command.get_name(), section, lower_first(&about).trim_end_matches('.'));
    let usage = command.render_usage().to_string();
    p.section("SYNOPSIS").literal(usage.trim_start_matches("Usage: "));
    p.section("DESCRIPTION");
    let long = command.get_long_about().map(ToString::to_string).unwrap_or(about);
    for paragraph in long.split("\n\n") {
        p.text(&joined(paragraph));
    }
    p.section("OPTIONS");
    for arg in command.get_arguments() {
        option(&mut p, arg);
    }
    let after = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    for block in after.unwrap_or_default().split("\n\n") {
        match block.split_once(":\n") {
            Some((title, body)) if !title.contains('\n') => {
                p.section(&title.to_uppercase()).literal(&outdented(body));
            }
            _ => {
                p.section("NOTES").text(&joined(block));
            }
        }
    }
    p.section("SEE ALSO")
        .line(".BR xvm (4),\n.BR xvmfs (8),\n.BR agentd (8),\n.BR xvm-forwarder (8),\n.BR xvm-messages (5)");
    if section == 1 {
        p.line(".BR xvm-policy (7)");
    }
    p.finish()
}

fn option(p: &mut Page, arg: &Arg) {
    let mut names: Vec<String> = Vec::new();
    names.extend(arg.get_short().map(|c| format!("-{c}")));
    names.extend(arg.get_long().map(|l| format!("--{l}")));
    let values: Vec<String> = match arg.get_value_names() {
        Some(values) if arg.get_action().takes_values() => values.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let term = format!("{} {}", names.join(", "), values.join(" "));
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut paragraphs = help.split("\n\n").map(joined);
    p.item(term.trim(), &paragraphs.next().unwrap_or_default());
    for paragraph in paragraphs {
        p.more(&paragraph);
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        p.more(&format!("Default: {}.", defaults.join(" ")));
    }
}

fn joined(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn outdented(text: &str) -> String {
    text.lines().map(|l| l.strip_prefix("  ").unwrap_or(l)).collect::<Vec<_>>().join("\n")
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
