//! The little of XML that is read: attributes of one element, as libvirt and libxml2 write it.

/// The text of an attribute's value.
pub fn unescape(value: &str) -> String {
    const ESCAPES: [(&str, &str); 5] =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    ESCAPES.iter().fold(value.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
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
