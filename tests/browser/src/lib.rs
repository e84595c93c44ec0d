//! The page of the admin router, driven in a real browser.
//!
//! - [`World`] is a program with something to show: real stacks over a scripted upstream, and the
//!   admin router on a port of its own.
//! - [`Chrome`] is a browser without a window, and what a test does with the page in it.
//!
//! The scripts are played in paused time, so that what the page shows takes exactly as long in every
//! run; [`World::show`] lets the clock go again, for a browser lives in real time.

mod chrome;
mod driver;
mod upstream;
mod world;

pub use self::{chrome::Chrome, world::World};
