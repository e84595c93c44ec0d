//! The program from outside, as whoever runs it meets it.

mod serve;
mod served;
mod traces;
