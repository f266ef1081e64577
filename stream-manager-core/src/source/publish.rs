//! Streams whose source comes to us: somebody publishes them.
//!
//! A [`PublishSlot`] is the place for one publisher. Protocols ask it for the stream with
//! [`publish`](PublishSlot::publish) and get a [`Publication`]: a writer for the hub, for as long as they keep it and
//! nobody takes the stream over. The [`PublishSource`] is the same place as the stream's supervisor sees it: it waits
//! until there is a publisher, hands it the hub, and is at its end when the publisher is.

use super::{Source, SourceEnd, SourceError};
use crate::hub::HubWriter;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// How long a publisher waits for the stream to take it.
const TAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why somebody cannot publish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Nobody may publish this stream: it has a source of its own.
    #[error(
        "the stream \"{0}\" has a source of its own; only streams with source_url = \"publisher\" can be published"
    )]
    HasSource(String),
    /// There is no such stream and no pattern for it.
    #[error("there is no stream \"{0}\", and no pattern that it would fit")]
    NotFound(String),
    /// The id is none.
    #[error("{0}")]
    InvalidId(String),
    /// Somebody else publishes it.
    #[error("it is being published by {by} already, and override_publisher is false")]
    Busy {
        /// Who.
        by: String,
    },
    /// The stream is ending, or there are too many.
    #[error("the stream cannot be published now: {0}")]
    Unavailable(String),
}

/// The place for one publisher. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct PublishSlot {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Whether a second publisher takes over from the first.
    replace: bool,
    state: Mutex<State>,
    offered: Notify,
}

#[derive(Debug, Default)]
struct State {
    offer: Option<Offer>,
    current: Option<Current>,
    next: u64,
    closed: bool,
}

#[derive(Debug)]
struct Offer {
    give: oneshot::Sender<HubWriter>,
    left: CancellationToken,
    ended: CancellationToken,
}

#[derive(Debug)]
struct Current {
    number: u64,
    by: String,
    ended: CancellationToken,
}

/// A publisher's hold on a stream. Dropping it gives the stream free.
#[derive(Debug)]
pub struct Publication {
    _hold: Hold,
    writer: HubWriter,
    /// Cancelled when it is taken away.
    ended: CancellationToken,
}

impl PublishSlot {
    /// A place without a publisher. With `replace`, a second publisher takes over from the first; else it is
    /// refused.
    pub fn new(replace: bool) -> Self {
        let shared = Shared { replace, state: Mutex::default(), offered: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Whether somebody who comes now would be let in.
    ///
    /// # Errors
    /// If somebody else publishes already and is not to be replaced, or the stream has ended.
    pub fn check(&self) -> Result<(), PublishError> {
        self.shared.check(&self.shared.state.lock())
    }

    /// Whether somebody publishes.
    pub fn is_taken(&self) -> bool {
        self.shared.state.lock().current.is_some()
    }

    /// Takes the stream; `by` is who, for people. Waits until the stream is ready for it, five seconds at most.
    ///
    /// # Errors
    /// As [`check`](Self::check), and if the stream does not take the publisher in time.
    pub async fn publish(&self, by: &str) -> Result<Publication, PublishError> {
        let (give, given) = oneshot::channel();
        let (left, ended) = (CancellationToken::new(), CancellationToken::new());
        let number = {
            let mut state = self.shared.state.lock();
            self.shared.check(&state)?;
            if let Some(current) = state.current.take() {
                current.ended.cancel();
            }
            state.next += 1;
            let number = state.next;
            state.offer = Some(Offer { give, left: left.clone(), ended: ended.clone() });
            state.current = Some(Current { number, by: by.to_owned(), ended: ended.clone() });
            number
        };
        self.shared.offered.notify_one();
        // From here on a failure gives the place free again.
        let hold = Hold { shared: self.shared.clone(), number, left };
        let writer = match tokio::time::timeout(TAKE_TIMEOUT, given).await {
            Ok(Ok(writer)) => writer,
            Ok(Err(_)) => {
                return Err(PublishError::Unavailable(
                    "another publisher came, or the stream has ended".into(),
                ));
            }
            Err(_) => return Err(PublishError::Unavailable("it did not get ready in time".into())),
        };
        Ok(Publication { _hold: hold, writer, ended })
    }
}

impl Shared {
    fn check(&self, state: &State) -> Result<(), PublishError> {
        if state.closed {
            return Err(PublishError::Unavailable("it has ended".into()));
        }
        match &state.current {
            Some(current) if !self.replace => Err(PublishError::Busy { by: current.by.clone() }),
            _ => Ok(()),
        }
    }

    fn release(&self, number: u64) {
        let mut state = self.state.lock();
        if state.current.as_ref().is_some_and(|c| c.number == number) {
            state.current = None;
        }
    }
}

/// Gives the place free when it is dropped.
#[derive(Debug)]
struct Hold {
    shared: Arc<Shared>,
    number: u64,
    /// Cancelled by the publisher's end.
    left: CancellationToken,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.left.cancel();
        self.shared.release(self.number);
    }
}

impl Publication {
    /// Where frames go.
    pub fn writer(&self) -> &HubWriter {
        &self.writer
    }

