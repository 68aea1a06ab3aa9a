//! imaged: xvm's image agent.

fn main() {}
