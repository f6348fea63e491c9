//! The little of a Cargo.toml that xtask needs, read line by line.

/// Names only; values are cargo's business.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    /// False with `publish = false`.
    pub(crate) publish: bool,
    pub(crate) features: Vec<String>,
    /// `[dependencies]` and `[build-dependencies]`.
    pub(crate) dependencies: Vec<String>,
    pub(crate) dev_dependencies: Vec<String>,
}

impl Manifest {
    pub(crate) fn parse(text: &str) -> Self {
        let mut manifest = Self {
            name: String::new(),
            publish: true,
            features: Vec::new(),
            dependencies: Vec::new(),
            dev_dependencies: Vec::new(),
        };
        let mut section = "";
        let mut depth = 0; // Inside a list that goes over several lines.
        for line in text.lines().map(|line| line.split(" #").next().unwrap_or(line).trim()) {
            if depth == 0 && line.starts_with('[') {
                section = line.trim_matches(['[', ']']);
            } else if depth == 0
                && let Some((key, value)) = line.split_once('=')
            {
                manifest.add(section, key.trim(), value.trim());
            }
            depth += line.matches(['[', '{']).count();
            depth -= line.matches([']', '}']).count().min(depth);
        }
        manifest
    }

    fn add(&mut self, section: &str, key: &str, value: &str) {
        let key = key.split('.').next().unwrap_or(key).trim_matches('"');
        let (table, key) = match section.split_once("dependencies.") {
            Some((before, name)) => (format!("{before}dependencies"), name),
            None => (section.to_owned(), key),
        };
        let list = match table.rsplit('.').next().unwrap_or_default() {
            "package" if key == "name" => {
                self.name = value.trim_matches('"').to_owned();
                return;
            }
            "package" if key == "publish" => {
                self.publish = value != "false";
                return;
            }
            "features" => &mut self.features,
            "dependencies" | "build-dependencies" => &mut self.dependencies,
            "dev-dependencies" => &mut self.dev_dependencies,
            _ => return,
        };
        if !list.iter().any(|it| it == key) {
            list.push(key.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_all_the_ways_to_write_them() {
        let text = r#"
[package]
name = "tower-sd-x" # A comment.
version.workspace = true
publish = false

[features]
default = []
tls = [
    "rustls",
    "other = no key",
]

[dependencies]
tower-sd-core.workspace = true
tokio = { workspace = true, features = ["rt"] }

[target.'cfg(unix)'.dependencies]
libc = "0.2"

[dev-dependencies.proptest]
version = "1"
features = ["std"]

[dev-dependencies]
serde_json.workspace = true

[[bin]]
name = "other"
"#;
        let manifest = Manifest::parse(text);
        assert_eq!(manifest.name, "tower-sd-x");
        assert!(!manifest.publish);
        assert_eq!(manifest.features, ["default", "tls"]);
        assert_eq!(manifest.dependencies, ["tower-sd-core", "tokio", "libc"]);
        assert_eq!(manifest.dev_dependencies, ["proptest", "serde_json"]);
    }
}
