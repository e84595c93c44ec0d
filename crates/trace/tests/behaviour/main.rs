//! What the layer, the scopes, the recorder and the stores do.

mod calls;
mod desk;
mod fakes;
mod handover;
mod opened;
mod output;
mod picture;
mod sampling;
mod scopes;
mod stores;
