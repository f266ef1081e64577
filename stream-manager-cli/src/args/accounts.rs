//! Who may do what.

use super::Place;
use clap::{Args as ClapArgs, Subcommand};
use stream_manager_core::auth::{Action, Network, PathPattern, Role};
use stream_manager_core::config::DurationText;

#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user; the password is asked for, or read from standard input
    Add {
        /// The name
        name: String,
        #[command(flatten)]
        rights: Rights,
        #[command(flatten)]
        place: Place,
    },
    /// Give a user another password, which is asked for, or read from standard input
    Passwd {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Give a user other permissions
    Allow {
        /// The name
        name: String,
        #[command(flatten)]
        rights: Rights,
        #[command(flatten)]
        place: Place,
    },
    /// Let a user do nothing for now
    Disable {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Let a disabled user in again
    Enable {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Take a user away, with the user's tokens
    Remove {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// List the users and what they may
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Print the hash of a password, for the configuration file
    Hash,
}

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it: this is the only time that it is shown
    Add {
        /// What it is for
        name: String,
        /// Whose it is; it may what its user may, unless told otherwise, and ends with the user
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        rights: Rights,
        /// For how long it is good, such as 30d; for ever if not given
        #[arg(long, value_name = "DURATION")]
        expires: Option<DurationText>,
        #[command(flatten)]
        place: Place,
    },
    /// Take a token away
    Remove {
        /// Its id, as `token list` shows it
        id: String,
        #[command(flatten)]
        place: Place,
    },
    /// List the tokens
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

/// What somebody may.
#[derive(ClapArgs)]
pub(crate) struct Rights {
    /// A usual set: admin, operator, viewer, publisher or monitor
    #[arg(long)]
    pub(crate) role: Option<Role>,
    /// Single actions: read, publish, playback, record, api.read, api.write, metrics, admin; several with commas
    #[arg(long, value_delimiter = ',', value_name = "ACTION")]
    pub(crate) actions: Vec<Action>,
    /// Only with these streams: ids, in which * stands for anything; several with commas
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    pub(crate) streams: Vec<PathPattern>,
    /// Only from there: addresses or networks, such as 192.168.1.0/24; several with commas
    #[arg(long, value_delimiter = ',', value_name = "NETWORK")]
    pub(crate) from: Vec<Network>,
}
