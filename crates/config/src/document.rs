//! From keys to a value; and from a parser's error back to the key and the line.
//!
//! Below a prefix, every value is first parsed by itself, so that it cannot be anything but one
//! value; then one document is put together, a field per key, so that the parser's own position
//! shows which key does not fit.

use std::{collections::BTreeMap, ops::Range};

use serde::de::{DeserializeOwned, IgnoredAny};
use tower_sd_core::{Error, ErrorKind, KeyValue, Result};

use crate::{BACKEND, Format};

/// Reads the entries, of which there is at least one, as a `T`.
pub(crate) fn decode<T: DeserializeOwned>(format: Format, entries: &[KeyValue]) -> Result<T> {
    let mut document = Document::default();
    match entries {
        [only] if only.name().is_empty() => document.push_value(only.key(), text_of(only)?),
        entries => {
            let mut root = Folder::new();
            for entry in entries {
                let text = match (format, text_of(entry)?) {
                    (Format::Json, text) => text,
                    // They mean nothing beside a value: an editor's last newline.
                    (Format::Toml, text) => text.trim_matches([' ', '\t', '\r', '\n']),
                };
                if let Err(complaint) = check(format, text) {
                    return Err(complaint.error(&Document::of(entry.key(), text)));
                }
                insert(&mut root, entry, text)?;
            }
            match format {
                Format::Json => document.push_json(&root),
                Format::Toml => document.push_toml(&root, ""),
            }
        }
    }
    parse(format, &document.text).map_err(|complaint| complaint.error(&document))
}

/// A text, and which part of it came from which key.
#[derive(Default)]
struct Document<'a> {
    text: String,
    pieces: Vec<Piece<'a>>,
}

struct Piece<'a> {
    key: &'a str,
    place: Range<usize>,
}

/// Below a prefix: the keys as a tree.
type Folder<'a> = BTreeMap<&'a str, Node<'a>>;

enum Node<'a> {
    Value(&'a str, &'a str),
    Folder(Folder<'a>),
}

/// A parser's message, and the bytes that it means.
struct Complaint {
    what: String,
    place: Option<Range<usize>>,
}

impl<'a> Document<'a> {
    fn of(key: &'a str, text: &str) -> Self {
        let mut document = Self::default();
        document.push_value(key, text);
        document
    }

    fn push_value(&mut self, key: &'a str, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.pieces.push(Piece { key, place: start..self.text.len() });
    }

    fn push_json(&mut self, folder: &Folder<'a>) {
        self.text.push('{');
        for (n, (name, node)) in folder.iter().enumerate() {
            self.text.push_str(if n > 0 { "," } else { "" });
            self.text.push_str(&quoted(name));
            self.text.push(':');
            match node {
                Node::Value(key, text) => self.push_value(key, text),
                Node::Folder(folder) => self.push_json(folder),
            }
            self.text.push('\n');
        }
        self.text.push('}');
    }

    fn push_toml(&mut self, folder: &Folder<'a>, path: &str) {
        for (name, node) in folder {
            let path = format!("{path}{}", quoted(name));
            match node {
                Node::Value(key, text) => {
                    self.text.push_str(&path);
                    self.text.push('=');
                    self.push_value(key, text);
                    self.text.push('\n');
                }
                Node::Folder(folder) => self.push_toml(folder, &format!("{path}.")),
            }
        }
    }

    /// `key app/server, line 3, column 7`, or as much of it as is known.
    fn describe(&self, place: Option<&Range<usize>>) -> String {
        let Some(&Range { start, end }) = place else {
            return self.keys();
        };
        let has = |piece: &&Piece<'_>| piece.place.start <= start && end <= piece.place.end;
        let Some(piece) = self.pieces.iter().find(has) else {
            return self.keys();
        };
        let before = self.text.get(piece.place.start..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("key {}, line {line}, column {column}", piece.key)
    }

    fn keys(&self) -> String {
        match &*self.pieces {
            [] => "no key".to_owned(),
            [only] => format!("key {}", only.key),
            [first, .., last] => format!("keys {} … {}", first.key, last.key),
        }
    }
}

impl Complaint {
    fn of_json(text: &str, error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let what = error.to_string();
        let what = what.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&what);
        // Errors without a position have line 0.
        let line_start = match line {
            0 => None,
            1 => Some(0),
            _ => text.match_indices('\n').nth(line - 2).map(|(at, _)| at + 1),
        };
        let place = line_start.map(|start| {
            let at = start + column.saturating_sub(1);
            at..at
        });
        Self { what: without_value(what), place }
    }

    fn of_toml(error: &toml::de::Error) -> Self {
        // The root table has no place: a field of it is missing.
        let place = error.span().filter(|span| *span != (0..0));
        Self { what: without_value(error.message()), place }
    }

    fn error(self, document: &Document<'_>) -> Error {
        wrong(format!("{}: {}", document.describe(self.place.as_ref()), self.what))
    }
}

/// A complaint of serde's without the value that it quotes, which may be a password.
fn without_value(what: &str) -> String {
    let quotes = ["invalid type: ", "invalid value: ", "unknown variant "];
    match what.rsplit_once(", expected") {
        Some((found, expected)) if quotes.iter().any(|start| found.starts_with(start)) => {
            let found = found.split(['`', '"']).next().unwrap_or_default().trim_end();
            format!("{found}, expected{expected}")
        }
        _ => what.to_owned(),
    }
}

fn parse<T: DeserializeOwned>(format: Format, text: &str) -> Result<T, Complaint> {
    match format {
        Format::Json => {
            serde_json::from_str(text).map_err(|error| Complaint::of_json(text, &error))
        }
        Format::Toml => toml::from_str(text).map_err(|error| Complaint::of_toml(&error)),
    }
}

/// Whether it is one value, of whatever type.
fn check(format: Format, text: &str) -> Result<(), Complaint> {
    match format {
        Format::Json => {
            let parsed: Result<IgnoredAny, _> = serde_json::from_str(text);
            parsed.map(drop).map_err(|error| Complaint::of_json(text, &error))
        }
        Format::Toml => {
            let parsed = toml::de::ValueDeserializer::parse(text);
            parsed.map(drop).map_err(|error| Complaint::of_toml(&error))
        }
    }
}

fn insert<'a>(root: &mut Folder<'a>, entry: &'a KeyValue, text: &'a str) -> Result<()> {
    let mut folder = root;
    let mut path = entry.name();
    while let Some((name, rest)) = path.split_once('/') {
        let node = folder.entry(name).or_insert_with(|| Node::Folder(Folder::new()));
        folder = match node {
            Node::Folder(folder) => folder,
            Node::Value(value, _) => return Err(both(value, entry.key())),
        };
        path = rest;
    }
    match folder.insert(path, Node::Value(entry.key(), text)) {
        None => Ok(()),
        Some(_) => Err(both(entry.key(), entry.key())),
    }
}

fn both(value: &str, below: &str) -> Error {
    wrong(format!("key {value} is a value, and key {below} makes it a folder"))
}

/// Without the byte order mark that editors on Windows put in front.
fn text_of(entry: &KeyValue) -> Result<&str> {
    let text = str::from_utf8(entry.value()).map_err(|error| {
        wrong(format!("key {}: not UTF-8 from byte {} on", entry.key(), error.valid_up_to()))
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// A string of JSON, which is one of TOML too.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, BACKEND, "decode").with_message(message)
}

#[cfg(test)]
mod tests;
