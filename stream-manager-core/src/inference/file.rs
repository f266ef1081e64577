//! A model's file before anything is made of it.

use super::{InferenceError, ModelSpec};
use sha2::{Digest, Sha256};
use std::io::Read;

/// Whether the file can be a model at all, and its SHA-256. Backends of the program may do without a file. Blocks.
pub(super) fn fingerprint(spec: &ModelSpec, optional: bool) -> Result<Option<String>, InferenceError> {
    let wrong = |problem: String| InferenceError::File { path: spec.path.clone(), problem };
    let metadata = match std::fs::metadata(&spec.path) {
        Ok(metadata) => metadata,
        Err(_) if optional => return Ok(None),
        Err(error) => return Err(wrong(format!("{error}; expected an ONNX file"))),
    };
    if !metadata.is_file() {
        return Err(wrong("it is no file; expected an ONNX file".into()));
    }
    let (size, most) = (metadata.len(), spec.max_size.0);
    if size == 0 {
        return Err(wrong("it is empty; expected an ONNX file".into()));
    }
    if size > most {
        return Err(wrong(format!(
            "it has {size} bytes; expected at most {most} (max_size). An ONNX file holds 2 GiB at most; larger models keep \
             their weights in files beside it"
        )));
    }
    let mut file = std::fs::File::open(&spec.path).map_err(|e| wrong(e.to_string()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) => return Err(wrong(error.to_string())),
        }
    }
    Ok(Some(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}
