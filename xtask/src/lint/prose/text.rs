//! The prose of a file: paragraphs of docs and comments, messages, names of tests.

/// What a paragraph is, as far as rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `///`, `//!`, or Markdown.
    Doc,
    Comment,
    /// A string literal.
    Message,
    TestName,
}

/// Lines that belong together, with their numbers, without markers and quoted code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Paragraph {
    pub(super) kind: Kind,
    pub(super) lines: Vec<(usize, String)>,
    /// Whether it is the first of its block of documentation.
    pub(super) is_first: bool,
}

/// The paragraphs of a file, by the extension of its name.
pub(super) fn paragraphs(name: &str, text: &str) -> Vec<Paragraph> {
    let mut blocks = Blocks::default();
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "md" => {
            for (number, line) in (1..).zip(text.lines()) {
                blocks.add(Kind::Doc, number, line);
            }
        }
        "rs" | "proto" => rust(text, &mut blocks),
        _ => {
            for (number, line) in (1..).zip(text.lines()) {
                let comment = line.trim_start().strip_prefix('#');
                let comment = comment.or_else(|| line.split_once(" # ").map(|(_, it)| it));
                if let Some(comment) = comment {
                    blocks.add(Kind::Comment, number, comment);
                }
            }
        }
    }
    blocks.finish()
}

#[derive(Default)]
struct Blocks {
    done: Vec<Paragraph>,
    open: Option<Paragraph>,
    /// The line of documentation or comment before, which the next one may continue.
    last: Option<(Kind, usize)>,
    in_code: bool,
}

impl Blocks {
    /// One line of a comment or of Markdown; consecutive ones of one kind are a block.
    fn add(&mut self, kind: Kind, number: usize, text: &str) {
        let continues = self.last == Some((kind, number - 1));
        if !continues {
            self.close();
            self.in_code = false;
        }
        self.last = Some((kind, number));
        let text = text.trim();
        if text.starts_with("```") {
            self.in_code = !self.in_code;
            return self.close();
        }
        if self.in_code {
            return;
        }
        if text.is_empty() || is_item(text) {
            self.close();
        }
        if text.is_empty() {
            return;
        }
        let line = (number, without_code(text));
        match &mut self.open {
            Some(open) => open.lines.push(line),
            None => self.open = Some(Paragraph { kind, lines: vec![line], is_first: !continues }),
        }
        if text.starts_with(['#', '|']) {
            self.close();
        }
    }

    /// A paragraph of one line.
    fn single(&mut self, kind: Kind, number: usize, text: &str) {
        // What is between braces is the name of a value.
        let parts = text.split('{').map(|part| part.split_once('}').map_or(part, |(_, it)| it));
        let lines = vec![(number, without_code(&parts.collect::<Vec<_>>().join("`")))];
        self.done.push(Paragraph { kind, lines, is_first: false });
    }

    fn close(&mut self) {
        self.done.extend(self.open.take());
    }

    fn finish(mut self) -> Vec<Paragraph> {
        self.close();
        self.done.sort_by_key(|paragraph| paragraph.lines[0].0);
        self.done
    }
}

/// A list item, a heading or a row of a table begins a paragraph.
fn is_item(text: &str) -> bool {
    let numbered = text.trim_start_matches(|c: char| c.is_ascii_digit());
    text.starts_with(['#', '|'])
        || ["- ", "* "].iter().any(|mark| text.starts_with(mark))
        || (numbered.len() < text.len() && numbered.starts_with(". "))
}

/// Without what is between backticks, and without the targets of links.
fn without_code(text: &str) -> String {
    let mut plain = String::new();
    for (index, part) in text.split('`').enumerate() {
        plain += if index % 2 == 0 { part } else { "`" };
    }
    let mut parts = plain.split("](");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result += "]";
        result += part.split_once(')').map_or("", |(_, rest)| rest);
    }
    result
}

