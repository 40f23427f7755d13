//! Tests of outcomes as a whole.

mod compare;
mod files;
mod goals;
mod page;
mod record;
mod sample;
