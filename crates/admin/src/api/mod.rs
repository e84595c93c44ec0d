//! What is answered, in JSON.

pub(crate) mod breakers;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod limits;
pub(crate) mod metrics;
mod record;
pub(crate) mod targets;
pub(crate) mod traces;

/// Entries of one list; beyond, the answer says how many are left out.
const MOST: usize = 1000;
