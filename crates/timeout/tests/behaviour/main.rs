//! What the layer does to calls, on a paused clock.

mod body;
mod deadline;
mod drops;
mod kit;
mod limits;
mod readiness;
mod timers;
