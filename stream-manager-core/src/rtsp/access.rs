//! Who the client is, and what it may do: asked once per connection, action and stream.

use super::address::Target;
use super::message::Answer;
use super::server::Shared;
use crate::auth::digest::{AuthMethod, Challenges, HeaderError};
use crate::auth::{Access, Action, Credentials, Denied, Grant, Subject};
use rtsp_types::{Request, headers};
use std::net::SocketAddr;
use std::time::Duration;

/// A wrong password is answered this much later, so that trying many takes long.
const WRONG_CREDENTIALS_DELAY: Duration = Duration::from_secs(1);

/// A connection's challenges, and what has been allowed on it.
pub(super) struct Gate {
    protocol: &'static str,
    peer: SocketAddr,
    challenges: Challenges,
    granted: Option<(Action, String, Grant)>,
}

impl Gate {
    pub(super) fn new(shared: &Shared, protocol: &'static str, peer: SocketAddr) -> Self {
        let mut methods = shared.options.auth_methods.clone();
        if !shared.authorizer.takes_digest() {
            // What cannot be proved is not asked for; the password in the clear is what remains.
            methods = vec![AuthMethod::Basic];
        }
        let challenges = Challenges::new(&methods, shared.options.nonce_lifetime);
        Self { protocol, peer, challenges, granted: None }
    }

    /// Who has been let in, if that is somebody in particular.
    pub(super) fn user(&self) -> Option<String> {
        self.granted.as_ref().and_then(|(_, _, grant)| grant.user.clone())
    }

    /// Who asks, and whether they may.
    pub(super) async fn authorize(
        &mut self,
        shared: &Shared,
        action: Action,
        target: &Target,
        request: &Request<Vec<u8>>,
    ) -> Result<Grant, Answer> {
        if let Some((granted, stream, grant)) = &self.granted
            && *granted == action
            && *stream == target.stream
        {
            return Ok(grant.clone());
        }
        let method: &str = request.method().into();
        let credentials = match request.header(&headers::AUTHORIZATION) {
            None => Credentials::None,
            Some(header) => match self.challenges.read(header.as_str(), method) {
                Ok(credentials) => credentials,
                Err(HeaderError::Stale) => return Err(self.challenge(true)),
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "credentials cannot be used");
                    return Err(self.challenge(false));
                }
            },
        };
        let access = Access {
            action,
            subject: Subject::Stream(&target.stream),
            address: self.peer.ip().to_canonical(),
            protocol: self.protocol,
            query: target.query.as_deref(),
            user_agent: request.header(&headers::USER_AGENT).map(|agent| agent.as_str()),
            credentials: &credentials,
        };
        match shared.authorizer.authorize(&access).await {
            Ok(grant) => {
                self.granted = Some((action, target.stream.clone(), grant.clone()));
                Ok(grant)
            }
            Err(Denied::Anonymous) => Err(self.challenge(false)),
            Err(Denied::WrongCredentials) => {
                tracing::warn!(peer = %self.peer, user = credentials.user(), "wrong credentials");
                tokio::time::sleep(WRONG_CREDENTIALS_DELAY).await;
                Err(self.challenge(false))
            }
            Err(Denied::Limited { wait }) => Err(Answer::new(503, "Too Many Failed Attempts")
                .header("Retry-After", wait.as_secs().max(1).to_string())),
            Err(denied @ Denied::Unavailable { .. }) => {
                Err(Answer::new(503, format!("Service Unavailable: {denied}")))
            }
            Err(denied) => Err(Answer::new(403, format!("Forbidden: {denied}"))),
        }
    }

    fn challenge(&mut self, stale: bool) -> Answer {
        self.challenges
            .headers(stale)
            .into_iter()
            .fold(Answer::new(401, "Unauthorized"), |answer, line| answer.header("WWW-Authenticate", line))
    }
}
