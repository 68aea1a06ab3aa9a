//! Lines from pieces.
//!
//! ```text
//!              piece without its end              end of line
//!   empty ───────────────────────────▶ part ─────────────────────▶ empty, and the line is given
//!                                       │ longer than LINE_MAX, or a line before it failed
//!                                       ▼
//!                                     skip ──── end of line ─────▶ empty, and nothing is given
//! ```

use xvm_model::command::LINE_MAX;

/// What a piece of a write was.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A whole line, without its end.
    Line(Vec<u8>),
    /// A part of a line whose end is still to come.
    Part,
    /// A part of a line that is thrown away.
    Skipped,
    /// With this part the line became too long; it is thrown away.
    TooLong,
}

/// Collects the lines that are written to one handle. Holds LINE_MAX bytes at most.
#[derive(Debug, Default)]
pub struct Lines {
    part: Vec<u8>,
    skip: bool,
}

impl Lines {
    /// Takes one piece from the front of `data`: up to the first end of line.
    pub fn take(&mut self, data: &mut &[u8]) -> Piece {
        let end = data.iter().position(|b| *b == b'\n');
        let piece = &data[..end.unwrap_or(data.len())];
        *data = &data[end.map_or(data.len(), |i| i + 1)..];
        if self.skip {
            self.skip = end.is_none();
            return Piece::Skipped;
        }
        if self.part.len() + piece.len() > LINE_MAX {
            self.part = Vec::new();
            self.skip = end.is_none();
            return Piece::TooLong;
        }
        self.part.extend_from_slice(piece);
        match end {
            Some(_) => Piece::Line(std::mem::take(&mut self.part)),
            None => Piece::Part,
        }
    }

    /// A line failed: `rest` of the same write is thrown away, with the end of a line that it begins.
    pub fn stop(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.skip = !rest.ends_with(b"\n");
        }
    }

    /// What is there without its end, when the file is closed.
    pub fn last(&mut self) -> Option<Vec<u8>> {
        self.skip = false;
        (!self.part.is_empty()).then(|| std::mem::take(&mut self.part))
    }

    /// Whether a line waits for its end.
    pub fn is_part(&self) -> bool {
        !self.part.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(lines: &mut Lines, mut data: &[u8]) -> Vec<Piece> {
        let mut out = Vec::new();
        while !data.is_empty() {
            out.push(lines.take(&mut data));
        }
        out
    }

    #[test]
    fn a_long_line_is_thrown_away_whole() {
        for step in [1, 7, 4096, 1 << 20] {
            let mut lines = Lines::default();
            let text = [vec![b'x'; 1 << 20], b"\npause\n".to_vec()].concat();
            let mut pieces = Vec::new();
            for part in text.chunks(step) {
                pieces.extend(all(&mut lines, part));
                assert!(lines.part.capacity() <= 4 * LINE_MAX);
            }
            let long = pieces.iter().filter(|p| **p == Piece::TooLong).count();
            let whole: Vec<_> = pieces.iter().filter(|p| matches!(p, Piece::Line(_))).collect();
            assert_eq!((long, whole), (1, vec![&Piece::Line(b"pause".to_vec())]), "{step}");
        }
    }

    #[test]
    fn after_a_failure_the_rest_is_thrown_away() {
        let mut lines = Lines::default();
        lines.stop(b"unp");
        assert_eq!(all(&mut lines, b"ause\npause\n"), [Piece::Skipped, Piece::Line(b"pause".to_vec())]);
        lines.stop(b"a\n");
        assert_eq!(all(&mut lines, b"b\n"), [Piece::Line(b"b".to_vec())]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[ab\n]{0,200}", cuts in prop::collection::vec(0usize..200, 0..20)) {
            let text = text.as_bytes();
            let whole: Vec<Piece> = all(&mut Lines::default(), text).into_iter().filter(|p| *p != Piece::Part).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let mut lines = Lines::default();
            let parts = cuts.windows(2).flat_map(|w| all(&mut lines, &text[w[0]..w[1]]));
            let parts: Vec<Piece> = parts.filter(|p| *p != Piece::Part).collect();
            prop_assert_eq!(parts, whole);
        }
    }
}
