//! A fleet by the library: streams are made, changed many at once and remembered, and their events heard from the first.
//!
//! `cargo run -p stream-manager-examples --bin fleet`; run it twice, and the second time finds what the first has made.

use stream_manager_core::config::StreamConfig;
use stream_manager_core::manager::{
    ChangeOptions, DeleteRecordings, EventFilter, Heard, Operation, StreamFilter, StreamManager, StreamOrder,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager = StreamManager::builder().data_dir("fleet").build().await?;
    let known = manager.infos(&StreamFilter::default(), StreamOrder::Id, false);
    println!("{} streams are remembered", known.len());

    let mut events = manager.listen(EventFilter::new().kinds(&["stream_created", "stream_deleted"])?, None);
    let mut operations: Vec<Operation> = (0..3)
        .map(|n| Operation::Put(StreamConfig::new(format!("camera-{n}"), "test://smpte?audio=false")))
        .collect();
    operations.push(Operation::Enable { id: "camera-0".into(), enabled: false });
    if !known.is_empty() {
        operations.push(Operation::Delete { id: "camera-2".into(), recordings: DeleteRecordings::Keep });
    }
    // All or none, in one transaction.
    let options = ChangeOptions { atomic: true, ..ChangeOptions::default() };
    for outcome in manager.change_all(operations, options).await? {
        let outcome = outcome?;
        println!("{}: {:?}", outcome.id, outcome.done);
    }
    let expected = if known.is_empty() { 3 } else { 1 };
    for _ in 0..expected {
        if let Some(Heard::Event(event)) = events.next().await {
            println!("event {}: {}", event.id, event.json);
        }
    }
    manager.shutdown().await;
    Ok(())
}
