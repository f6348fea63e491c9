//! Where an instance lives: `<prefix>/<service>/<id>`.

use tower_sd_core::{Error, ErrorKind, Result};

use crate::BACKEND;

/// The key of one instance.
pub(crate) fn instance_key(prefix: &str, service: &str, id: &str) -> Result<Vec<u8>> {
    let mut key = service_range(prefix, service)?.start;
    if id.is_empty() {
        return Err(refused("an instance needs an id that is not empty"));
    }
    escape(id, &mut key);
    Ok(key)
}

/// The keys of all instances of a service, and of no other: `foo/` does not match `foobar/`.
pub(crate) fn service_range(prefix: &str, service: &str) -> Result<Range> {
    if service.is_empty() {
        return Err(refused("a service needs a name that is not empty"));
    }
    let mut key = prefix.as_bytes().to_vec();
    if !key.is_empty() {
        key.push(b'/');
    }
    escape(service, &mut key);
    let mut end = key.clone();
    key.push(b'/');
    // The character after the slash: the first key that does not begin with `start`.
    end.push(b'/' + 1);
    Ok(Range { start: key, end })
}

/// The keys from `start` up to and without `end`; an `end` that is empty means the one key `start`.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Range {
    pub(crate) fn one(key: Vec<u8>) -> Self {
        Self { start: key, end: Vec::new() }
    }

    /// All keys that begin with `prefix`, without itself; every key when it is empty.
    pub(crate) fn below(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        // The first key behind them: bytes of 255 have no successor.
        while end.pop_if(|last| *last == u8::MAX).is_some() {}
        match end.last_mut() {
            Some(last) => *last += 1,
            // etcd's form of "to the end".
            None => end.push(0),
        }
        let mut start = prefix.to_vec();
        start.push(0);
        Self { start, end }
    }

    /// What comes after `start`, as it was before it was escaped.
    pub(crate) fn id_of(&self, key: &[u8]) -> String {
        let id = unescape(key.strip_prefix(&*self.start).unwrap_or(key));
        String::from_utf8_lossy(&id).into_owned()
    }
}

/// Percent-encodes what is not a letter, a digit or one of `-._~:@[]`: no name can hold a
/// separator.
fn escape(name: &str, key: &mut Vec<u8>) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@[]".contains(&byte) {
            key.push(byte);
        } else {
            key.extend(format!("%{byte:02X}").into_bytes());
        }
    }
}

/// Undoes [`escape`]; a key without escapes (of a foreign producer) stays as it is.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail
            .get(..2)
            .and_then(|hex| str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
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
    bytes
}

fn refused(message: &str) -> Error {
    Error::new(ErrorKind::Config, BACKEND, "configure").with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_the_way_into_a_key_and_back() {
        for id in ["127.0.0.1:80", "[::1]:80", "a/b", "50%", "%2F", "grüße", "日本 語", "a\0b"]
        {
            let range = service_range("p", "s").expect("a good name");
            let key = instance_key("p", "s", id).expect("a good id");
            assert_eq!(range.id_of(&key), id);
            assert!(range.start <= key && key < range.end, "{id}");
            assert_eq!(key.iter().filter(|&&byte| byte == b'/').count(), 2, "{id}");
        }
    }

    /// In go-kit the prefix `foo` also has the keys of `foobar`.
    #[test]
    fn service_does_not_match_one_whose_name_it_begins() {
        let range = service_range("p", "foo").expect("a good name");
        for other in ["foobar", "foo-2", "foo.", "foo0", "fo", "foo/x"] {
            let key = instance_key("p", other, "1").expect("a good id");
            assert!(!(range.start <= key && key < range.end), "{other}");
        }
    }

    #[test]
    fn keys_below_a_prefix_are_those_between_it_and_its_successor() {
        let range = |prefix: &[u8]| {
            let Range { start, end } = Range::below(prefix);
            (start, end)
        };
        assert_eq!(range(b"app/"), (b"app/\0".to_vec(), b"app0".to_vec()));
        assert_eq!(range(b"a\xff\xff"), (b"a\xff\xff\0".to_vec(), b"b".to_vec()));
        assert_eq!(range(b""), (vec![0], vec![0]));
        assert_eq!(range(b"\xff"), (vec![255, 0], vec![0]));
    }

    #[test]
    fn empty_names_are_refused_and_an_empty_prefix_is_not() {
        assert!(instance_key("p", "", "1").is_err());
        assert!(instance_key("p", "s", "").is_err());
        assert_eq!(instance_key("", "s", "1").expect("good"), b"s/1");
    }
}
