//! How operations are followed.

mod asking;
mod cancelled;
mod events;
mod fakes;
mod limits;
mod model;
mod settings;
