//! Backups, and back from them.

use crate::args::{BackupArgs, RestoreArgs};
use crate::recordings::config;
use crate::{exit, output, serve};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use stream_manager_core::backup::{
    self, BackupError, BackupOptions, Identities, Manifest, Progress, Recipients, RestoreOptions,
};
use stream_manager_core::config::Config;
use stream_manager_core::frame::WallTime;

fn failed(error: &BackupError) -> u8 {
    output::error(&error.to_string());
    match error {
        BackupError::Io { .. } | BackupError::Database { .. } | BackupError::NoRoom { .. } => exit::OUTPUT,
        BackupError::Exists(_)
        | BackupError::Nothing(_)
        | BackupError::Encrypted(_)
        | BackupError::Key { .. } => exit::USAGE,
        _ => exit::FAILURE,
    }
}

fn wrong(problem: &str) -> u8 {
    output::error(problem);
    exit::USAGE
}

fn shown(manifest: &Manifest) -> String {
    let files: Vec<String> =
        manifest.files.iter().map(|file| format!("{} ({} bytes)", file.name, file.bytes)).collect();
    format!("made {} by version {}: {}", manifest.created, manifest.version, files.join(", "))
}

/// On a terminal, how far it is.
fn telling() -> impl FnMut(Progress) -> bool {
    let (is_terminal, mut told) = (std::io::stderr().is_terminal(), Instant::now());
    move |progress| {
        if is_terminal && told.elapsed() > Duration::from_millis(200) {
            told = Instant::now();
            let percent = progress.done_bytes as f64 / progress.total_bytes.max(1) as f64 * 100.0;
            output::status_line(&format!("{percent:.0} %, {} MB\r", progress.done_bytes / 1_000_000));
        }
        true
    }
}

pub(crate) fn make(args: BackupArgs) -> u8 {
    let config = match config(&args.place) {
        Ok(config) => config,
        Err((code, problem)) => {
            output::error(&problem);
            return code;
        }
    };
    let keys = if args.recipient.is_empty() { config.backup.recipients.clone() } else { args.recipient };
    let recipients = match Recipients::new(keys) {
        Ok(recipients) => recipients,
        Err(problem) => return wrong(&problem),
    };
    let end = if recipients.is_empty() { "tar.gz" } else { "tar.gz.age" };
    let usual =
        || PathBuf::from(WallTime::now().format_utc("stream-manager-%Y%m%dT%H%M%SZ.").to_string() + end);
    let file = args.output.unwrap_or_else(usual);
    let options = BackupOptions::new(&config.storage.data_dir, &file)
        .config(serve::config_file(args.place.config.as_deref()))
        .include(args.include)
        .directories(config.storage.folders())
        .recipients(recipients)
        .overwrite(args.overwrite);
    match backup::make_telling(&options, &mut telling()) {
        Ok(made) => {
            output::line(&format!("{}: {}", file.display(), shown(&made.manifest)));
            output::line(&format!("SHA-256 {}", made.sha256));
            if let Some(copied) = made.recordings {
                output::line(&format!(
                    "recordings: {} files ({} bytes), of which {} ({} bytes) were copied now",
                    copied.files, copied.bytes, copied.new_files, copied.new_bytes
                ));
            }
            0
        }
        Err(error) => failed(&error),
    }
}

pub(crate) fn restore(args: RestoreArgs) -> u8 {
    let keys = match args.identity.as_deref().map(Identities::read).transpose() {
        Ok(keys) => keys.unwrap_or_default(),
        Err(error) => return failed(&error),
    };
    if args.dry_run {
        return match backup::verify(&args.backup, &keys) {
            Ok(manifest) => {
                output::line(&format!("{}: whole, {}", args.backup.display(), shown(&manifest)));
                0
            }
            Err(error) => failed(&error),
        };
    }
    let text = match backup::config_of(&args.backup, &keys) {
        Ok(text) => text,
        Err(error) => return failed(&error),
    };
    let mut storage =
        text.and_then(|text| Config::from_toml(&text).ok()).map(|config| config.storage).unwrap_or_default();
    if let Some(data_dir) = args.data_dir {
        storage.data_dir = data_dir;
    }
    let options = RestoreOptions::new(&args.backup, &storage.data_dir)
        .config(args.config)
        .directories((!args.no_recordings).then(|| storage.folders()))
        .overwrite(args.overwrite);
    match backup::restore(&options, &keys) {
        Ok(report) => {
            report.restored.iter().for_each(|path| output::line(&format!("restored {}", path.display())));
            if report.recordings > 0 {
                output::line(&format!("restored {} files of recordings", report.recordings));
            }
            if let Some(aside) = report.put_aside {
                output::line(&format!("what was there before is in {}", aside.display()));
            }
            0
        }
        Err(error) => failed(&error),
    }
}
