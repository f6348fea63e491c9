use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
struct Settings {
    port: u16,
    level: String,
    #[serde(default)]
    db: Option<Db>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Db {
    host: String,
    pool: BTreeMap<String, u32>,
}

fn one(text: &str) -> Vec<KeyValue> {
    vec![KeyValue::new("app/server", text.as_bytes(), 1)]
}

fn below(values: &[(&str, &str)]) -> Vec<KeyValue> {
    let entry = |(name, text): &(&str, &str)| {
        KeyValue::new(format!("app/{name}"), text.as_bytes(), 1).below("app/")
    };
    values.iter().map(entry).collect()
}

fn complaint(format: Format, entries: &[KeyValue]) -> String {
    let error = decode::<Settings>(format, entries).expect_err("bad");
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

#[test]
fn document_is_read_in_both_languages() {
    let expected = Settings { port: 80, level: "info".into(), db: None };
    let json = decode::<Settings>(Format::Json, &one(r#"{"port": 80, "level": "info"}"#));
    let toml = decode::<Settings>(Format::Toml, &one("port = 80\nlevel = 'info'\n"));
    assert_eq!(json.expect("good"), expected);
    assert_eq!(toml.expect("good"), expected);
}

/// Go's parsers call it an invalid character (krakend/krakendesigner#13).
#[test]
fn byte_order_mark_is_no_part_of_a_value() {
    let expected = Settings { port: 80, level: "info".into(), db: None };
    let json = one("\u{feff}{\"port\": 80, \"level\": \"info\"}");
    assert_eq!(decode::<Settings>(Format::Json, &json).expect("good"), expected);
    let keys = below(&[("level", "\u{feff}\"info\""), ("port", "\u{feff}80")]);
    for format in [Format::Json, Format::Toml] {
        assert_eq!(decode::<Settings>(format, &keys).expect("good"), expected);
    }
}

#[test]
fn below_a_prefix_every_key_is_a_field_in_both_languages() {
    let keys = [
        ("db/host", "\"h\""),
        ("db/pool/max \"x\"", "9"),
        ("db/pool/min", "\n 1 "),
        ("level", "\"info\""),
        ("port", "80\r\n"),
    ];
    let pool = BTreeMap::from([("max \"x\"".to_owned(), 9), ("min".to_owned(), 1)]);
    let db = Some(Db { host: "h".into(), pool });
    let expected = Settings { port: 80, level: "info".into(), db };
    assert_eq!(decode::<Settings>(Format::Json, &below(&keys)).expect("good"), expected);
    assert_eq!(decode::<Settings>(Format::Toml, &below(&keys)).expect("good"), expected);
}

#[test]
fn complaint_names_the_key_and_the_line() {
    let cases = [
        (Format::Json, "{\"port\": 80,\n\"level\": 7}", "key app/server, line 2, column"),
        (Format::Json, "{\"port\": 80,\n\n}", "key app/server, line 3, column"),
        (Format::Json, "", "key app/server, line 1, column 1: EOF"),
        (
            Format::Json,
            "{\"port\": 80}",
            "key app/server, line 1, column 12: missing field `level`",
        ),
        (Format::Toml, "port = 80\nlevel = 7\n", "key app/server, line 2, column"),
        (Format::Toml, "port = 80\n\nlevel = \n", "key app/server, line 3, column"),
        (Format::Toml, "port = 80\n", "key app/server: missing field `level`"),
    ];
    for (format, text, expected) in cases {
        let found = complaint(format, &one(text));
        assert!(found.contains(expected), "{text:?}: {found}");
        assert!(!found.contains(" at line "), "{found}");
    }
}

#[test]
fn below_a_prefix_a_complaint_names_the_key_and_its_own_line() {
    for format in [Format::Json, Format::Toml] {
        let found = complaint(format, &below(&[("level", "\"info\""), ("port", "\"eighty\"")]));
        assert!(found.contains("key app/port, line 1, column"), "{found}");
        let found = complaint(format, &below(&[("level", "\"info\""), ("port", "80x")]));
        assert!(found.contains("key app/port, line 1, column"), "{found}");
        let found = complaint(format, &below(&[("a", "1"), ("port", "80")]));
        assert!(found.ends_with("keys app/a … app/port: missing field `level`"), "{found}");
        let found = complaint(format, &below(&[("a", "1"), ("a/b", "80")]));
        assert!(found.ends_with("key app/a is a value, and key app/a/b makes it a folder"));
    }
    let nested = below(&[("db", "{\"host\": \"h\",\n\"pool\": 7}"), ("level", "1"), ("port", "1")]);
    let found = complaint(Format::Json, &nested);
    assert!(found.contains("key app/db, line 2, column 9"), "{found}");
}

/// It may be a password.
#[test]
fn complaint_shows_no_value() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "never read")]
    struct Secrets {
        password: String,
        pin: u16,
        kind: Kind,
    }
    #[derive(Debug, Deserialize)]
    enum Kind {
        A,
        B,
    }
    let texts = [
        (Format::Json, r#"{"password": 12345}"#, "invalid type: integer, expected a string"),
        (Format::Json, r#"{"pin": "hunter2, expected `x`"}"#, "invalid type: string, expected u16"),
        (Format::Json, r#"{"kind": "hunter2"}"#, "unknown variant, expected `A` or `B`"),
        (Format::Json, r#"{"pin": 12345678}"#, "invalid value: integer, expected u16"),
        (Format::Toml, "password = 12345", "invalid type: integer, expected a string"),
        (Format::Toml, "pin = \"hunter2\"", "invalid type: string, expected u16"),
        (Format::Toml, "kind = \"hunter2\"", "unknown variant, expected"),
    ];
    for (format, text, expected) in texts {
        let error = decode::<Secrets>(format, &one(text)).expect_err("wrong").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("12345") && !error.contains("hunter2"), "{error}");
    }
}

/// A writer of one key has no influence on another.
#[test]
fn value_below_a_prefix_cannot_be_more_than_one() {
    let found = complaint(Format::Json, &below(&[("level", "\"a\", \"port\": 1")]));
    assert!(found.contains("key app/level, line 1, column 4"), "{found}");
    let found = complaint(Format::Toml, &below(&[("level", "\"a\"\nport = 1")]));
    assert!(found.contains("key app/level, line "), "{found}");
}

#[test]
fn what_is_no_text_is_refused() {
    let entry = [KeyValue::new("app/server", *b"{\"port\xff", 1)];
    assert!(complaint(Format::Json, &entry).ends_with("key app/server: not UTF-8 from byte 6 on"));
}
