//! What is measured, in one place for every measure: criterion's, the instruction counts, the table
//! beside peers.

pub mod inner;
pub mod observed;
pub mod scenario;
