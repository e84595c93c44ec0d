//! What the layer, the scopes, the recorder and the stores do.

mod calls;
mod fakes;
mod handover;
mod output;
mod picture;
mod sampling;
mod scopes;
mod stores;
