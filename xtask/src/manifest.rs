//! Reads the few fields of a `Cargo.toml` that cargo does not print.

use std::collections::BTreeMap;

/// The single-line values of a manifest, by their full key (`package.name`). Enough for the fields
/// the house has rules about; dependencies are cargo's to tell.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    values: BTreeMap<String, String>,
}

impl Manifest {
    pub(crate) fn parse(text: &str) -> Self {
        let mut values = BTreeMap::new();
        let mut table = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(header) = line.strip_prefix('[') {
                // `[[bin]]` and the like hold nothing that is asked for, but end the table before.
                table = header.split(']').next().unwrap_or_default().trim().to_owned();
            } else if let Some((key, value)) = line.split_once('=')
                && !line.starts_with('#')
            {
                let key = key.trim();
                let key = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
                values.insert(key, unquoted(value).to_owned());
            }
        }
        Self { values }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Whether the field is taken from the workspace: `license.workspace = true`, or the same as a
    /// table.
    pub(crate) fn inherits(&self, key: &str) -> bool {
        self.get(&format!("{key}.workspace")) == Some("true")
            || self.get(key).is_some_and(|value| value.replace(' ', "") == "{workspace=true}")
    }
}

/// A value without its quotes and without the comment after it.
fn unquoted(value: &str) -> &str {
    let value = value.trim();
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap_or_default(),
        _ => value.split('#').next().unwrap_or_default().trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tables_dotted_keys_quotes_and_comments() {
        let manifest = Manifest::parse(
            r##"
            # name = "commented out"
            lints.workspace = true
            [package]
            name = "portcullis-core" # the first
            description = 'Words # and numbers'
            license.workspace = true
            publish = false # never
            [[bin]]
            name = "tool"
            "##,
        );
        assert_eq!(manifest.get("package.name"), Some("portcullis-core"));
        assert_eq!(manifest.get("package.description"), Some("Words # and numbers"));
        assert_eq!(manifest.get("package.publish"), Some("false"));
        assert_eq!(manifest.get("package.readme"), None);
        assert!(manifest.inherits("lints"));
        assert!(manifest.inherits("package.license"));
        assert!(!manifest.inherits("package.publish"));
    }

    #[test]
    fn every_spelling_of_inheritance_counts() {
        for text in
            ["[lints]\nworkspace = true", "lints.workspace = true", "lints = { workspace = true }"]
        {
            assert!(Manifest::parse(text).inherits("lints"), "{text}");
        }
        assert!(!Manifest::parse("[lints]\nworkspace = false").inherits("lints"));
        assert!(!Manifest::parse("[lints.rust]\nworkspace = true").inherits("lints"));
    }
}
