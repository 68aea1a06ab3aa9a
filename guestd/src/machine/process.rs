//! `/proc/PID/stat`, `status` and `cmdline`, and `/etc/passwd`.

use std::collections::HashMap;
use xvm_model::guest::TEXT_MAX;

/// The longest command that is told, in characters.
const COMMAND_CHARS: usize = 200;
/// The flag of a kernel thread.
const PF_KTHREAD: u64 = 0x0020_0000;

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its program's name, 15 bytes at most; the kernel's threads have longer ones.
    pub name: String,
    /// Whether it is a thread of the kernel.
    pub kernel: bool,
    /// CPU time that it used itself, in clock ticks.
    pub ticks: u64,
    /// CPU time of its children that have ended and that it has waited for, in clock ticks.
    pub children: u64,
    /// When it began, in clock ticks since the boot: with the number it is this process and no other.
    pub began: u64,
    /// Memory that it has in use, in pages.
    pub pages: u64,
}

/// Reads `/proc/PID/stat`. The name stands in parentheses and may hold any byte, parentheses and line ends too.
pub fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let text = String::from_utf8_lossy(bytes);
    let (front, rest) = text.rsplit_once(')')?;
    let (_, name) = front.split_once('(')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // the field that proc(5) calls N is the one N - 3 here
    let field = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
    Some(Stat {
        name: name.to_owned(),
        kernel: field(9)? & PF_KTHREAD != 0,
        ticks: field(14)?.saturating_add(field(15)?),
        // signed in the kernel's text, never negative in fact
        children: field(16).unwrap_or(0).saturating_add(field(17).unwrap_or(0)),
        began: field(22)?,
        pages: field(24).unwrap_or(0),
    })
}

/// Reads `/proc/PID/status`: the number of the user that it runs as.
pub fn parse_uid(text: &str) -> Option<u32> {
    let ids = text.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    // real, effective, saved, file system
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Reads `/etc/passwd`: names by number. Of two names of one number the first counts, as it does for getpwuid(3).
pub fn parse_passwd(text: &str) -> HashMap<u32, Box<str>> {
    let mut users = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(|n| n.parse().ok()))
            && !name.is_empty()
        {
            users.entry(uid).or_insert_with(|| shown(name, COMMAND_CHARS));
        }
    }
    users
}

/// The command line as one line, from `/proc/PID/cmdline`; a process that has none, as threads of the kernel, is its name in brackets.
pub fn command(cmdline: &[u8], name: &str) -> Box<str> {
    let line = String::from_utf8_lossy(cmdline);
    let line = line.trim_end_matches('\0').replace('\0', " ");
    if line.trim().is_empty() {
        shown(&format!("[{name}]"), COMMAND_CHARS)
    } else {
        shown(&line, COMMAND_CHARS)
    }
}

/// Text of a program for people: control characters are replaced, and it is cut after so many characters and [`TEXT_MAX`] bytes.
pub fn shown(text: &str, chars: usize) -> Box<str> {
    let mut out = String::new();
    for c in text.chars().take(chars) {
        let c = if c.is_control() { '\u{fffd}' } else { c };
        if out.len() + c.len_utf8() > TEXT_MAX {
            break;
        }
        out.push(c);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &[u8] = b"812 (a) b (c) S 1 812 812 0 -1 4194560 5321 11 3 0 250 31 7 5 20 0 4 0 1234 18000000 900 18446744073709551615 1 1 0 0\n";

    #[test]
    fn recorded_texts() {
        let stat = parse_stat(STAT).expect("it reads");
        assert_eq!(
            stat,
            Stat { name: "a) b (c".into(), kernel: false, ticks: 281, children: 12, began: 1234, pages: 900 }
        );
        let kernel = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 3 0 0 20 0 1 0 4 0 0 1 0 0\n";
        assert!(parse_stat(kernel).expect("it reads").kernel);
        assert_eq!(parse_uid("Name:\tx\nUid:\t1000\t1001\t1000\t1000\nGid:\t0\n"), Some(1001));
        let users =
            parse_passwd("root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbad\nnobody:x:65534:1::/:\n");
        assert_eq!((users.get(&0).map(AsRef::as_ref), users.len()), (Some("root"), 2));
    }

    #[test]
    fn commands_are_one_line_and_bounded() {
        assert_eq!(&*command(b"/bin/sh\0-c\0a b\0", "sh"), "/bin/sh -c a b");
        assert_eq!(&*command(b"", "kworker/0:1"), "[kworker/0:1]");
        assert_eq!(&*command(b"\0\0", "x"), "[x]");
        assert_eq!(&*command(b"a\n\x1b[2Jb\xff", "x"), "a\u{fffd}\u{fffd}[2Jb\u{fffd}");
        assert_eq!(command("ü".repeat(999).as_bytes(), "x").chars().count(), 200);
        assert!(command("\u{10348}".repeat(999).as_bytes(), "x").len() <= TEXT_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..130) {
            let text = String::from_utf8_lossy(&bytes);
            drop((parse_stat(&bytes), parse_stat(&STAT[..cut.min(STAT.len())])));
            drop((parse_uid(&text), parse_passwd(&text)));
            let command = command(&bytes, &text);
            prop_assert!(command.len() <= TEXT_MAX && !command.contains(char::is_control));
        }
    }
}
