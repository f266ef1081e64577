//! Publishing events to an MQTT broker.
//!
//! An event goes to `<topic>/<stream>/<kind>`, one of no stream to `<topic>/<kind>`, as JSON. `<topic>/status` is
//! `online` or `offline`, retained, and set by the broker when the connection is lost. With a QoS of at least 1 an event
//! counts as published when the broker has confirmed it; after a broken connection those that were not are sent again.

use super::Context;
use crate::backoff::Backoff;
use crate::config::MqttConfig;
use crate::manager::EventListener;
use crate::storage::journal::JournalEntry;
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, LastWill, MqttOptions, Outgoing, QoS};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Events that are sent without being confirmed.
const IN_FLIGHT: usize = 20;
/// The largest packet.
const MAX_PACKET_BYTES: usize = 256 << 10;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Mqtt {
    config: MqttConfig,
}

impl Mqtt {
    pub(super) fn new(config: MqttConfig) -> Self {
        Self { config }
    }

    fn qos(&self) -> QoS {
        match self.config.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    fn topic(&self, entry: &JournalEntry) -> String {
        match &entry.stream {
            Some(stream) => format!("{}/{stream}/{}", self.config.topic, entry.kind),
            None => format!("{}/{}", self.config.topic, entry.kind),
        }
    }

    fn status_topic(&self) -> String {
        format!("{}/status", self.config.topic)
    }

    fn connect(&self, client_id: &str, with_status: bool) -> (AsyncClient, EventLoop) {
        let url = url::Url::parse(self.config.url.reveal()).ok();
        let host = url.as_ref().and_then(url::Url::host_str).unwrap_or_default().to_owned();
        let port = url.and_then(|u| u.port()).unwrap_or(1883);
        let mut options = MqttOptions::new(client_id, host.trim_matches(['[', ']']), port);
        options.set_keep_alive(KEEP_ALIVE).set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        if let Some(user) = &self.config.username {
            let password = self.config.password.as_ref().map(|p| p.reveal().to_owned()).unwrap_or_default();
            options.set_credentials(user, password);
        }
        if with_status {
            options.set_last_will(LastWill::new(self.status_topic(), "offline", QoS::AtLeastOnce, true));
        }
        AsyncClient::new(options, IN_FLIGHT * 2)
    }

    pub(super) async fn run(self: Arc<Self>, context: Context) {
        let mut backoff = super::backoff();
        let mut listener = context.listen(&self.config.streams, &self.config.kinds).await;
        // Sent, not confirmed; sent again over the next connection.
        let mut waiting = VecDeque::new();
        loop {
            match self.session(&context, &mut listener, &mut waiting, &mut backoff).await {
                Ok(()) => return,
                Err(problem) => context.failed(None, &problem, false),
            }
            if context.cancel.run_until_cancelled(tokio::time::sleep(backoff.next())).await.is_none() {
                return;
            }
        }
    }

    /// One connection, until it breaks or the hook ends.
    async fn session(
        &self,
        context: &Context,
        listener: &mut EventListener,
        waiting: &mut VecDeque<JournalEntry>,
        backoff: &mut Backoff,
    ) -> Result<(), String> {
        let (client, mut connection) = self.connect(&self.config.client_id, true);
        let mut connected = false;
        // How many of those that wait have been sent over this connection, and how many packets of our own come first.
        let (mut sent, mut own) = (0, 0_usize);
        loop {
            while connected && sent < waiting.len() {
                self.publish(&client, &waiting[sent])?;
                sent += 1;
            }
            tokio::select! {
                event = connection.poll() => match event.map_err(|e| format!("{}: {e}", self.target()))? {
                    Event::Incoming(Incoming::ConnAck(_)) => {
                        connected = true;
                        backoff.reset();
                        client
                            .try_publish(self.status_topic(), QoS::AtLeastOnce, true, "online")
                            .map_err(|e| e.to_string())?;
                        own += 1;
                    }
                    Event::Incoming(Incoming::PubAck(_)) if own > 0 => own -= 1,
                    Event::Incoming(Incoming::PubAck(_) | Incoming::PubComp(_)) => {
                        Self::confirmed(context, waiting, &mut sent).await;
                    }
                    // Without confirmations, sent is all that can be known. The packet of our own asks for one.
                    Event::Outgoing(Outgoing::Publish(0)) if self.config.qos == 0 => {
                        Self::confirmed(context, waiting, &mut sent).await;
                    }
                    _ => {}
                },
                entry = context.next(listener), if connected && waiting.len() < IN_FLIGHT => match entry {
                    Some(entry) => waiting.push_back(entry),
                    None => {
                        self.leave(&client, &mut connection).await;
                        return Ok(());
                    }
                },
                () = context.cancel.cancelled() => {
                    self.leave(&client, &mut connection).await;
                    return Ok(());
                }
            }
        }
    }

    fn target(&self) -> String {
        self.config.url.shown()
    }

    fn publish(&self, client: &AsyncClient, entry: &JournalEntry) -> Result<(), String> {
        client
            .try_publish(self.topic(entry), self.qos(), false, entry.json.as_bytes())
            .map_err(|e| format!("{}: {e}", self.target()))
    }

    async fn confirmed(context: &Context, waiting: &mut VecDeque<JournalEntry>, sent: &mut usize) {
        if let Some(entry) = waiting.pop_front() {
            *sent = sent.saturating_sub(1);
            context.done(&entry);
            context.keep_place(entry.id).await;
        }
    }

    /// Says that nobody is there any more, and goes.
    async fn leave(&self, client: &AsyncClient, connection: &mut EventLoop) {
        let _ = client.try_publish(self.status_topic(), QoS::AtMostOnce, true, "offline");
        let _ = client.try_disconnect();
        let gone = async {
            while let Ok(event) = connection.poll().await {
                if matches!(event, Event::Outgoing(Outgoing::Disconnect)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), gone).await;
    }

    /// Publishes one event over a connection of its own.
    pub(super) async fn test(&self, entry: &JournalEntry) -> Result<(), String> {
        let id = format!("{}-test-{:08x}", self.config.client_id, fastrand::u32(..));
        let (client, mut connection) = self.connect(&id, false);
        let publish = async {
            loop {
                match connection.poll().await.map_err(|e| format!("{}: {e}", self.target()))? {
                    Event::Incoming(Incoming::ConnAck(_)) => {
                        let (topic, text) = (self.topic(entry), entry.json.as_bytes());
                        client
                            .try_publish(topic, QoS::AtLeastOnce, false, text)
                            .map_err(|e| e.to_string())?;
                    }
                    Event::Incoming(Incoming::PubAck(_)) => {
                        let _ = client.try_disconnect();
                        let _ = connection.poll().await;
                        return Ok(());
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, publish)
            .await
            .unwrap_or_else(|_| Err(format!("{}: no answer within {TEST_TIMEOUT:?}", self.target())))
    }
}
