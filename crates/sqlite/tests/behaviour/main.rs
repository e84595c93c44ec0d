//! What the store does with its file.

mod conformance;
#[cfg(target_os = "linux")]
mod disk;
mod fakes;
mod files;
mod limits;
mod processes;
mod shell;
