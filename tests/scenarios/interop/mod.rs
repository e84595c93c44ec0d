//! The stack among what others have made for Tower and hyper: verdicts still fall, and refusals still
//! arrive as what they are.

mod balance;
mod clients;
mod tower_http;
mod tower_layers;
