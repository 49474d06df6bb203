//! Which job manager is asked.

use sage_api::client::{Client, ClientError};
use sage_api::home::{DEFAULT_PORT, Home};

/// Where the job manager listens.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// The host of the job manager, if it is not this one: its token is then read from SAGE_TOKEN
    #[arg(long, global = true, value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// The port that the job manager was started with
    #[arg(long, global = true, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    pub(crate) port: u16,
}

impl Place {
    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        let home = home()?;
        match self.host.as_deref() {
            None | Some("127.0.0.1" | "localhost" | "::1") => Client::find(&home, self.port),
            Some(host) => Client::at(&home, host, self.port),
        }
    }
}

/// The folder of this user.
pub(crate) fn home() -> Result<Home, ClientError> {
    let unknown = || std::io::Error::other("neither SAGE_HOME nor HOME is set: set one of them to a folder");
    Home::find().ok_or_else(|| ClientError::System(unknown()))
}
