//! What the settings of a stack come to when they are taken together.

mod bounds;
mod order;
mod rules;
mod settings;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{order::check_order, settings::Inspect};

use self::settings::Settings;
use super::Stack;

/// What [`Stack::check`] says: the worst that can become of a call, and what in the settings does not
/// fit together.
///
/// Its `Display` is a text for people, at 80 columns.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The stack's name; empty if no layer of it has one.
    pub name: Arc<str>,
    /// The longest that a call of no named operation can take to its response's head; `None` if nothing
    /// bounds it.
    pub to_head: Option<Duration>,
    /// The longest that such a call can take to the end of its response's body.
    pub to_end: Option<Duration>,
    /// The most attempts that one call can make.
    pub max_attempts: u32,
    /// Warnings first, then notes.
    pub findings: Vec<Finding>,
}

/// Something worth knowing about settings, or about the order of layers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Its name, which stays the same from version to version: `no-budget`.
    pub code: &'static str,
    /// The part it is about.
    pub part: Part,
    /// What is so.
    pub what: String,
    /// Why, with the numbers.
    pub why: String,
    /// What can be done.
    pub advice: String,
}

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Good to know; it may well be meant.
    Note,
    /// A setting or a layer does not do what it seems to, or not what one would want.
    Warning,
}

/// A place in a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// [`RejectionsLayer`](portcullis_http::RejectionsLayer).
    Rejections,
    /// [`GrpcCallLayer`](portcullis_http::GrpcCallLayer).
    GrpcCall,
    /// [`TraceLayer`](portcullis_trace::TraceLayer).
    Trace,
    /// A [`TimeoutLayer`](portcullis_timeout::TimeoutLayer) of whole calls.
    Total,
    /// `PollLayer`, of the feature `poll`.
    Poll,
    /// [`RetryLayer`](portcullis_retry::RetryLayer).
    Retry,
    /// [`RateLimitLayer`](portcullis_ratelimit::RateLimitLayer).
    Limit,
    /// [`BreakerLayer`](portcullis_breaker::BreakerLayer).
    Breaker,
    /// A [`TimeoutLayer`](portcullis_timeout::TimeoutLayer) of each attempt.
    Attempt,
    /// [`PropagateLayer`](portcullis_http::PropagateLayer).
    Propagate,
    /// `tower::buffer`, or anything else that calls the service in another task.
    Buffer,
}

/// Columns of a report as text.
const WIDTH: usize = 80;
const MARGIN: usize = 9;

// ===== impl Stack =====

impl<Tr, T, R, Li, B, A, P, O> Stack<Tr, T, R, Li, B, A, P, O>
where
    Tr: Inspect,
    T: Inspect,
    R: Inspect,
    Li: Inspect,
    B: Inspect,
    A: Inspect,
{
    /// What the settings come to, taken together: the longest a call can take, the most requests it
    /// can send, limits and thresholds that never count, retries that can never happen.
    ///
    /// It looks at settings only, so it is the same for every call; what callers say for one call
    /// (`call::with()`) stands above them. Parts that were [left out](Stack::without_retry) count as
    /// such.
    ///
    /// ```
    /// use portcullis::{Severity, Stack};
    /// use std::time::Duration;
    ///
    /// let stack = Stack::production("search")
    ///     .total(|timeout| timeout.total(Duration::from_secs(5)))
    ///     .build()?;
    /// let report = stack.check();
    /// assert_eq!(report.to_end, Some(Duration::from_secs(5)));
    ///
    /// // The preset's 10 s for one attempt never run out now.
    /// let warning = report.warnings().next().unwrap();
    /// assert_eq!(warning.code, "attempt-beyond-total");
    /// println!("{report}");
    /// # Ok::<_, portcullis::Invalid>(())
    /// ```
    #[must_use]
    pub fn check(&self) -> Report {
        let mut settings = Settings::default();
        self.trace.inspect(Part::Trace, &mut settings);
        self.total.inspect(Part::Total, &mut settings);
        self.retry.inspect(Part::Retry, &mut settings);
        self.limit.inspect(Part::Limit, &mut settings);
        self.breaker.inspect(Part::Breaker, &mut settings);
        self.attempt.inspect(Part::Attempt, &mut settings);
        rules::report(&settings)
    }
}

// ===== impl Report =====

impl Report {
    /// The findings that are warnings.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Warning)
    }

    /// The finding of this code.
    #[must_use]
    pub fn find(&self, code: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.code == code)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warnings = self.warnings().count();
        let notes = self.findings.len() - warnings;
        let count = |n: usize, what: &str| match n {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            n => format!("{n} {what}s"),
        };
        if !self.name.is_empty() {
            write!(f, "{}: ", self.name)?;
        }
        match self.to_end.or(self.to_head) {
            Some(longest) => write!(f, "at most {longest:?}")?,
            None => f.write_str("no bound in time")?,
        }
        if self.to_end.is_none() && self.to_head.is_some() {
            f.write_str(" to the head")?;
        }
        let attempts = count(self.max_attempts as usize, "attempt");
        let (warnings, notes) = (count(warnings, "warning"), count(notes, "note"));
        write!(f, " and {attempts} a call; {warnings}, {notes}")?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n\n{finding}"))
    }
}

// ===== impl Finding =====

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:MARGIN$}{}: {}", self.severity.as_str(), self.part, self.code)?;
        for text in [&self.what, &self.why, &self.advice] {
            let mut column = WIDTH;
            for word in text.split_whitespace() {
                let long = word.chars().count();
                if column + 1 + long > WIDTH {
                    write!(f, "\n{:MARGIN$}{word}", "")?;
                    column = MARGIN + long;
                } else {
                    write!(f, " {word}")?;
                    column += 1 + long;
                }
            }
        }
        Ok(())
    }
}

// ===== impl Severity =====

impl Severity {
    /// As one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// ===== impl Part =====

impl Part {
    /// As people call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejections => "rejections",
            Self::GrpcCall => "grpc call",
            Self::Trace => "trace",
            Self::Total => "total timeout",
            Self::Poll => "poll",
            Self::Retry => "retry",
            Self::Limit => "rate limit",
            Self::Breaker => "breaker",
            Self::Attempt => "attempt timeout",
            Self::Propagate => "propagate",
            Self::Buffer => "buffer",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
