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
        p.section(match directory.split('/').next() {
            Some("servers") => "FILES OF A SERVER",
            Some("domains") => "FILES OF A DOMAIN",
            Some("help") => "FILES OF A ROUND OF HELP",
            _ => "FILES OF THE ROOT",
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
    p.section("BALANCING").text(
        "A server that is overloaded by its policy asks the others for help; one domain moves to the server whose offer it takes, and \
         help/ROUND keeps what was asked, offered, taken and declined, and why. xvm-policy(7) tells the rules. \
         balance off in the ctl of the root ends that for the whole cluster until balance on; balance dry-run goes on to ask and to \
         record, and moves nothing. Each server keeps the word, the latest is in force, and a server that was down learns it from \
         the others; status tells while it is not known to all.",
    ).text(
        "evacuate in the ctl of a server gives all its domains to others and accepts none; restore brings them back. They work also \
         while balance is off.",
    ).text(
        "No move, by help or by order, brings two domains of one apart group to one server, leaves a domain of a with group \
         behind alone, or leads to a server outside of pin; an order that would do so is refused with EPERM.",
    ).text(
        "status of a domain tells how it came to its server: came FROM TIME ROUND WHY, with - for the round when it was ordered.",
    );
    p.section("JOBS").text(
        "start, shutdown, reboot and migrate go on after the write has returned. The file job shows how far; reading wait blocks \
         until no job runs and tells how the last one ended; cancel ends it cleanly. While a migration runs nothing but cancel is taken. \
         evacuate and restore are jobs of a server, with job, wait and cancel in its directory.",
    );
    p.section("EVENTS").text(
        "The first line of an events file says that listening has begun; each further line is one event: time, what it is about, \
         what happened. poll(2) works. A read waits for the next event; tail -f, cat, while read and programs follow it so.",
    );
    p.text("A round of help tells its steps at the root and at the server that asked:").literal(
        "TIME server NAME help ROUND asks: WHY\n\
         TIME server NAME help ROUND offer HELPER DOMAIN projected LOAD\n\
         TIME server NAME help ROUND refused by HELPER: WHY\n\
         TIME server NAME help ROUND accepts HELPER for DOMAIN\n\
         TIME server NAME help ROUND declined HELPER: WHY\n\
         TIME server NAME help ROUND ended: SENTENCE\n\
         TIME server NAME help ROUND brought: load AFTER (was BEFORE), points AFTER (was BEFORE)",
    );
    p.text(
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
    p.section("SEE ALSO").line(
        ".BR xvmfs (8),\n.BR agentd (8),\n.BR xvm-forwarder (8),\n.BR xvm-messages (5),\n.BR xvm-policy (7)",
    );
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
            "This cannot be done here at all: the tree has no files to make, remove or rename; or the domain is pinned elsewhere, or one of its groups forbids it."
        }
        Code::NoEntry => "No such server, domain or file.",
        Code::Io => "The hypervisor said no; the sentence holds its words.",
        Code::Access => "The mode of the file forbids it.",
        Code::Busy => "Wrong state, or a job runs.",
        Code::Exists => "It is there already.",
        Code::Invalid => "Unknown command, wrong number of words, or a bad value.",
        Code::NoSpace => "No server has room, or may take the domain.",
        Code::NotSupported => "This hypervisor cannot do it.",
        Code::TimedOut => "No answer in time: the outcome is unknown, and the sentence says how to find out.",
        Code::HostDown => "The server is down, or its agent does not hear its hypervisor.",
        Code::HostUnreachable => "There is no forwarder.",
    }
}
