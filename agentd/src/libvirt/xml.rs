//! The little of XML that is read: attributes and text of one element, as libvirt and libxml2 write it.

/// The text of an attribute's value.
pub fn unescape(value: &str) -> String {
    const ESCAPES: [(&str, &str); 5] =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    ESCAPES.iter().fold(value.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

/// The text of the first element of that name in `xml`, which has no attributes and holds no other.
pub fn text<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, inner) = xml.split_once(&format!("<{name}>"))?;
    let (text, rest) = inner.split_once('<')?;
    rest.starts_with(&format!("/{name}>")).then(|| text.trim())
}

/// The value of an attribute of the first element in `xml`, as it is written; either kind of quote may be around it, and the other kind
/// may be in it.
pub fn attribute<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = xml[xml.find('<')? + 1..].split_once(|c: char| c.is_whitespace())?.1;
    loop {
        rest = rest.trim_start();
        let (key, after) = rest.split_once('=')?;
        let (key, after) = (key.trim_end(), after.trim_start());
        if key.contains(['<', '>', '/']) {
            return None; // the element ends before
        }
        let quote = after.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (value, after) = after[1..].split_once(quote)?;
        if key == name {
            return Some(value);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read() {
        let xml = "<host><uuid>1</uuid><cpu>\n <arch> x86_64 </arch><model>a</model></cpu></host>";
        assert_eq!((text(xml, "arch"), text(xml, "model")), (Some("x86_64"), Some("a")));
        for (odd, name) in
            [("", "a"), ("<a>", "a"), ("<a>x", "a"), ("<a>x<", "a"), ("<a>x</b>", "a"), ("<a>x<b/></a>", "a")]
        {
            assert_eq!(text(odd, name), None, "{odd}");
        }
    }

    #[test]
    fn attributes_are_read_and_not_their_look_alikes() {
        let xml = "<x:y a='1' why=\"it's host='evil'\" host = 'good'/><z late='1'/>";
        assert_eq!(attribute(xml, "host"), Some("good"));
        assert_eq!(attribute(xml, "why"), Some("it's host='evil'"));
        assert_eq!(attribute(xml, "late"), None, "of another element");
        for odd in ["", "<", "<x", "<x ", "<x a", "<x a=", "<x a=b", "<x a='b", "<x/>", "x='1'"] {
            assert_eq!(attribute(odd, "a"), None, "{odd}");
        }
    }
}
