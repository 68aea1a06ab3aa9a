//! xvm(4): the tree, from the tables.

use crate::roff::Page;
use xvm_model::command::{CLUSTER_VERBS, DOMAIN_VERBS, SERVER_VERBS, Verb};
use xvm_model::failure::Code;
use xvm_model::guest::command::GUEST_VERBS;
use xvm_model::images::CONFIG_VERBS;
use xvm_model::schedule::SCHEDULE_VERBS;
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
        "xvmfs(8) mounts what the server agents of a cluster say of themselves and of their domains, and imaged of configs, and says what is written. \
         A text file is rendered when it is opened and stays that text until it is closed; its size is its true length; its time \
         is when the thing was last heard of. Numbers are decimal; a load is a share from 0.00 to 1.00.",
    );
    for (directory, rows) in DIRECTORIES {
        p.section(match *directory {
            "servers/NAME" => "FILES OF A SERVER",
            "domains/NAME" => "FILES OF A DOMAIN",
            "domains/NAME/guest" => "FILES OF A GUEST",
            "help/ROUND" => "FILES OF A ROUND OF HELP",
            "configs/NAME" => "FILES OF A CONFIG",
            "tests/NAME" => "FILES OF A SCHEDULE OF TESTS",
            _ => "FILES OF THE ROOT",
        });
        for row in *rows {
            let access = match row.kind {
                Kind::Setting(..) | Kind::Schedule(_) | Kind::Key(_) => " (read, write)",
                Kind::Ctl => " (read, write: commands)",
                Kind::Lines(..) => " (read, write: lines)",
                _ => "",
            };
            let slash = if row.kind.is_dir() { "/" } else { "" };
            p.item(&format!("{}{slash}", row.name), &format!("{:04o}{access}: {}.", row.mode, row.about));
            if let Kind::Key(setting) = row.kind {
                p.more(&format!("May be changed {}.", setting.when));
            }
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
    verbs(&mut p, "domains/NAME/guest/ctl", GUEST_VERBS);
    verbs(&mut p, "configs/NAME/ctl", CONFIG_VERBS);
    verbs(&mut p, "tests/NAME/ctl", SCHEDULE_VERBS);
    p.subsection("mv servers/A/domains/D servers/B/domains/")
        .text("migrates the domain D from A to B, like migrate B in its ctl.");
    p.subsection("mkdir configs/NAME").text(
        "makes a config with the site's defaults, see xvm-config(5), and begins to make its volumes and its image, a job. It returns when \
         imaged has accepted it; the directory is there then. The config belongs to who made it, with the mode of the directory as \
         mkdir(1) and the umask say. Who may is said by the mode of configs, see the option configs= of xvmfs(8).",
    );
    p.subsection("rmdir configs/NAME").text(
        "removes a config that does not run (else EBUSY). Its volumes stay for a day: restore NAME in the ctl of the root brings it back. \
         Nothing else removes: rm -rf, find -delete and the like fail on the files of the directory, and a program that has tried to \
         remove one of them cannot remove the directory any more (EPERM). A refusal stands in the file error of the config and of the \
         root.",
    );
    p.subsection("mkdir tests/NAME, rmdir tests/NAME")
        .text("makes and removes a schedule of tests; one whose tests run is not removed (EBUSY).");
    p.section("TESTS").text(
        "A schedule says which tests run when in which guests: write it to tests/NAME/schedule, then start in its ctl. Lines are carried \
         out when their time has come, in each domain whose guestd is heard then and that the pattern names; in one domain one after \
         the other. A test is ordered once: when its guest is started anew, or is not heard for a minute, its end is unknown and it is not \
         repeated. cancel orders nothing more and ends what runs, and what waits there besides. Results say where each domain was at the \
         beginning and at the end, so the same schedule with balance on and off tells what balancing brings: paste(1) lays two summaries \
         side by side. Schedules and their results are the mount's own; they are kept where its option tests= says, and one that was being \
         carried out when the mount ended is interrupted. At the end there is an event at the root: TIME tests NAME STATE: N of M tests done \
         in SECONDS s.",
    );
    p.section("CONFIGS").text(
        "A config is the definition of a domain with its volumes. start in its ctl runs it: the server gets a lease, which is the right to \
         use the volumes, and the domain appears under domains/NAME. No second server gets one, but for the time of a migration. status \
         tells who holds it: lease SERVER NUMBER PHASE. A config is running while its server is heard, and lost when that is down; restart \
         always then starts it elsewhere.",
    ).text(
        "The settings are files: a value is checked when it is written (EINVAL), then imaged takes it, or refuses it with EBUSY while the \
         domain runs. What is written to keys through one open file is one value of up to 64 KiB, a line a key; each write that ends a line \
         sets what was written so far, and after the first one waits up to 2 seconds for the job that this began.",
    ).text(
        "log is a file that grows: cat ends at its end, tail -f follows it. It is not kept by the mount, so a read of it waits for imaged, \
         5 seconds at most: EHOSTDOWN when imaged is down, ETIMEDOUT when it does not answer.",
    ).text(
        "libvirt.xml and xl.cfg name the exports of the lease. Without one they show what would be run, with SERVER and 0 in the names of \
         the exports, and a comment that says so; where a server keeps its files and which bridge it has is known to that server alone.",
    ).text(
        "A cluster has one imaged. Of two the one that was heard first counts until it is down, and an event at the root tells of the \
         other. While imaged is down, what it said last is shown, nobody can change it, and running domains go on.",
    );
    p.section("GUESTS").text(
        "guestd(8) in a domain says how the domain is from within, and runs tests; domains/NAME/guest is there while it is heard, and is \
         gone when ten of its heartbeats are missing, as when the domain is paused. What guests say is not trusted: it is bounded, \
         characters that control a terminal are replaced, and of a guest that says more than 20 messages a second the rest is dropped, \
         which an event of the domain tells. Who owns the domain's directory owns that of its guest. An order is refused with EHOSTDOWN \
         when three heartbeats are missing.",
    ).text(
        "A line that is written to run is a test. Tests run one after the other in the order in which they were written; 16 may wait. \
         The write returns when the guest has taken each, reading result then waits for the last one: ",
    ).literal(
        "echo fibonacci 38 > domains/small-1/guest/run\n\
         cat domains/small-1/guest/result",
    ).text(
        "top asks the guest for its processes while it is read. The first read waits for a fresh snapshot, 5 seconds at most \
         (ETIMEDOUT), and its end is an end of file, so cat prints one; who reads on at that place gets the next one, when it has come, \
         so tail -n +1 -f follows. Its size is 0 until it was read, and stat(2) of the open file tells how far it has grown. \
         The guest is asked until the file is closed. A program that walks through the directory (see EVENTS) finds top, and result while \
         a test runs, empty.",
    ).text(
        "load in the ctl of a domain goes to its guest when that is heard, else to its hypervisor.",
    );
    p.text("A guest tells its life in the events of its domain:").literal(
        "TIME domain NAME guest up\n\
         TIME domain NAME guest started anew\n\
         TIME domain NAME guest down\n\
         TIME domain NAME guest run STATE LINE: SECONDS s\n\
         TIME domain NAME guest floods the bus: what it says too much is dropped",
    );
    p.section("RIGHTS").text(
        "Who mounts owns all files (uid= and gid= of xvmfs(8) say otherwise), and modes are fixed, but for configs: chown, chgrp and chmod \
         on configs/NAME, or on domains/NAME where that was made from a config (has its uuid), say who may see and command the config and its domain. Both \
         directories have that owner and mode; a file can be read where the directory's mode has an r, and, when it takes writes at all, \
         written where that has a w. The choice is kept with the config. What clone and create make belongs to who had opened the ctl, with \
         mode 0755. The kernel enforces all of it; others than who mounts need the option allow_other.",
    );
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
    p.text("A config tells its life at the root and in its own directory; its leases also at the server:")
        .literal(
            "TIME config NAME appeared: STATE\n\
         TIME config NAME job KIND\n\
         TIME config NAME state STATE (was STATE)\n\
         TIME config NAME done KIND: SENTENCE\n\
         TIME config NAME failed KIND: ERRNO SENTENCE\n\
         TIME config NAME lease SERVER NUMBER\n\
         TIME config NAME lease SERVER NUMBER ended\n\
         TIME config NAME wrong: line LINE: WHY\n\
         TIME config NAME no longer wrong\n\
         TIME config NAME gone\n\
         TIME cluster imaged up|stale|down on SERVER",
        );
    p.text(
        "Copies and searches of whole directories end by themselves: what reads a file up to its size (tar, rsync) gets the first \
         line, and a process that has listed the directory and read another of its files within the last five seconds \
         (cp -r, diff -r, grep -r) finds the end of the file after it. A plain cp, grep or cat that names the file waits.",
    );
    p.section("BOUNDS").text(
        "No call waits for the network longer than 5 seconds. Files that are only read never wait for it at all, but for the log of a config and the top of a guest: what was last heard \
         is shown, and age tells how old it is. A read of events or wait is interrupted each second, so that a signal ends it.",
    );
    p.section("ERRORS")
        .text("The errno says the kind; the file error of the same directory keeps the sentence.");
    for code in Code::ALL {
        p.item(code.name(), meaning(*code));
    }
    p.section("SEE ALSO").line(
        ".BR xvmfs (8),\n.BR agentd (8),\n.BR xvm-forwarder (8),\n.BR xvm-config (5),\n.BR xvm-messages (5),\n.BR xvm-policy (7)",
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
            "This cannot be done here at all: the tree has no files to make, remove or rename but configs and schedules of tests; or the domain is pinned elsewhere, or one of its groups forbids it."
        }
        Code::NoEntry => "No such server, domain, config, schedule or file.",
        Code::Io => {
            "The hypervisor, or a tool that makes volumes and images, said no; the sentence holds its words."
        }
        Code::Access => "The mode of the file forbids it.",
        Code::Busy => "Wrong state, or a job runs.",
        Code::Exists => "It is there already.",
        Code::Invalid => "Unknown command, wrong number of words, or a bad value.",
        Code::NoSpace => "No server has room, or may take the domain; or there is no room for the volumes.",
        Code::NotSupported => "This hypervisor cannot do it.",
        Code::TimedOut => "No answer in time: the outcome is unknown, and the sentence says how to find out.",
        Code::HostDown => {
            "The server is down, or its agent does not hear its hypervisor; or imaged or guestd is down, or was never heard."
        }
        Code::HostUnreachable => "There is no forwarder.",
    }
}
