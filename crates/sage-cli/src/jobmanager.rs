//! `sage jobmanager`: the daemon that runs jobs.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};

use sage_api::home::DEFAULT_PORT;
use sage_jobmanager::{Options, serve};

use crate::Host;
use crate::place::home;

/// Run a job manager
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Start(Start),
}

/// Start a job manager, which runs jobs until it is stopped
#[derive(Debug, clap::Args)]
struct Start {
    /// Run in this terminal, until SIGINT or SIGTERM
    #[arg(long, required = true)]
    foreground: bool,

    /// The address to listen at, one of this machine only
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST.into())]
    host: IpAddr,

    /// The port to listen at, 0 for any that is free
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,

    /// How many jobs may run at once; others wait
    #[arg(long, value_name = "JOBS", default_value_t = 8)]
    limit: u16,
}

pub(crate) fn run(args: &Args, host: &Host) -> u8 {
    let Command::Start(start) = &args.command;
    let home = match home() {
        Ok(home) => home,
        Err(error) => return failed(&error),
    };
    let mut options = Options::new(home, host.itself.clone());
    (options.host, options.port, options.limit) = (start.host, start.port, usize::from(start.limit));
    options.ready = Some(Box::new(|address| {
        // Nobody reads what cannot be written.
        let _ = writeln!(io::stdout(), "the job manager listens at http://{}", address.http);
        let _ = io::stdout().flush();
    }));
    serve(options).map_or_else(|error| failed(&error), |()| 0)
}

fn failed(error: &dyn std::error::Error) -> u8 {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words.push_str(&format!(": {error}"));
        source = error.source();
    }
    let _ = writeln!(io::stderr(), "sage: {words}");
    1
}