    /// Whether the stream has been taken away.
    pub fn is_over(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Returns when the stream has been taken away: by another publisher, or because it ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// The source of a stream that somebody publishes.
///
/// ```
/// # use stream_manager_core::manager::Stream;
/// # use stream_manager_core::source::PublishSource;
/// let source = PublishSource::new(true);
/// let slot = source.slot(); // for a protocol that takes publishers
/// let stream = Stream::builder("door").source(source);
/// ```
#[derive(Debug)]
pub struct PublishSource {
    slot: PublishSlot,
    linger: Option<Duration>,
}

impl PublishSource {
    /// Waits for publishers, for as long as the stream exists. With `replace`, a second one takes over.
    pub fn new(replace: bool) -> Self {
        Self { slot: PublishSlot::new(replace), linger: None }
    }

    /// Ends the stream when there has been no publisher for this long.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = Some(linger);
        self
    }

    /// The place for the publisher.
    pub fn slot(&self) -> PublishSlot {
        self.slot.clone()
    }
}

impl Drop for PublishSource {
    fn drop(&mut self) {
        let mut state = self.slot.shared.state.lock();
        state.closed = true;
        state.offer = None;
        if let Some(current) = state.current.take() {
            current.ended.cancel();
        }
    }
}

#[async_trait::async_trait]
impl Source for PublishSource {
    async fn ready(&mut self) -> Option<SourceEnd> {
        let shared = self.slot.shared.clone();
        let offered = async {
            loop {
                let notified = shared.offered.notified();
                if shared.state.lock().offer.is_some() {
                    return;
                }
                notified.await;
            }
        };
        match self.linger {
            None => offered.await,
            Some(linger) => {
                if tokio::time::timeout(linger, offered).await.is_err() {
                    let mut state = shared.state.lock();
                    // Nobody may come in between.
                    if state.offer.is_none() {
                        state.closed = true;
                        return Some(SourceEnd::Finished);
                    }
                }
            }
        }
        None
    }

    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        let Some(offer) = self.slot.shared.state.lock().offer.take() else { return Ok(SourceEnd::Waiting) };
        if offer.give.send(hub.clone()).is_err() {
            return Ok(SourceEnd::Waiting);
        }
        tokio::select! {
            () = cancel.cancelled() => {
                offer.ended.cancel();
                Ok(SourceEnd::Cancelled)
            }
            () = offer.left.cancelled() => Ok(SourceEnd::Waiting),
            () = offer.ended.cancelled() => Ok(SourceEnd::Waiting),
        }
    }

    fn address(&self) -> String {
        super::address::PUBLISHER.into()
    }

    fn publish_slot(&self) -> Option<PublishSlot> {
        Some(self.slot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;

    /// As the supervisor does it, without its waits.
    fn serve(mut source: PublishSource, hub: &Hub) -> tokio::task::JoinHandle<()> {
        let writer = hub.writer();
        tokio::spawn(async move {
            while source.ready().await.is_none() {
                writer.begin_session();
                let end = source.run(&writer, CancellationToken::new()).await;
                assert_eq!(end.unwrap(), SourceEnd::Waiting);
            }
        })
    }

    #[tokio::test]
    async fn one_after_the_other_and_one_instead_of_the_other() {
        let hub = Hub::default();
        let source = PublishSource::new(true);
        let slot = source.slot();
        let task = serve(source, &hub);
        let first = slot.publish("first").await.unwrap();
        assert!(slot.is_taken());
        let second = slot.publish("second").await.unwrap();
        first.ended().await;
        drop(first);
        assert!(slot.is_taken(), "the first one's end is not the second one's");
        drop(second);
        assert!(!slot.is_taken());
        drop(slot.publish("third").await.unwrap());
        assert_eq!(hub.stats().sessions, 3);
        task.abort();
        let _ = task.await;
        assert!(matches!(slot.publish("late").await, Err(PublishError::Unavailable(_))));
    }

    #[tokio::test]
    async fn a_second_one_is_refused_if_so_set() {
        let hub = Hub::default();
        let source = PublishSource::new(false);
        let slot = source.slot();
        let task = serve(source, &hub);
        let first = slot.publish("first").await.unwrap();
        assert_eq!(slot.check(), Err(PublishError::Busy { by: "first".into() }));
        assert_eq!(slot.publish("second").await.unwrap_err(), PublishError::Busy { by: "first".into() });
        drop(first);
        assert!(slot.publish("second").await.is_ok());
        task.abort();
    }

    #[tokio::test]
    async fn without_a_publisher_a_lingering_stream_ends() {
        let mut source = PublishSource::new(true).linger(Duration::from_millis(30));
        let slot = source.slot();
        assert_eq!(source.ready().await, Some(SourceEnd::Finished));
        assert!(slot.check().is_err());
    }
}
