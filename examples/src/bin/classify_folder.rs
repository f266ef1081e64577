//! Says what each image of a folder shows: `cargo run -p stream-manager-examples --bin classify_folder -- FOLDER MODEL [LABELS]`
#![allow(clippy::print_stdout)]

use stream_manager_core::inference::{ModelKind, ModelSpec, Models, ModelsOptions, Picture};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(model)) = (arguments.next(), arguments.next()) else {
        return Err("usage: classify_folder FOLDER MODEL [LABELS]".into());
    };
    let mut spec = ModelSpec::new(model).named("model").threshold(0.0);
    spec.kind = Some(ModelKind::Classifier);
    if let Some(labels) = arguments.next() {
        spec = spec.labels_file(labels);
    }
    let models = Models::new(ModelsOptions::default(), vec![spec]);
    let model = models.get("model")?;
    let mut paths: Vec<_> = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What is no image is passed over.
        let Ok(picture) = Picture::from_image(&std::fs::read(&path).unwrap_or_default()) else { continue };
        let seen = model.infer(picture).await?;
        if let Some(best) = seen.detections.first() {
            println!("{name}: {} {:.3}", best.label, best.score);
        }
    }
    models.close().await;
    Ok(())
}
