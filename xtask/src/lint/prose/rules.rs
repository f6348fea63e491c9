//! The rules, as CONTRIBUTING.md lists them.

use super::text::{Kind, Paragraph};

/// What is wrong in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// Code that says, asks or tells.
    Talk,
    /// People in the place of instances, processes and callers.
    People,
    /// Other words with a plain one beside them, see [`WORDS`].
    Word,
    FirstLine,
    Width,
    Reference,
    TestName,
    Message,
    Sentence,
}

impl Rule {
    pub(super) const ALL: [(Self, &str); 9] = [
        (Self::Talk, "talk"),
        (Self::People, "people"),
        (Self::Word, "words"),
        (Self::FirstLine, "first"),
        (Self::Width, "width"),
        (Self::Reference, "refs"),
        (Self::TestName, "names"),
        (Self::Message, "messages"),
        (Self::Sentence, "long"),
    ];
}

/// A fault: its line, its rule, and a sentence.
pub(super) type Fault = (usize, Rule, String);

/// The faults of a file, and the number of its words.
pub(super) fn faults(text: &str, paragraphs: &[Paragraph]) -> (Vec<Fault>, usize) {
    let (mut faults, mut n_words) = (Vec::new(), 0);
    for paragraph in paragraphs {
        n_words += words(paragraph, &mut faults);
        match paragraph.kind {
            Kind::Doc if paragraph.is_first => first_line(paragraph, text, &mut faults),
            Kind::TestName => test_name(paragraph, &mut faults),
            Kind::Message => message(paragraph, text, &mut faults),
            Kind::Doc | Kind::Comment => {}
        }
        if matches!(paragraph.kind, Kind::Doc | Kind::Comment) {
            references(paragraph, &mut faults);
            sentences(paragraph, &mut faults);
        }
    }
    width(text, paragraphs, &mut faults);
    faults.sort();
    (faults, n_words)
}

/// Words and pairs of words from the list; returns how many words there are.
fn words(paragraph: &Paragraph, faults: &mut Vec<Fault>) -> usize {
    let mut before = String::new();
    let mut count = 0;
    for (number, line) in &paragraph.lines {
        let is_letter = |c: char| c.is_alphabetic() || c == '\'';
        for word in line.split(|c| !is_letter(c)).filter(|word| !word.is_empty()) {
            count += 1;
            let word = word.to_lowercase();
            let pair = format!("{before} {word}");
            if word == "up" && ["looks", "looked"].contains(&before.as_str()) {
                faults.pop_if(|(_, rule, _)| *rule == Rule::Word);
            }
            let found = WORDS.iter().find(|(_, words, _)| {
                words.iter().any(|bad| *bad == word.as_str() || *bad == pair.as_str())
            });
            if let Some((rule, words, instead)) = found {
                let bad = if words.contains(&word.as_str()) { &word } else { &pair };
                faults.push((*number, *rule, format!("{bad:?}: {instead}")));
            }
            before = word;
        }
    }
    count
}

/// The first line of a public item or a module, which rustdoc shows in its lists.
fn first_line(paragraph: &Paragraph, text: &str, faults: &mut Vec<Fault>) {
    let (number, _) = paragraph.lines[0];
    let mut lines = text.lines().skip(number - 1).map(str::trim);
    let line = lines.next().unwrap_or_default();
    let item = lines.find(|line| !line.starts_with("///") && !line.starts_with("#["));
    let is_shown = line.starts_with("//!") || item.is_some_and(|item| item.starts_with("pub "));
    let length = line.trim_start_matches(['/', '!']).trim().chars().count();
    if is_shown && length > MAX_FIRST_LINE {
        faults.push((number, Rule::FirstLine, format!("first line of {length} characters")));
    }
}

fn test_name(paragraph: &Paragraph, faults: &mut Vec<Fault>) {
    let (number, name) = &paragraph.lines[0];
    if name.len() > MAX_TEST_NAME {
        faults.push((*number, Rule::TestName, format!("name of {} characters", name.len())));
    }
    if ["a_", "an_", "the_"].iter().any(|article| name.starts_with(article)) {
        faults.push((*number, Rule::TestName, format!("{name} begins with an article")));
    }
}

/// An error that thiserror prints begins with a small letter; acronyms and names of code stay.
fn message(paragraph: &Paragraph, text: &str, faults: &mut Vec<Fault>) {
    let (number, message) = &paragraph.lines[0];
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let mut chars = message.trim_start_matches('"').chars();
    let is_sentence = chars.next().is_some_and(char::is_uppercase)
        && chars.next().is_some_and(|c| c.is_lowercase() || c == ' ');
    if line.contains("#[error(") && is_sentence {
        faults.push((*number, Rule::Message, "an error begins with a small letter".to_owned()));
    }
}

