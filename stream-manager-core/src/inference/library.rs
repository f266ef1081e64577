//! Finding ONNX Runtime's shared library, and loading it once for the process.

use super::InferenceError;
use ort::environment::Environment;
use ort::logging::LogLevel;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Puts ONNX Runtime where it is found.
pub const INSTALL_COMMAND: &str =
    "python3 -m pip install --no-deps --target ~/.local/share/stream-manager/onnxruntime onnxruntime";

/// Where Debian puts libraries.
const MULTIARCH: &str =
    if cfg!(target_arch = "aarch64") { "/usr/lib/aarch64-linux-gnu" } else { "/usr/lib/x86_64-linux-gnu" };

/// ONNX Runtime as it was loaded.
#[derive(Clone)]
pub(super) struct Library {
    pub(super) environment: Environment,
    #[cfg_attr(not(feature = "tensorrt"), expect(dead_code))]
    pub(super) path: PathBuf,
    /// Its version, as its file or its build says.
    pub(super) version: String,
}

/// Loads the library, or gives the one that is loaded. A first attempt that failed can be made again, as after an
/// installation. Blocks.
pub(super) fn load(configured: Option<&Path>) -> Result<Library, InferenceError> {
    static LOADED: Mutex<Option<Library>> = Mutex::new(None);
    let mut loaded = LOADED.lock();
    if let Some(library) = &*loaded {
        return Ok(library.clone());
    }
    let path = find(configured)?;
    let failed =
        |e: &dyn std::fmt::Display| InferenceError::Library { problem: format!("{}: {e}", path.display()) };
    let environment = ort::init_from(&path)
        .map_err(|e| failed(&e))?
        .with_name("stream-manager")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|e| failed(&e))?;
    environment.set_log_level(LogLevel::Warning);
    let version = version(&path, ort::info());
    tracing::info!(path = %path.display(), version, "ONNX Runtime is loaded");
    let library = Library { environment, path, version };
    *loaded = Some(library.clone());
    Ok(library)
}

/// What ONNX Runtime says goes to the log of whoever uses the library.
fn log(level: LogLevel, category: &str, _: &str, place: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => {
            tracing::warn!(target: "onnxruntime", category, place, "{message}")
        }
        _ => tracing::debug!(target: "onnxruntime", category, place, "{message}"),
    }
}

fn version(path: &Path, build: &str) -> String {
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = resolved.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match name.split_once(".so.") {
        Some((_, version)) if version.contains('.') => version.to_owned(),
        _ => build.chars().take(120).collect(),
    }
}

/// The file to load.
fn find(configured: Option<&Path>) -> Result<PathBuf, InferenceError> {
    let named = configured.map(|p| (p.to_owned(), "inference.onnxruntime")).or_else(|| {
        let variable = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty());
        variable.map(|v| (PathBuf::from(v), "ORT_DYLIB_PATH"))
    });
    if let Some((path, says)) = named {
        let file = if path.is_dir() { in_folder(&path) } else { path.is_file().then(|| path.clone()) };
        let problem = || format!("there is no library at {}, where {says} says that it is", path.display());
        // An absolute path: a bare name would be looked for by the linker.
        return file
            .and_then(|file| std::path::absolute(file).ok())
            .ok_or_else(|| InferenceError::Library { problem: problem() });
    }
    let places = places();
    places.iter().find_map(|place| in_folder(place)).ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        InferenceError::Library { problem: format!("its library was not found in {}", places.join(", ")) }
    })
}

/// Where it usually is, the user's own first.
fn places() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let data = std::env::var_os("XDG_DATA_HOME")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
        .or_else(|| home.map(|h| h.join(".local/share")));
    let mut places: Vec<PathBuf> = data.into_iter().map(|d| d.join("stream-manager/onnxruntime")).collect();
    let beside = std::env::current_exe().ok().and_then(|e| e.parent().map(Path::to_owned));
    places.extend(beside);
    places.extend(
        [
            "/var/lib/stream-manager/onnxruntime",
            "/opt/onnxruntime/lib",
            "/usr/local/lib",
            MULTIARCH,
            "/usr/lib",
        ]
        .map(PathBuf::from),
    );
    places
}

/// The library in a folder: there, or where a Python package has it. Of several the newest.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    ["", "lib", "capi", "onnxruntime/capi"].iter().find_map(|sub| {
        let entries = std::fs::read_dir(folder.join(sub)).ok()?;
        let names = entries.filter_map(|e| Some(e.ok()?.path()));
        let fits = |path: &PathBuf| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            name == "libonnxruntime.so"
                || name.starts_with("libonnxruntime.so.")
                || name == "libonnxruntime.dylib"
        };
        names.filter(fits).max_by_key(|path| numbers(path))
    })
}

fn numbers(path: &Path) -> Vec<u32> {
    let name = path.to_string_lossy();
    name.rsplit(".so").next().unwrap_or_default().split('.').filter_map(|n| n.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_in_a_folder_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(in_folder(folder.path()), None);
        let capi = folder.path().join("onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        for name in
            ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so"]
        {
            std::fs::write(capi.join(name), "").unwrap();
        }
        let found = in_folder(folder.path()).unwrap();
        assert_eq!(found, capi.join("libonnxruntime.so.1.32.0"));
        assert_eq!(version(&found, "x"), "1.32.0");
    }

    #[test]
    fn a_library_that_is_not_there_is_told_with_the_way_to_get_it() {
        let error = find(Some(Path::new("/nowhere/lib.so"))).unwrap_err().to_string();
        assert!(error.contains("no library at /nowhere/lib.so, where inference.onnxruntime says"), "{error}");
        assert!(error.contains("pip install"), "{error}");
    }
}
