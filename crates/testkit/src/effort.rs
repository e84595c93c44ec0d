//! How long a proof may take.

/// The environment variable that asks for the long version of every proof.
pub const LONG: &str = "PORTCULLIS_LONG";

/// The size of a proof: `bounded` in an ordinary run, `long` where `PORTCULLIS_LONG` is set to
/// anything but nothing or `0`.
///
/// Histories, seeds, cases, schedules: whatever a proof counts, it counts by this, so that one switch
/// makes all of them long.
///
/// # Example
///
/// ```
/// let seeds = portcullis_testkit::effort(8, 1_000);
/// assert!(seeds >= 8);
/// ```
#[must_use]
pub fn effort(bounded: u32, long: u32) -> u32 {
    let asked = std::env::var_os(LONG).is_some_and(|value| !value.is_empty() && value != "0");
    if asked { long } else { bounded }
}
