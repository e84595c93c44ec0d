//! The program from outside, as whoever runs it meets it; and what its metrics are looked at with.

mod emitted;
mod pages;
mod prometheus;
mod promql;
mod serve;
mod served;
mod traces;
