//! Files and index compared by hand: what `stream-manager fsck` does while no server runs.

use super::ManagerError;
use crate::config::StorageConfig;
use crate::storage::index::{Catalog, FILE_NAME, IndexError};
use crate::storage::repair::{Repair, Report};
use crate::storage::{DataLock, Place};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How far a check may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckOptions {
    /// Puts right what is found.
    pub repair: bool,
    /// Puts the index aside and makes a new one from the files. Gaps, marks and protection are taken over from
    /// the old one as far as it can be read.
    pub rebuild: bool,
}

/// What a check has found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct FsckReport {
    /// What was found, and done if it was to.
    #[serde(flatten)]
    pub report: Report,
    /// Where the old index is, if there is a new one.
    pub old_index: Option<PathBuf>,
    /// Why the index could not be used as it was.
    pub index_problem: Option<String>,
}

/// Compares files and index. Blocks.
///
/// # Errors
/// If the data folder is in use, or the index cannot be read (and is not to be made anew).
pub fn fsck(storage: &StorageConfig, options: FsckOptions) -> Result<FsckReport, ManagerError> {
    let _lock = DataLock::take(&storage.data_dir)?;
    let places: Vec<Arc<Place>> =
        storage.folders().into_values().map(|path| Arc::new(Place::new(path, true))).collect();
    let mut result = FsckReport::default();
    let exists = storage.data_dir.join(FILE_NAME).exists();
    let opened = Catalog::open(&storage.data_dir).and_then(|catalog| catalog.check().map(|()| catalog));
    let change = options.repair || options.rebuild;
    let mut catalog = match opened {
        Ok(catalog) if !options.rebuild => catalog,
        Err(error) if !change => return Err(error.into()),
        Err(error) if !options.rebuild && !error.is_corrupt() => return Err(error.into()),
        other => {
            let readable = match other {
                Ok(catalog) => {
                    drop(catalog);
                    true
                }
                Err(error) => {
                    result.index_problem = Some(error.to_string());
                    matches!(error, IndexError::Database { .. })
                }
            };
            if exists {
                result.old_index = Some(Catalog::put_aside(&storage.data_dir)?);
            }
            let mut catalog = Catalog::open(&storage.data_dir)?;
            if let Some(old) = result.old_index.as_ref().filter(|_| readable)
                && let Err(error) = catalog.take_over(old)
            {
                result.index_problem.get_or_insert(error.to_string());
            }
            catalog
        }
    };
    if change {
        for place in places.iter().filter(|p| p.path().is_dir()) {
            place.claim()?;
        }
    }
    let stop = AtomicBool::new(false);
    let repair = Repair { places: &places, change, trust_folders: change, index: None, stop: &stop };
    repair.everything(&mut catalog, &mut result.report)?;
    if let Some(old) = &result.old_index {
        // Known only now that the segments are there again. What could not be read has been told.
        let _ = catalog.take_over_protection(old);
    }
    Ok(result)
}