/// `T27`, `C54`, documents that are not in the repository.
fn references(paragraph: &Paragraph, faults: &mut Vec<Fault>) {
    for (number, line) in &paragraph.lines {
        let mut before = "";
        for word in line.split_whitespace() {
            let plain = word.trim_matches(|c: char| !c.is_alphanumeric());
            let is_number = plain.starts_with(['A', 'B', 'C', 'D', 'E', 'F', 'G', 'L', 'T'])
                && (2..=4).contains(&plain.len())
                && plain[1..].bytes().all(|byte| byte.is_ascii_digit());
            let is_document = NO_DOCUMENTS.iter().any(|name| word.contains(name));
            if (is_number && !before.ends_with("gRFC")) || is_document {
                faults.push((*number, Rule::Reference, format!("no reader can open {plain:?}")));
            }
            before = word;
        }
    }
}

fn sentences(paragraph: &Paragraph, faults: &mut Vec<Fault>) {
    let (mut count, mut begin) = (0, paragraph.lines[0].0);
    for (number, line) in &paragraph.lines {
        for word in line.split_whitespace() {
            if count == 0 {
                begin = *number;
            }
            count += usize::from(word.contains(char::is_alphanumeric) || word.contains('`'));
            let end = word.trim_end_matches(['*', '_', ')', '"']);
            if end.ends_with(['.', '?', ':', ';']) || word == "|" {
                too_long(begin, count, faults);
                count = 0;
            }
        }
    }
    too_long(begin, count, faults);
}

fn too_long(begin: usize, count: usize, faults: &mut Vec<Fault>) {
    if count > MAX_SENTENCE {
        faults.push((begin, Rule::Sentence, format!("sentence of {count} words")));
    }
}

/// Lines that end in a comment; an address may be longer.
fn width(text: &str, paragraphs: &[Paragraph], faults: &mut Vec<Fault>) {
    let comments = paragraphs.iter().filter(|it| matches!(it.kind, Kind::Doc | Kind::Comment));
    let mut numbers: Vec<usize> =
        comments.flat_map(|it| it.lines.iter().map(|(number, _)| *number)).collect();
    numbers.dedup();
    let lines: Vec<&str> = text.lines().collect();
    for number in numbers {
        let line = lines[number - 1];
        let width = line.chars().count();
        if width > MAX_WIDTH && !line.contains("://") && line.trim_start().starts_with(['/', '#']) {
            faults.push((number, Rule::Width, format!("comment of {width} columns")));
        }
    }
}

const MAX_FIRST_LINE: usize = 80;
const MAX_TEST_NAME: usize = 60;
const MAX_WIDTH: usize = 100;
/// The rule is 25; a list of names may take more.
const MAX_SENTENCE: usize = 30;

const NO_DOCUMENTS: &[&str] =
    &["anchors.md", "facts/", "review/", "shared/", "acceptance.md", "design.md", "style.md"];

/// Words, and what to write instead.
const WORDS: &[(Rule, &[&str], &str)] = &[
    (Rule::Talk, &["say", "says", "said", "saying"], "report, return, state, document"),
    (Rule::Talk, &["ask", "asks", "asked", "asking"], "request, query, probe"),
    (Rule::Talk, &["tell", "tells", "told", "telling"], "report, notify, distinguish"),
    (Rule::People, &["nobody", "nobody's"], "no instance, no caller, no process"),
    (Rule::People, &["somebody", "somebody's", "someone"], "another process, a caller"),
    (Rule::People, &["whoever", "whom", "everybody", "anybody", "anyone"], "the caller, …"),
    (Rule::Word, &["hear", "hears", "heard"], "receive, observe"),
    (Rule::Word, &["believe", "believes", "believed"], "accept, trust"),
    (Rule::Word, &["speak", "speaks", "spoke", "spoken"], "use, support"),
    (Rule::Word, &["knows", "knew", "wants", "looks", "looked"], "have, need, read"),
    (Rule::Word, &["forgets", "forgot", "forgotten", "vouch", "vouches"], "drop, assert"),
    (Rule::Word, &["at once"], "immediately, or concurrently"),
    (Rule::Word, &["for ever", "forever"], "indefinitely, without bound"),
    (Rule::Word, &["its word", "your word"], "report, response"),
];
