//! What the guests of these tests write: numbered records of a known text, see `writer.sh`. Read from the raw volume, by nobody's help.

use std::path::Path;

/// A slot in bytes.
const SLOT: usize = 2048;
/// Slots of one boot.
const AREA: usize = 1024;

/// A volume with records.
#[derive(Debug, PartialEq, Eq)]
pub struct Records {
    /// How often a guest began to write.
    pub boots: usize,
    /// What each boot wrote, the first at 0.
    pub of: Vec<Boot>,
    /// The last record that was written: boot and number.
    pub last: (usize, usize),
}

/// What one boot wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Boot {
    /// How many records, with the numbers from 1 on.
    pub wrote: usize,
    /// How many of the boot before it found when it began; none when it wrote nothing.
    pub found: Option<usize>,
}

impl Records {
    /// Reads a volume. It panics when a record lacks, stands in another's place or is damaged.
    #[track_caller]
    pub fn read(volume: &Path) -> Records {
        let bytes = std::fs::read(volume).unwrap_or_else(|e| panic!("cannot read {}: {e}", volume.display()));
        let slots: Vec<&[u8]> = bytes.chunks(SLOT).collect();
        let boots = number(&text(slots[0]), "boot ");
        let mut of = Vec::new();
        for boot in 1..=boots {
            let area = &slots[boot * AREA..(boot + 1) * AREA];
            let wrote = area.iter().take_while(|s| s.iter().any(|b| *b != 0)).count();
            let behind = area[wrote..].iter().position(|s| s.iter().any(|b| *b != 0));
            assert_eq!(behind, None, "boot {boot}: a record lacks after {wrote}");
            let mut found = None;
            for (i, slot) in area[..wrote].iter().enumerate() {
                let (text, seq) = (text(slot), i + 1);
                let old = number(&text, &format!("boot {boot} seq {seq} old "));
                assert_eq!(*found.get_or_insert(old), old, "{text}");
            }
            of.push(Boot { wrote, found });
        }
        let last = text(slots[1]);
        let words: Vec<usize> = last.split(' ').filter_map(|w| w.parse().ok()).collect();
        let last = (words[0], words[1]);
        Records { boots, of, last }
    }

    /// Whether no boot wrote after the next one began, and the last record is the last boot's: one writer at a time.
    #[track_caller]
    pub fn one_writer(&self) {
        for (i, pair) in self.of.windows(2).enumerate() {
            assert!(pair[1].found.is_none_or(|f| f == pair[0].wrote), "boot {} wrote on: {self:?}", i + 1);
        }
        let (boot, seq) = self.last;
        assert_eq!(boot, self.boots, "the last record is another boot's: {self:?}");
        let wrote = self.of[boot - 1].wrote;
        assert!(seq == wrote || seq + 1 == wrote, "the last record is {seq} of {wrote}: {self:?}");
    }
}

/// The line that a slot holds 32 times.
#[track_caller]
fn text(slot: &[u8]) -> String {
    let lines: Vec<&[u8]> = slot.chunks(64).collect();
    let shown = || String::from_utf8_lossy(slot).into_owned();
    assert!(lines.iter().all(|l| *l == lines[0] && l.ends_with(b"|\n")), "damaged: {:?}", shown());
    String::from_utf8_lossy(&lines[0][..62]).trim_end().to_owned()
}

#[track_caller]
fn number(text: &str, front: &str) -> usize {
    let number = text.strip_prefix(front).and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("{text:?} is not {front:?} with a number"))
}
