use std::{error::Error, fmt};

/// The error that scripted services fail with, unless a test names its own.
///
/// # Example
///
/// ```
/// use portcullis_testkit::TestError;
///
/// let error = TestError("connection reset");
/// assert_eq!(error.to_string(), "connection reset");
/// let boxed: Box<dyn std::error::Error + Send + Sync> = error.into();
/// assert!(boxed.is::<TestError>());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TestError(pub &'static str);

impl Default for TestError {
    fn default() -> Self {
        Self("scripted failure")
    }
}

impl fmt::Display for TestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for TestError {}
