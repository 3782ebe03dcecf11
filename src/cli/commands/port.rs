//! `port`.

use hoist::ops::{self, PortOptions};

use super::super::render::out;
use super::super::session::{self, NO_LOGS, Need};
use super::translate;
use super::{Exit, Settings, Verb};

/// Show where a port of a service is published
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The port inside the container
    #[arg(value_name = "PRIVATE_PORT")]
    port: u16,
    /// Which replica of the service [default: the first]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    index: u32,
    /// tcp or udp
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp")]
    protocol: String,
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = PortOptions {
            service: self.service,
            index: translate::index(self.index),
            target: self.port,
            protocol: self.protocol,
        };
        session::run(&settings, Need::Name, NO_LOGS, async |session| {
            let (address, port) = ops::port(&session.context, &options).await?;
            out::print(&format!("{address}:{port}\n"))?;
            Ok(Exit::Success)
        })
    }
}
