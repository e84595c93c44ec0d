//! What the store does with its file.

mod conformance;
mod fakes;
mod files;
mod limits;
mod processes;
mod shell;
