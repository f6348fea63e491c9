use super::*;

fn rules_of(path: &str, text: &str) -> Vec<Rule> {
    faults(path, text).0.into_iter().map(|(_, rule, _)| rule).collect()
}

#[test]
fn each_rule_is_found() {
    for (text, rule) in [
        ("// It says so.", Rule::Talk),
        ("// For nobody.", Rule::People),
        ("// Returns at\n// once.", Rule::Word),
        ("const X: &str = \"not asked yet\";", Rule::Talk),
        ("// As T27 has it.", Rule::Reference),
        ("// See anchors.md.", Rule::Reference),
        ("#[test]\nfn the_test_is_short() {}", Rule::TestName),
        ("#[error(\"Cannot connect\")]", Rule::Message),
    ] {
        assert_eq!(rules_of("a.rs", text), [rule], "{text}");
    }
    let long = format!("/// {}\n#[must_use]\npub fn f() {{}}", "x".repeat(81));
    assert_eq!(rules_of("a.rs", &long), [Rule::FirstLine]);
    let wide = format!("// {}", "x".repeat(98));
    assert_eq!(rules_of("a.rs", &wide), [Rule::Width]);
    assert_eq!(rules_of("a.md", &"word ".repeat(31)), [Rule::Sentence]);
}

#[test]
fn code_and_plain_text_have_no_fault() {
    let text = "/// Returns `ask` once.\n///\n/// ```\n/// tell(nobody);\n/// ```\nfn says() {}\n\
                // gRFC A88, looked up, [link](facts/x.md), HTTP/2, an id of 7.\n#[error(\"TLS of {asked}\")]";
    assert_eq!(rules_of("a.rs", text), []);
}

#[test]
fn folders_are_packages() {
    let found = ["crates/core/src/lib.rs", "tests/src/lib.rs", "README.md"].map(folder);
    assert_eq!(found, ["crates/core", "tests", "README.md"]);
}
