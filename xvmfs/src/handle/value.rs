//! A setting of several lines: all that one open file is given is one value, and each write that ends a line sets what has come so far.
//!
//! bash's `printf 'a\nb\n'` makes one write of each line: it sets `a`, then both. So each write is answered truly, and the last one
//! leaves the whole.

/// The most of a value, in bytes.
pub const VALUE_MAX: usize = 64 << 10;

/// What was written so far.
#[derive(Debug, Default)]
pub struct Value {
    text: Vec<u8>,
    /// How much of it was set already.
    set: usize,
}

/// What a write makes of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// This is to be set; `again` when a part of it was set before.
    Set {
        /// The whole value.
        text: Vec<u8>,
        /// Whether a part was set before.
        again: bool,
    },
    /// The end of a line is still to come.
    Part,
    /// It became too long; nothing is kept.
    TooLong,
}

impl Value {
    /// Takes what is written next.
    pub fn take(&mut self, data: &[u8]) -> Step {
        if self.text.len() + data.len() > VALUE_MAX {
            *self = Value::default();
            return Step::TooLong;
        }
        self.text.extend_from_slice(data);
        if self.text.ends_with(b"\n") { self.all() } else { Step::Part }
    }

    /// What is there without its end, when the file is closed.
    pub fn last(&mut self) -> Option<Step> {
        self.is_part().then(|| self.all())
    }

    /// Whether something waits for the end of its line.
    pub fn is_part(&self) -> bool {
        self.set < self.text.len()
    }

    fn all(&mut self) -> Step {
        let again = self.set > 0;
        self.set = self.text.len();
        Step::Set { text: self.text.clone(), again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_one_value() {
        let mut v = Value::default();
        assert_eq!(v.take(b"a"), Step::Part);
        assert_eq!(v.take(b"b\n"), Step::Set { text: b"ab\n".to_vec(), again: false });
        assert_eq!(v.last(), None);
        assert_eq!(v.take(b"c\nd"), Step::Part);
        assert!(v.is_part());
        assert_eq!(v.last(), Some(Step::Set { text: b"ab\nc\nd".to_vec(), again: true }));
        assert_eq!(v.last(), None);
        assert_eq!(v.take(&[b'x'; VALUE_MAX]), Step::TooLong);
        assert!(!v.is_part());
    }
}