/// Reads Rust as far as it takes to distinguish comments, strings and code.
fn rust(text: &str, blocks: &mut Blocks) {
    let mut rest = text;
    let mut number = 1;
    let mut is_test = false;
    while !rest.is_empty() {
        let (length, found) = token(rest);
        let token = &rest[..length];
        match found {
            Token::Comment => {
                let doc = (token.starts_with("///") && !token.starts_with("////"))
                    || token.starts_with("//!");
                let text = token.trim_start_matches('/').trim_start_matches('!');
                let kind = if doc { Kind::Doc } else { Kind::Comment };
                blocks.add(kind, number, text);
            }
            Token::Text => blocks.single(Kind::Message, number, token),
            Token::Attribute(line) => is_test |= line.contains("test]") || line.contains("test("),
            Token::Function(name) => {
                if is_test {
                    blocks.single(Kind::TestName, number, name);
                }
                is_test = false;
            }
            Token::Code => {}
        }
        number += token.matches('\n').count();
        rest = &rest[length..];
    }
}

enum Token<'a> {
    Comment,
    Text,
    /// `#[`, with the rest of its line.
    Attribute(&'a str),
    Function(&'a str),
    Code,
}

/// The first token of a text that is not empty, and its length.
fn token(text: &str) -> (usize, Token<'_>) {
    let to_end_of_line = text.find('\n').unwrap_or(text.len());
    if text.starts_with("//") {
        return (to_end_of_line, Token::Comment);
    }
    if text.starts_with("#[") {
        return (2, Token::Attribute(&text[..to_end_of_line]));
    }
    if let Some(length) = raw_string(text) {
        return (length, Token::Text);
    }
    if text.starts_with('"') {
        return (string(text), Token::Text);
    }
    if let Some(length) = character(text) {
        return (length, Token::Code);
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let word = text.find(|c| !is_word(c)).unwrap_or(text.len());
    if &text[..word] == "fn" {
        let name = text[word..].trim_start();
        let end = name.find(|c| !is_word(c)).unwrap_or(name.len());
        return (word, Token::Function(&name[..end]));
    }
    (word.max(text.chars().next().map_or(1, char::len_utf8)), Token::Code)
}

/// `r"…"`, `r#"…"#`, with or without `b` before.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r').or_else(|| text.strip_prefix("br"))?;
    let content = after.trim_start_matches('#');
    let hashes = &after[..after.len() - content.len()];
    let content = content.strip_prefix('"')?;
    let end = format!("\"{hashes}");
    let begin = text.len() - content.len();
    Some(content.find(&end).map_or(text.len(), |found| begin + found + end.len()))
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// `'x'` and `'\n'`, but no lifetime.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let mut chars = inner.char_indices();
    if chars.next()?.1 == '\\' {
        chars.next();
        return inner[2..].find('\'').map(|end| end + 4);
    }
    let (index, c) = chars.next()?;
    (c == '\'').then_some(index + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(name: &str, text: &str) -> Vec<(Kind, String)> {
        let joined = |it: Paragraph| {
            let lines: Vec<String> = it.lines.into_iter().map(|(_, line)| line).collect();
            (it.kind, lines.join("/"))
        };
        paragraphs(name, text).into_iter().map(joined).collect()
    }

    #[test]
    fn rust_is_split_into_docs_comments_messages_and_test_names() {
        let code = "/// First\n/// line.\n///\n/// Second `x y`.\n#[test]\nfn name_of_it() {\n    \
                    let c = '\"'; // Why.\n    f::<'a>(\"text \\\" on\", r#\"raw \" on\"#);\n}\nfn other() {}\n";
        assert_eq!(
            texts("a.rs", code),
            [
                (Kind::Doc, "First/line.".to_owned()),
                (Kind::Doc, "Second `.".to_owned()),
                (Kind::TestName, "name_of_it".to_owned()),
                (Kind::Comment, "Why.".to_owned()),
                (Kind::Message, "\"text \\\" on\"".to_owned()),
                (Kind::Message, "r#\"raw \" on\"#".to_owned()),
            ]
        );
    }

    #[test]
    fn markdown_is_split_at_items_headings_and_code() {
        let text =
            "# Title\nOne\ntwo [a](b.md) three.\n- item\n```\ncode\n```\n| a | b |\n1. first";
        let expected = ["# Title", "One/two [a] three.", "- item", "| a | b |", "1. first"];
        let found: Vec<String> = texts("a.md", text).into_iter().map(|(_, text)| text).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn first_paragraph_of_documentation_is_marked() {
        let found = paragraphs("a.rs", "/// One.\n///\n/// Two.\nfn f() {}\n/// Three.\n");
        let first: Vec<bool> = found.iter().map(|it| it.is_first).collect();
        assert_eq!(first, [true, false, true]);
    }
}
