//! Generated files of the repository.
fn main() {}
