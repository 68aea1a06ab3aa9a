//! The few man(7) macros that the pages need.

use std::fmt::Write as _;

/// A page that grows.
pub struct Page(String);

impl Page {
    /// `.TH`, and the NAME section.
    pub fn new(name: &str, section: u8, about: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let upper = name.to_uppercase();
        Page(format!(
            ".TH {upper} {section} 2026-11-22 \"xvm {version}\"\n.SH NAME\n{name} \\- {}\n",
            escape(about)
        ))
    }

    /// `.SH`
    pub fn section(&mut self, title: &str) -> &mut Self {
        self.line(&format!(".SH \"{title}\""))
    }

    /// `.SS`
    pub fn subsection(&mut self, title: &str) -> &mut Self {
        self.line(&format!(".SS \"{title}\""))
    }

    /// A paragraph.
    pub fn text(&mut self, text: &str) -> &mut Self {
        // the first one of a section begins without a macro
        let first = self.0.lines().last().is_some_and(|l| l.starts_with(".SH") || l.starts_with(".SS"));
        if first { self } else { self.line(".PP") }.line(&escape(text))
    }

    /// A further paragraph of an item.
    pub fn more(&mut self, text: &str) -> &mut Self {
        self.line(".IP").line(&escape(text))
    }

    /// A term and what it means.
    pub fn item(&mut self, term: &str, text: &str) -> &mut Self {
        self.line(".TP").line(&format!(".B {}", quoted(term))).line(&escape(text))
    }

    /// Lines as they are.
    pub fn literal(&mut self, text: &str) -> &mut Self {
        self.line(".RS 4").line(".nf");
        for line in text.lines() {
            self.line(&escape(line));
        }
        self.line(".fi").line(".RE")
    }

    /// A line that is roff already.
    pub fn line(&mut self, line: &str) -> &mut Self {
        writeln!(self.0, "{line}").expect("a String takes all");
        self
    }

    /// The page.
    pub fn finish(self) -> String {
        self.0
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(text).replace('"', "\\(dq"))
}

/// Text as roff: backslashes, hyphens, and a leading control character are kept as they are.
pub fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\u{2192}', "\\(->");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
