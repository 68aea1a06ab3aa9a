//! xvm(4): the tree, from the tables.

use crate::roff::Page;
use xvm_model::command::{CLUSTER_VERBS, DOMAIN_VERBS, SERVER_VERBS, Verb};
use xvm_model::failure::Code;
use xvmfs::row::Kind;
use xvmfs::tables::cluster::DIRECTORIES;

/// The page.
pub fn page() -> String {
    let mut p = Page::new("xvm", 4, "the virtual machines of a cluster as files");
    p.section("SYNOPSIS");
    let mut paths = String::from("xvmfs FORWARDER /xvm\n\n");
    for (directory, rows) in DIRECTORIES {
        for row in *rows {
            let slash = if row.kind.is_dir() { "/" } else { "" };
            let dir = if directory.is_empty() { String::new() } else { format!("{directory}/") };
            paths.push_str(&format!("/xvm/{dir}{}{slash}\n", row.name));
        }
    }
    paths.push_str("/xvm/servers/NAME/domains/DOMAIN -> ../../../domains/DOMAIN\n");
    p.literal(&paths);
    p.section("DESCRIPTION").text(
        "xvmfs(8) mounts what the server agents of a cluster say of themselves and of their domains, and says what is written. \
         A text file is rendered when it is opened and stays that text until it is closed; its size is its true length; its time \
         is when the thing was last heard of. Numbers are decimal; a load is a share from 0.00 to 1.00.",
    );
    for (directory, rows) in DIRECTORIES {
        p.section(if directory.is_empty() {
            "FILES OF THE ROOT"
        } else if directory.starts_with('s') {
            "FILES OF A SERVER"
        } else {
            "FILES OF A DOMAIN"
        });
        for row in *rows {
            let access = match row.kind {
                Kind::Setting(..) => " (read, write)",
                Kind::Ctl => " (read, write: commands)",
                _ => "",
            };
            let slash = if row.kind.is_dir() { "/" } else { "" };
            p.item(&format!("{}{slash}", row.name), &format!("{:04o}{access}: {}.", row.mode, row.about));
        }
    }
    p.section("COMMANDS").text(
        "One line is one command: words separated by spaces, at most 4096 bytes of UTF-8. Several lines in one write run in order \
         and stop at the first that fails; a file that is open for writing alone then takes nothing more until it is closed. A line may arrive in pieces; it runs at its newline, or at close. The write returns when \
         the daemon that carries the command out has accepted or refused it. Reading ctl gives the commands and the state; reading \
         the descriptor that wrote gives the answer.",
    );
    verbs(&mut p, "ctl", CLUSTER_VERBS);
    verbs(&mut p, "servers/NAME/ctl", SERVER_VERBS);
    verbs(&mut p, "domains/NAME/ctl", DOMAIN_VERBS);
    p.subsection("mv servers/A/domains/D servers/B/domains/")
        .text("migrates the domain D from A to B, like migrate B in its ctl.");
    p.section("JOBS").text(
        "start, shutdown, reboot and migrate go on after the write has returned. The file job shows how far; reading wait blocks \
         until no job runs and tells how the last one ended; cancel ends it cleanly. While a migration runs nothing but cancel is taken.",
    );
    p.section("EVENTS").text(
        "The first line of an events file says that listening has begun; each further line is one event: time, what it is about, \
         what happened. poll(2) works. A read waits for the next event; tail -f, cat, while read and programs follow it so.",
    ).text(
        "Copies and searches of whole directories end by themselves: what reads a file up to its size (tar, rsync) gets the first \
         line, and a process that has listed the directory and read another of its files within the last five seconds \
         (cp -r, diff -r, grep -r) finds the end of the file after it. A plain cp, grep or cat that names the file waits.",
    );
    p.section("BOUNDS").text(
        "No call waits for the network longer than 5 seconds. Files that are only read never wait for it at all: what was last heard \
         is shown, and age tells how old it is. A read of events or wait is interrupted each second, so that a signal ends it.",
    );
    p.section("ERRORS")
        .text("The errno says the kind; the file error of the same directory keeps the sentence.");
    for code in Code::ALL {
        p.item(code.name(), meaning(*code));
    }
    p.section("SEE ALSO")
        .line(".BR xvmfs (8),\n.BR agentd (8),\n.BR xvm-forwarder (8),\n.BR xvm-messages (5)");
    p.finish()
}

fn verbs<C>(p: &mut Page, path: &str, verbs: &[Verb<C>]) {
    p.subsection(path);
    for verb in verbs {
        p.item(&verb.usage(), &format!("{}.", verb.about));
    }
}

fn meaning(code: Code) -> &'static str {
    match code {
        Code::Permission => {
            "This cannot be done here at all: the tree has no files to make, remove or rename; or the domain is pinned elsewhere."
        }
        Code::NoEntry => "No such server, domain or file.",
        Code::Io => "The hypervisor said no; the sentence holds its words.",
        Code::Access => "The mode of the file forbids it.",
        Code::Busy => "Wrong state, or a job runs.",
        Code::Exists => "It is there already.",
        Code::Invalid => "Unknown command, wrong number of words, or a bad value.",
        Code::NoSpace => "No server has room.",
        Code::NotSupported => "This hypervisor cannot do it.",
        Code::TimedOut => "No answer in time: the outcome is unknown, and the sentence says how to find out.",
        Code::HostDown => "The server is down, or its agent does not hear its hypervisor.",
        Code::HostUnreachable => "There is no forwarder.",
    }
}
