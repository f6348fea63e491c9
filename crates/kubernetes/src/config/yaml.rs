//! YAML as JSON: what kubeconfig files need of it.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};
use tower_sd_core::Result;

use super::refuse;

/// Parses the first document of a text.
///
/// Every scalar is a text, but for `true`, `false` and `null` without quotes. Errors do not quote
/// the text, which has secrets in it.
///
/// # Errors
///
/// `Config`: it is no YAML, has aliases, or is nested too deeply.
pub(super) fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Node> = Vec::new();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| invalid(error.marker().line(), error.info()))?;
        let line = span.start.line();
        let done = match event {
            Event::Alias(_) => return Err(invalid(line, "aliases are not supported")),
            Event::Scalar(text, style, ..) => scalar(text.into_owned(), style),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= MAX_DEPTH => {
                return Err(invalid(line, "nested too deeply"));
            }
            Event::SequenceStart(..) => {
                open.push(Node::Sequence(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Node::Mapping(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Node::Sequence(items)) => Value::Array(items),
                Some(Node::Mapping(entries, _)) => Value::Object(entries),
                None => return Err(invalid(line, "an end without a start")),
            },
            Event::DocumentEnd => break,
            _ => continue,
        };
        match open.last_mut() {
            None => return Ok(done),
            Some(Node::Sequence(items)) => items.push(done),
            Some(Node::Mapping(entries, key)) => match (key.take(), done) {
                (Some(key), value) => drop(entries.insert(key, value)),
                (None, Value::String(name)) => *key = Some(name),
                (None, other) => *key = Some(other.to_string()),
            },
        }
    }
    Ok(Value::Null)
}

/// A collection whose end has not come.
enum Node {
    Sequence(Vec<Value>),
    Mapping(Map<String, Value>, Option<String>),
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    match (style, text.as_str()) {
        (ScalarStyle::Plain, "true" | "True" | "TRUE") => true.into(),
        (ScalarStyle::Plain, "false" | "False" | "FALSE") => false.into(),
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        _ => text.into(),
    }
}

fn invalid(line: usize, why: &str) -> tower_sd_core::Error {
    refuse(format!("kubeconfig: line {line} is not as expected: {why}"))
}

/// A kubeconfig has six levels.
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn document_becomes_json() {
        let text = "# comment\nflag: true\nquoted: \"true\"\nnumber: 0123\nempty:\nlist:\n- a: b\n  \
                    c: [d, 'e']\n- text: |\n    two\n    lines\n";
        let expected = json!({
            "flag": true, "quoted": "true", "number": "0123", "empty": null,
            "list": [{ "a": "b", "c": ["d", "e"] }, { "text": "two\nlines\n" }],
        });
        assert_eq!(parse(text).expect("YAML"), expected);
        assert_eq!(parse(r#"{"a": [1, {}]}"#).expect("JSON"), json!({ "a": ["1", {}] }));
        assert_eq!(parse("").expect("nothing"), Value::Null);
    }

    #[test]
    fn malformed_text_is_an_error_without_its_content() {
        let deep = "[".repeat(100);
        for text in
            ["hunter2: [", "a: &x hunter2\nb: *x", "a: b: hunter2", "\"hunter2", deep.as_str()]
        {
            let error = parse(text).expect_err(text);
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
