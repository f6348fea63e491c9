//! Where nodes live: `<chroot><path>/<service>/<node>`.

use tower_sd_core::{Error, ErrorKind, Result};

use crate::BACKEND;

/// Brings a path into the form `/a/b`; the root is empty.
pub(crate) fn normal(path: &str) -> Result<String> {
    let elements = path.split('/').filter(|element| !element.is_empty());
    elements.map(|element| checked(element).map(|it| format!("/{it}"))).collect()
}

/// The parent of a service's nodes.
pub(crate) fn service(base: &str, service: &str) -> Result<String> {
    match service {
        "" => Err(refused("a service needs a name that is not empty")),
        service => Ok(format!("{base}/{}", escape(service))),
    }
}

/// The names of all ancestors of a node, the root excluded, the outermost first.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').skip(1).map(|(end, _)| &path[..end])
}

/// Percent-encodes what no name of a node may have: slashes, control characters, and the names `.`
/// and `..`. A percent sign is encoded, too.
pub(crate) fn escape(name: &str) -> String {
    let is_dots = name == "." || name == "..";
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        if is_dots || c == '/' || c == '%' || !is_allowed(c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Undoes [`escape`]; a name without escapes, of a foreign producer, stays as it is.
pub(crate) fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(escaped) if byte == b'%' => {
                bytes.push(escaped);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}

fn checked(element: &str) -> Result<&str> {
    match element != "." && element != ".." && element.chars().all(is_allowed) {
        true => Ok(element),
        false => Err(refused(format!("{element:?} cannot be the name of a node"))),
    }
}

/// The characters that ZooKeeper's `PathUtils` accepts.
fn is_allowed(c: char) -> bool {
    !matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, BACKEND, "configure").with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_the_way_into_a_path_and_back() {
        for name in
            ["a b", "a/b", "50%", "%2F", "grüße", "日本 語", "a\0b", ".", "..", "::1", "\u{f000}"]
        {
            let escaped = escape(name);
            assert_eq!(unescape(&escaped), name);
            assert!(checked(&escaped).is_ok() && !escaped.contains('/'), "{escaped}");
        }
        assert_eq!(escape("grüße [::1]:80"), "grüße [::1]:80", "Java shows it as it is");
        assert_eq!(unescape("a%zz%"), "a%zz%");
    }

    #[test]
    fn paths_are_brought_into_one_form() {
        for (path, expected) in [("", ""), ("/", ""), ("a", "/a"), ("/a//b/", "/a/b")] {
            assert_eq!(normal(path).expect(path), expected);
        }
        for path in ["/a/../b", ".", "a\0"] {
            assert!(normal(path).is_err(), "{path:?}");
        }
        assert!(service("/p", "").is_err());
        assert_eq!(service("/p", "a/b").expect("escaped"), "/p/a%2Fb");
    }

    #[test]
    fn ancestors_are_those_above_the_node() {
        assert_eq!(ancestors("/a/b/c").collect::<Vec<_>>(), ["/a", "/a/b"]);
        assert_eq!(ancestors("/a").count(), 0);
    }
}
