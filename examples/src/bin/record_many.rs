//! Records every camera of a list, each into a folder of its own, and tells what happens to them.
//!
//! `cargo run -p stream-manager-examples --bin record_many -- cameras.txt 60` — the file has a name and an address
//! on each line. Without arguments: three test pictures for five seconds.

use std::time::Duration;
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::recording::Recording;
use stream_manager_core::source;

const DEMO: &str = "one test://smpte\ntwo test://ball?fps=10\nthree test://smpte?audio=false\n";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let list = arguments.next().map_or(Ok(DEMO.to_owned()), std::fs::read_to_string)?;
    let seconds = arguments.next().map_or(Ok(5), |s| s.parse())?;

    let mut builder = StreamManager::builder().data_dir("record_many");
    for (name, address) in list.lines().filter_map(|line| line.split_once(' ')) {
        let recording = Recording::fmp4().segment_duration(Duration::from_secs(60));
        builder =
            builder.stream(Stream::builder(name).boxed_source(source::from_url(address)?).record(recording));
    }
    let manager = builder.build().await?;
    let mut events = manager.events().subscribe();
    let end = tokio::time::sleep(Duration::from_secs(seconds));
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            event = events.recv() => println!("{:?}", event?),
        }
    }
    manager.shutdown().await;
    for stream in manager.streams() {
        let recording = stream.status().recording;
        println!("{}: {} frames in {} files", stream.id(), recording.frames, recording.segments);
    }
    Ok(())
}
