//! A running server's recordings, told to start, stop, pause and so on.

use crate::args::{RecordingCommand, ServerArgs};
use crate::{exit, output};
use stream_manager_core::client::{Client, ClientError};
use stream_manager_core::recording::{RecordingAction, RecordingTrigger};

pub(crate) async fn run(command: RecordingCommand) -> u8 {
    let (action, of) = match command {
        RecordingCommand::Start(of) => (RecordingAction::Start, of),
        RecordingCommand::Stop(of) => (RecordingAction::Stop, of),
        RecordingCommand::Pause(of) => (RecordingAction::Pause, of),
        RecordingCommand::Resume(of) => (RecordingAction::Resume, of),
        RecordingCommand::Split(of) => (RecordingAction::Split, of),
        RecordingCommand::Auto(of) => (RecordingAction::Auto, of),
        RecordingCommand::Trigger { of, kind, text, duration } => {
            let duration = duration.map(|duration| duration.0);
            let trigger = RecordingTrigger { kind, text, duration, ..RecordingTrigger::default() };
            return tell(&of, Client::new(&of.server), async |client: Client| {
                client.trigger_recording(&of.stream, &trigger).await
            })
            .await;
        }
    };
    tell(&of, Client::new(&of.server), async |client: Client| {
        client.control_recording(&of.stream, action).await
    })
    .await
}

async fn tell(
    of: &ServerArgs,
    client: Result<Client, ClientError>,
    ask: impl AsyncFnOnce(Client) -> Result<serde_json::Value, ClientError>,
) -> u8 {
    let answer = match client {
        Ok(client) => ask(client).await,
        Err(error) => {
            output::error(&error.to_string());
            return exit::USAGE;
        }
    };
    match answer {
        Ok(recording) if of.json => {
            output::line(&serde_json::to_string_pretty(&recording).unwrap_or_default())
        }
        Ok(recording) => {
            output::line(&format!("{}: {}", of.stream, recording["state"].as_str().unwrap_or_default()));
        }
        Err(error) => {
            output::error(&error.to_string());
            return exit::FAILURE;
        }
    }
    0
}
