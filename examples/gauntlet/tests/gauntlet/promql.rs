//! As much of PromQL as it takes to see which metrics and labels an expression asks for. Whether it
//! is PromQL at all is for Prometheus to say.

use std::collections::BTreeSet;

/// What an expression asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) selectors: Vec<Selector>,
    /// The labels of `by (…)` and its like.
    pub(crate) grouped: BTreeSet<String>,
}

/// `name{label="value", …}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    pub(crate) matchers: Vec<Matcher>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matcher {
    pub(crate) label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub(crate) how: String,
    pub(crate) value: String,
}

/// What takes labels in parentheses.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];

/// Reads what an expression asks for.
pub(crate) fn asked(expr: &str) -> Asked {
    let mut asked = Asked::default();
    let mut rest = expr;
    while let Some(c) = rest.chars().next() {
        if c == '"' || c == '\'' {
            rest = within(rest, c).1;
        } else if c == '[' {
            rest = within(rest, ']').1;
        } else if c.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if is_word(c) {
            let (word, after) = split(rest);
            rest = after.trim_start();
            if GROUPING.contains(&word) && rest.starts_with('(') {
                let (labels, after) = within(rest, ')');
                asked.grouped.extend(list(labels).map(str::to_owned));
                rest = after;
            } else if rest.starts_with('{') {
                let (matchers, after) = braced(rest);
                asked.selectors.push(Selector { name: word.to_owned(), matchers });
                rest = after;
            } else if !rest.starts_with('(')
                && !OPERATORS.contains(&word)
                && !GROUPING.contains(&word)
                // An aggregation may have its labels first.
                && !["by", "without"].contains(&split(rest).0)
            {
                asked.selectors.push(Selector { name: word.to_owned(), matchers: Vec::new() });
            }
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
    asked
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c| !is_word(c)).unwrap_or(text.len()))
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// What is between the first character of a text and the next `end`, and what is behind that.
fn within(text: &str, end: char) -> (&str, &str) {
    text[1..].split_once(end).unwrap_or_else(|| panic!("no {end} in {text}"))
}

/// The matchers of a text that begins with a brace, and what is behind its end.
fn braced(text: &str) -> (Vec<Matcher>, &str) {
    let mut matchers = Vec::new();
    let mut rest = text[1..].trim_start();
    while !rest.starts_with('}') {
        let (label, after) = split(rest);
        let quote = after.find('"').unwrap_or_else(|| panic!("{label} is given nothing in {text}"));
        let (value, after_value) = within(&after[quote..], '"');
        matchers.push(Matcher {
            label: label.to_owned(),
            how: after[..quote].trim().to_owned(),
            value: value.to_owned(),
        });
        rest = after_value.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
    }
    (matchers, &rest[1..])
}

#[test]
fn reads_metrics_labels_and_what_is_grouped_by() {
    let expr = r#"1e3 * quantile(0.95, sum by (le, job) (rate(a_bucket{x="1", y!~"b|c}"}[5m])))
                  / on(job) group_left () (max without(z) (b{} > bool 0) or 0 * c:d) and e offset 5m"#;
    let matcher = |label: &str, how: &str, value: &str| Matcher {
        label: label.to_owned(),
        how: how.to_owned(),
        value: value.to_owned(),
    };
    let Asked { selectors, grouped } = asked(expr);
    let names: Vec<_> = selectors.iter().map(|selector| selector.name.as_str()).collect();
    assert_eq!(names, ["a_bucket", "b", "c:d", "e"]);
    assert_eq!(selectors[0].matchers, [matcher("x", "=", "1"), matcher("y", "!~", "b|c}")]);
    assert_eq!(Vec::from_iter(grouped), ["job", "le", "z"]);
}
