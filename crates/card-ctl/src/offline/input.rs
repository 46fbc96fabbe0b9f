//! Files of the command line, read with a limit.

use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::BAD_INPUT;

/// Largest trust bundle: what a ConfigMap can hold.
pub(super) const MAX_BUNDLE_BYTES: usize = 1024 * 1024;

/// Reads a file, `-` for standard input, up to one byte more than `limit`, so that its reader can see the excess.
pub(super) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let source: io::Result<Box<dyn Read>> = if path == Path::new("-") {
        Ok(Box::new(io::stdin()))
    } else {
        std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let mut bytes = Vec::new();
    source
        .and_then(|source| source.take(limit as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(bytes)
}

/// Writes to standard output; a reader that has gone away is no reason to fail.
pub(super) fn print(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// One line on standard error.
pub(super) fn refuse(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {message}");
    ExitCode::from(BAD_INPUT)
}
