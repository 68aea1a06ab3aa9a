//! The kernel's command line.

/// What it says about xvm.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cmdline {
    /// `xvm.name=`; the last one counts.
    pub name: Option<String>,
    /// `xvm.bus=`, each of them.
    pub bus: Vec<String>,
}

/// Reads it. Quotes keep spaces together, as the kernel reads them: `xvm.name="Web Server"` and `"xvm.name=Web Server"` are the same.
pub fn parse(text: &str) -> Cmdline {
    let mut cmdline = Cmdline::default();
    let mut quoted = false;
    let words = text.split(|c: char| {
        quoted ^= c == '"';
        !quoted && c.is_ascii_whitespace()
    });
    for word in words {
        let word = word.replace('"', "");
        match word.split_once('=') {
            Some(("xvm.name", name)) if !name.is_empty() => cmdline.name = Some(name.into()),
            Some(("xvm.bus", bus)) if !bus.is_empty() => cmdline.bus.push(bus.into()),
            _ => {}
        }
    }
    cmdline
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_and_quotes() {
        let all = parse("quiet xvm.name=small-1 root=/dev/vda xvm.bus=10.0.0.1 xvm.bus=[::1]:7 -- xvm=1\n");
        assert_eq!(
            all,
            Cmdline { name: Some("small-1".into()), bus: vec!["10.0.0.1".into(), "[::1]:7".into()] }
        );
        for text in ["xvm.name=\"Web Server\"", "a \"xvm.name=Web Server\" b"] {
            assert_eq!(parse(text).name.as_deref(), Some("Web Server"), "{text}");
        }
        assert_eq!(parse("xvm.name= xvm.bus= yxvm.name=x"), Cmdline::default());
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in any::<String>()) {
            drop(parse(&text));
        }
    }
}
