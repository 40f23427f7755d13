//! `loadgen`: measures how long SIP calls stay in danger when connections die.

fn main() {}
