//! The users of the configuration: one list for all protocols.

use crate::auth::Users;
use crate::config::Config;
use crate::manager::ConfigUser;
use std::sync::Arc;

pub(super) struct ConfiguredUsers {
    list: Arc<Users>,
}

impl ConfiguredUsers {
    /// The users that a configuration names.
    pub(super) fn new(config: &Config) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self { list: Arc::new(Users::new(config.auth.users()?)) }))
    }

    /// The list, which changes when the configuration does.
    pub(super) fn list(&self) -> Arc<Users> {
        self.list.clone()
    }
}

#[async_trait::async_trait]
impl ConfigUser for ConfiguredUsers {
    async fn change(&self, _: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        self.list.replace(new.auth.users()?);
        Ok(())
    }
}
