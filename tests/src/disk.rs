//! A disk that misbehaves, for the program under test: forgets what was not synced, refuses, is slow.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The disk below one folder.
pub struct Disk {
    root: PathBuf,
    shadow: PathBuf,
    control: PathBuf,
    library: PathBuf,
    bad: String,
}

impl Disk {
    /// A disk for everything below `folder/root`; troubles are those of `bad` below that. Compiles the library
    /// that does it.
    pub fn new(folder: &Path, bad: &str) -> Self {
        let disk = Self {
            root: folder.join("root"),
            shadow: folder.join("shadow"),
            control: folder.join("control"),
            library: folder.join("disk.so"),
            bad: bad.to_owned(),
        };
        for path in [&disk.root, &disk.shadow] {
            std::fs::create_dir_all(path).unwrap();
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/disk.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&disk.library)
            .arg(source)
            .args(["-ldl", "-lpthread"])
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        disk
    }

    /// Where the program's files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Puts a program onto this disk.
    pub fn attach(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("DISK_ROOT", &self.root)
            .env("DISK_SHADOW", &self.shadow)
            .env("DISK_BAD", &self.bad)
            .env("DISK_CONTROL", &self.control);
    }

    /// Says what goes wrong from now on: `eio`, `erofs`, `enospc`, `slow`, `clock -7200`, or nothing.
    pub fn trouble(&self, what: &str) {
        std::fs::write(&self.control, what).unwrap();
    }

    /// After the program was killed: the disk as a power cut has left it, under the same path. What was never
    /// made safe is gone.
    pub fn cut_power(&self) {
        let mut folders: HashMap<PathBuf, Vec<(u64, String)>> = HashMap::new();
        for entry in std::fs::read_dir(&self.shadow).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !name.starts_with("folder-") || name.ends_with(".part") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let mut lines = text.lines();
            let folder = PathBuf::from(lines.next().unwrap());
            let entries = lines.map(|line| {
                let (inode, name) = line.split_once(' ').unwrap();
                (inode.parse().unwrap(), name.to_owned())
            });
            folders.insert(folder, entries.collect());
        }
        let before = self.root.with_extension("before");
        let _ = std::fs::remove_dir_all(&before);
        std::fs::rename(&self.root, &before).unwrap();
        std::fs::create_dir(&self.root).unwrap();
        self.restore(&self.root, &before, &folders);
        std::fs::remove_dir_all(&before).unwrap();
        std::fs::remove_dir_all(&self.shadow).unwrap();
        std::fs::create_dir(&self.shadow).unwrap();
        // From now on this is what the disk holds for good.
        keep_all(&self.root, &self.shadow);
    }

    fn restore(&self, folder: &Path, before: &Path, folders: &HashMap<PathBuf, Vec<(u64, String)>>) {
        let Some(entries) = folders.get(folder) else { return };
        for (inode, name) in entries {
            let (path, old) = (folder.join(name), before.join(name));
            if name == "config.toml" {
                // The test's own.
                std::fs::copy(&old, &path).unwrap();
            } else if folders.contains_key(&path) || old.is_dir() {
                std::fs::create_dir(&path).unwrap();
                self.restore(&path, &old, folders);
            } else {
                let data = std::fs::read(self.shadow.join(format!("inode-{inode}"))).unwrap_or_default();
                std::fs::write(&path, data).unwrap();
            }
        }
    }
}

/// Enters everything that is there as safe.
fn keep_all(folder: &Path, shadow: &Path) {
    use std::os::unix::fs::MetadataExt;
    let mut text = format!("{}\n", folder.display());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let inode = std::fs::metadata(&path).unwrap().ino();
        text.push_str(&format!("{inode} {}\n", path.file_name().unwrap().to_string_lossy()));
        if path.is_dir() {
            keep_all(&path, shadow);
        } else {
            std::fs::copy(&path, shadow.join(format!("inode-{inode}"))).unwrap();
        }
    }
    let inode = std::fs::metadata(folder).unwrap().ino();
    std::fs::write(shadow.join(format!("folder-{inode}")), text).unwrap();
}
