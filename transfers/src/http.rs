//! By HTTP, as applications do it today: a POST with the block, and its answer.

use std::io::{self, Read};

use anyhow::{Result, anyhow, ensure};
use tiny_http::{Response, Server};
use ureq::Agent;

use crate::{Blocks, measure};

/// Takes every block as it comes, and says 1.
pub(crate) fn take(address: &str) -> Result<()> {
    let server = Server::http(address).map_err(|error| anyhow!("{error}"))?;
    for mut request in server.incoming_requests() {
        io::copy(request.as_reader(), &mut io::sink())?;
        request.respond(Response::from_string("1"))?;
    }
    Ok(())
}

/// Posts blocks, each over a connection of its own unless one is to be kept.
pub(crate) fn push(url: &str, blocks: &Blocks, keep: bool) -> Result<()> {
    let idle = if keep { 1 } else { 0 };
    let agent: Agent = Agent::config_builder().max_idle_connections(idle).build().into();
    measure(blocks, |block| {
        let mut answer = agent.post(url).send(block)?;
        let mut flag = String::new();
        answer.body_mut().as_reader().read_to_string(&mut flag)?;
        ensure!(flag == "1", "the answer is {flag:?}");
        Ok(())
    })
}
