//! Settings that cannot be.

use std::{error::Error, fmt};

/// A setting that is out of its range: which one, what it was, and what is allowed.
///
/// ```
/// use portcullis_core::Invalid;
///
/// let invalid = Invalid::new("failure_rate", 1.2, "above 0 and at most 1");
/// assert_eq!(invalid.to_string(), "failure_rate is 1.2, allowed is above 0 and at most 1");
/// assert!(invalid.within("search: breaker").to_string().starts_with("search: breaker: failure_rate"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    place: Option<String>,
    field: &'static str,
    value: String,
    allowed: String,
}

// ===== impl Invalid =====

impl Invalid {
    /// A `field` set to `value` where only `allowed` will do.
    #[must_use]
    pub fn new(field: &'static str, value: impl fmt::Debug, allowed: impl Into<String>) -> Self {
        Self { place: None, field, value: format!("{value:?}"), allowed: allowed.into() }
    }

    /// The same of a part of something larger: `place` says which.
    #[must_use]
    pub fn within(mut self, place: impl Into<String>) -> Self {
        let place = place.into();
        self.place = Some(match self.place {
            Some(inner) => format!("{place}: {inner}"),
            None => place,
        });
        self
    }

    /// Which part of something larger it is, if it was said.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// The setting's name.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// What it was set to.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What it may be set to.
    #[must_use]
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{} is {}, allowed is {}", self.field, self.value, self.allowed)
    }
}

impl Error for Invalid {}
