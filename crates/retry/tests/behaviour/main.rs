//! What the layer does, one test for each sentence about it.

mod attempts;
mod budget;
mod decisions;
mod fakes;
mod operations;
mod resending;
mod settings;
mod waiting;
