//! What clients say of their sessions once these have begun: further candidates, ICE anew, goodbye.

use super::route::Owner;
use super::server::{STOP_TIMEOUT, WebRtcServer};
use super::worker::Command;
use str0m::{Candidate, IceCreds};

/// Why ICE cannot begin anew in a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestartError {
    /// There is none.
    #[error("there is no such session")]
    NoSession,
    /// The client does not say who it is.
    #[error(
        "the fragment has no name and password; expected a=ice-ufrag and a=ice-pwd (RFC 8839 section 5.4)"
    )]
    NoCredentials,
}

impl WebRtcServer {
    fn find(&self, stream: &str, token: &str) -> Option<Owner> {
        let tokens = self.shared.tokens.lock();
        tokens.get(token).filter(|known| *known.stream == *stream).map(|known| known.owner)
    }

    async fn tell(&self, owner: Owner, command: Command) {
        if let Some(worker) = self.shared.workers.get(owner.worker) {
            // It fails only when everything ends.
            let _ = worker.send(command).await;
        }
    }

    /// Candidates that a client has found: `a=candidate` lines of a fragment (RFC 8840). `false` if there is no such
    /// session. What cannot be used, such as names of the local network, is passed over; the client's checks arrive
    /// anyway.
    pub async fn trickle(&self, stream: &str, token: &str, fragment: &str) -> bool {
        let Some(owner) = self.find(stream, token) else { return false };
        let parse = |line: &str| {
            let line = line.trim().strip_prefix("a=").filter(|l| l.starts_with("candidate:"))?.to_owned();
            // The parser is somebody else's, and this comes from anybody.
            std::panic::catch_unwind(|| Candidate::from_sdp_string(&line).ok()).ok().flatten()
        };
        let found: Vec<Candidate> =
            fragment.lines().filter_map(parse).take(super::peer::MAX_CANDIDATES).collect();
        if !found.is_empty() {
            self.tell(owner, Command::Trickle(owner.session, found)).await;
        }
        true
    }

    /// Begins ICE anew (RFC 9725 section 4.3.3), with the name and the password in a fragment; candidates in it are taken, too.
    /// Gives a fragment with ours.
    ///
    /// # Errors
    /// If there is no such session, or no name and password.
    pub async fn restart_ice(
        &self,
        stream: &str,
        token: &str,
        fragment: &str,
    ) -> Result<String, RestartError> {
        let owner = self.find(stream, token).ok_or(RestartError::NoSession)?;
        let value = |name: &str| {
            let mut lines = fragment.lines().map(str::trim);
            lines.find_map(|line| line.strip_prefix(name)).map(str::to_owned)
        };
        let (ufrag, pass) =
            value("a=ice-ufrag:").zip(value("a=ice-pwd:")).ok_or(RestartError::NoCredentials)?;
        // RFC 8839 section 5.4.
        let is_right = |text: &str, least: usize| {
            (least..=256).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'))
        };
        if !is_right(&ufrag, 4) || !is_right(&pass, 22) {
            return Err(RestartError::NoCredentials);
        }
        let (answer, ours) = tokio::sync::oneshot::channel();
        self.tell(owner, Command::Restart(owner.session, IceCreds { ufrag, pass }, answer)).await;
        let ours = tokio::time::timeout(STOP_TIMEOUT, ours).await;
        let ours = ours.ok().and_then(Result::ok).ok_or(RestartError::NoSession)?;
        if let Some(known) = self.shared.tokens.lock().get_mut(token) {
            known.restarts += 1;
        }
        self.trickle(stream, token, fragment).await;
        let candidates: String = self
            .shared
            .identity
            .local()
            .iter()
            .map(|candidate| format!("a={}\r\n", candidate.to_sdp_string()))
            .collect();
        Ok(format!(
            "a=ice-lite\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n{candidates}a=end-of-candidates\r\n",
            ours.ufrag, ours.pass
        ))
    }

    /// How often ICE has begun anew in a session.
    pub fn restarts(&self, stream: &str, token: &str) -> Option<u32> {
        let tokens = self.shared.tokens.lock();
        tokens.get(token).filter(|known| *known.stream == *stream).map(|known| known.restarts)
    }

    /// Ends a session. `false` if there is none.
    pub async fn close(&self, stream: &str, token: &str) -> bool {
        let Some(owner) = self.find(stream, token) else { return false };
        self.shared.tokens.lock().remove(token);
        self.tell(owner, Command::Close(owner.session, "the client has left".into())).await;
        true
    }

    /// Whether there is such a session.
    pub fn has(&self, stream: &str, token: &str) -> bool {
        self.find(stream, token).is_some()
    }
}
