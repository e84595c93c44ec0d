//! What stands behind the question mark, and in the path.

use std::{fmt::Display, str::FromStr};

use axum::extract::{Path, rejection::PathRejection};

use serde::Deserialize;

use crate::problem::Problem;

/// Parameters, each of them known and there once.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

/// Characters of a wrong value that are shown.
const SHOWN: usize = 60;

// ===== impl Params =====

impl Params {
    /// # Errors
    ///
    /// 400 for one that is not among `allowed` or is there twice. How long they are is the server's to
    /// bound, which bounds the address: a key may be as long as that.
    pub(crate) fn parse(query: Option<&str>, allowed: &[&str]) -> Result<Self, Problem> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !allowed.contains(&&*name) {
                let allowed = match allowed {
                    [] => "none".to_owned(),
                    _ => allowed.join(", "),
                };
                let name = shorten(&name);
                let detail =
                    format!("{name} is no parameter of this address; allowed are {allowed}.");
                return Err(Problem::bad(detail));
            }
            if all.iter().any(|(other, _)| *other == name) {
                return Err(Problem::bad(format!("{name} is there twice, allowed is once.")));
            }
            all.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(all))
    }

    /// The value as it is.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The value as something else. An empty one is as if absent: what a form leaves open.
    ///
    /// # Errors
    ///
    /// 400 if it is none; `allowed` says what would be.
    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.text(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        parse(value).map(Some).ok_or_else(|| wrong(name, value, allowed))
    }

    /// A number within bounds.
    ///
    /// # Errors
    ///
    /// 400 if it is none.
    pub(crate) fn number<T>(&self, name: &str, least: T, most: T) -> Result<Option<T>, Problem>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let allowed = format!("a number from {least} to {most}");
        let within = |value: &T| *value >= least && *value <= most;
        self.parsed(name, &allowed, |value| value.parse().ok().filter(within))
    }
}

/// What a path names. By names of our own: the path that the router is nested at may have parts that are
/// named as well.
#[derive(Debug, Deserialize)]
pub(crate) struct Breaker {
    #[serde(rename = "portcullis_breaker")]
    pub(crate) name: String,
}

/// The same with what is to be done.
#[derive(Debug, Deserialize)]
pub(crate) struct Order {
    #[serde(rename = "portcullis_breaker")]
    pub(crate) name: String,
    #[serde(rename = "portcullis_order")]
    pub(crate) order: String,
}

/// The trace that a path names.
#[derive(Debug, Deserialize)]
pub(crate) struct Trace {
    #[serde(rename = "portcullis_trace")]
    pub(crate) id: String,
}

/// What a path names.
///
/// # Errors
///
/// 400 for what is no text.
pub(crate) fn named<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Problem> {
    let not_a_text = |_| Problem::bad("What is percent-encoded in the path is not UTF-8.");
    path.map(|Path(named)| named).map_err(not_a_text)
}

/// The problem that a value is wrong.
pub(crate) fn wrong(name: &str, value: &str, allowed: impl Display) -> Problem {
    Problem::bad(format!("{name} is {}, allowed is {allowed}.", shorten(value)))
}

/// A text from outside, to be shown: quoted, its control characters escaped, and short.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
