//! The thread that writes the index.

use super::catalog::{Catalog, Change};
use super::{Request, Shared};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Changes in one transaction.
const BATCH: usize = 256;
/// Changes that are kept while the database cannot be written to.
const MAX_KEPT: usize = 16_384;
/// How long to wait before the database is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

pub(super) fn run(mut catalog: Catalog, requests: &Receiver<Request>, shared: &Shared) {
    let mut kept: VecDeque<Change> = VecDeque::new();
    loop {
        let request = if kept.is_empty() {
            requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            requests.recv_timeout(RETRY_AFTER)
        };
        let mut next = match request {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        // What has come in meanwhile goes into the same transaction.
        while let Some(Request::Change(change)) = next {
            kept.push_back(change);
            next = if kept.len() < BATCH { requests.try_recv().ok() } else { None };
        }
        commit(&mut catalog, &mut kept, shared);
        match next {
            Some(Request::Ask(question)) => question(&mut catalog),
            Some(Request::Renew(answer)) => {
                let result = Catalog::put_aside(&shared.data_dir).and_then(|aside| {
                    catalog = Catalog::open(&shared.data_dir)?;
                    Ok(aside)
                });
                // Whoever asked may have gone away.
                let _ = answer.send(result);
            }
            _ => {}
        }
    }
    commit(&mut catalog, &mut kept, shared);
}

/// Commits what is kept. If the database refuses it is kept for another time.
fn commit(catalog: &mut Catalog, kept: &mut VecDeque<Change>, shared: &Shared) {
    if kept.is_empty() {
        return;
    }
    match catalog.apply(kept.iter()) {
        Ok(()) => {
            for change in kept.drain(..) {
                settled(&change, shared);
            }
            if shared.failing.lock().take().is_some() {
                tracing::info!("the index of recordings is written again");
            }
        }
        Err(error) => {
            let problem = error.to_string();
            let first = shared.failing.lock().replace(problem).is_none();
            if first {
                tracing::error!(%error, "the index of recordings cannot be written; its changes are kept for now");
            }
            if error.is_corrupt() || kept.len() > MAX_KEPT {
                shared.missed.store(true, Ordering::Relaxed);
                for change in kept.drain(..) {
                    settled(&change, shared);
                }
            }
        }
    }
}

/// The segment is the database's now, or nobody's.
fn settled(change: &Change, shared: &Shared) {
    match change {
        Change::Finish { segment, .. } => {
            shared.live.lock().remove(&segment.id);
            shared.open_files.lock().remove(&segment.folder.join(&segment.name));
        }
        Change::Cancel(id) => {
            shared.live.lock().remove(id);
        }
        _ => {}
    }
}
