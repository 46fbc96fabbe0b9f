//! Generated files are checked in and never drift from their sources.

use std::path::Path;

#[test]
fn every_generated_file_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let differing: Vec<_> = xtask::differing(&root).unwrap().into_iter().map(|file| file.path).collect();
    assert!(differing.is_empty(), "run `cargo xtask generate`: {differing:?}");
}
