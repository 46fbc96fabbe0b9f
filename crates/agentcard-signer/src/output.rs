//! The signed card as a file: all of it or nothing (card §16.1).

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Writes `document` to `path`, mode 0644, directories 0755: a temporary file beside it, synced, then renamed over
/// it. A failure leaves no trace.
pub(crate) fn write(path: &Path, document: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let temporary = directory.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = write_new(&temporary, document).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // Not every volume can sync a directory; the file itself is complete either way.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

fn write_new(path: &Path, document: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    file.write_all(document)?;
    // Whatever the umask says: the agent runs as another user.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_directories_and_replaces_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a/.well-known/agent-card.json");
        for text in ["first, which is longer", "second"] {
            write(&path, text.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
        }
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o644);
        assert_eq!(mode(&directory.path().join("a")) & 0o755, 0o755);
        assert_eq!(fs::read_dir(path.parent().expect("a parent")).expect("read").count(), 1, "no leftovers");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("card.json");
        fs::create_dir(&path).expect("made");
        assert!(write(&path, b"{}").is_err(), "a directory is in the way");
        assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 1);
    }
}
