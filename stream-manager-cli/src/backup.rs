//! Backups, and back from them.

use crate::args::{BackupArgs, RestoreArgs};
use crate::recordings::data_dir;
use crate::{exit, output, serve};
use std::path::PathBuf;
use stream_manager_core::backup::{self, BackupError, BackupOptions, Manifest, RestoreOptions};
use stream_manager_core::config::Config;
use stream_manager_core::frame::WallTime;

fn failed(error: &BackupError) -> u8 {
    output::error(&error.to_string());
    match error {
        BackupError::Io { .. } | BackupError::Database { .. } => exit::OUTPUT,
        BackupError::Exists(_) | BackupError::Nothing(_) => exit::USAGE,
        _ => exit::FAILURE,
    }
}

fn shown(manifest: &Manifest) -> String {
    let files: Vec<String> =
        manifest.files.iter().map(|file| format!("{} ({} bytes)", file.name, file.bytes)).collect();
    format!("made {} by version {}: {}", manifest.created, manifest.version, files.join(", "))
}

pub(crate) fn make(args: BackupArgs) -> u8 {
    let data_dir = match data_dir(&args.place) {
        Ok(data_dir) => data_dir,
        Err((code, problem)) => {
            output::error(&problem);
            return code;
        }
    };
    let usual = || PathBuf::from(WallTime::now().format_utc("stream-manager-%Y-%m-%dT%H-%M-%SZ.tar.gz"));
    let file = args.output.unwrap_or_else(usual);
    let options = BackupOptions::new(data_dir, &file)
        .config(serve::config_file(args.place.config.as_deref()))
        .index(!args.no_index)
        .overwrite(args.overwrite);
    match backup::make(&options) {
        Ok(manifest) => {
            output::line(&format!("{}: {}", file.display(), shown(&manifest)));
            0
        }
        Err(error) => failed(&error),
    }
}

pub(crate) fn restore(args: RestoreArgs) -> u8 {
    if args.dry_run {
        return match backup::verify(&args.backup) {
            Ok(manifest) => {
                output::line(&format!("{}: whole, {}", args.backup.display(), shown(&manifest)));
                0
            }
            Err(error) => failed(&error),
        };
    }
    let data_dir = match args.data_dir {
        Some(data_dir) => data_dir,
        None => match backup::config_of(&args.backup) {
            Ok(text) => {
                let config = text.and_then(|text| Config::from_toml(&text).ok());
                config.map_or_else(|| PathBuf::from("data"), |config| config.storage.data_dir)
            }
            Err(error) => return failed(&error),
        },
    };
    let options = RestoreOptions::new(&args.backup, data_dir).config(args.config).overwrite(args.overwrite);
    match backup::restore(&options) {
        Ok(report) => {
            report.restored.iter().for_each(|path| output::line(&format!("restored {}", path.display())));
            if let Some(aside) = report.put_aside {
                output::line(&format!("what was there before is in {}", aside.display()));
            }
            0
        }
        Err(error) => failed(&error),
    }
}
