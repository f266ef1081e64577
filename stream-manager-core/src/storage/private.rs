//! Files that hold secrets: nobody but their owner reads them.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What the owner alone may.
const PRIVATE: u32 = 0o600;

/// Makes an empty file that only its owner may read, or takes others' rights away from one that is there. What root makes in the
/// folder of somebody else belongs to that one: the server is to read it. SQLite gives its other files the same rights.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return take_rights(path),
        other => other?,
    };
    give_to_owner_of_folder(&file, path)
}

fn take_rights(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(PRIVATE))?;
    }
    Ok(())
}

fn give_to_owner_of_folder(file: &File, path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = std::fs::metadata(folder)?;
    if rustix::process::geteuid().is_root() && folder.uid() != 0 {
        std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_may_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        make_private(&new).unwrap();
        std::fs::write(&old, "x").unwrap();
        std::fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
        make_private(&old).unwrap();
        assert_eq!((mode(&new), mode(&old)), (PRIVATE, PRIVATE));
        assert_eq!(std::fs::read(&old).unwrap(), b"x");
        assert!(make_private(&folder.path().join("none/x")).is_err());
    }
}
