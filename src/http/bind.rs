//! Chooses the address: an explicit one or none, a default one or the next that is free.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Ports that are tried after a taken default port.
const NEXT_PORTS_MAX: u16 = 100;

/// No address to listen on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address that was asked for.
    #[error(
        "cannot listen on {listen} for HTTP: {source}; choose another address with --http HOST:PORT (port 0 takes a free one)"
    )]
    Explicit {
        /// What was asked for.
        listen: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The default address, and every port after it that was tried.
    #[error(
        "cannot listen on {listen} for HTTP, nor on the {tried} ports after it: {source}; choose an address with --http HOST:PORT"
    )]
    NoneFree {
        /// The default address.
        listen: SocketAddr,
        /// How many further ports were tried.
        tried: u16,
        /// What the operating system said last.
        source: std::io::Error,
    },
}

/// Binds `listen`. When it is only the default (`explicit` is false) and its port is taken, the next free port is used:
/// the caller prints the listener's address.
///
/// # Errors
/// The address is taken or not ours; the message names it and the flag that chooses another.
pub async fn bind(listen: SocketAddr, explicit: bool) -> Result<TcpListener, BindError> {
    let mut source = match TcpListener::bind(listen).await {
        Ok(listener) => return Ok(listener),
        Err(source) if explicit || source.kind() != ErrorKind::AddrInUse => {
            return Err(BindError::Explicit { listen, source });
        }
        Err(source) => source,
    };
    let mut tried = 0;
    for port in (1..=NEXT_PORTS_MAX).map_while(|step| listen.port().checked_add(step)) {
        tried += 1;
        match TcpListener::bind(SocketAddr::new(listen.ip(), port)).await {
            Ok(listener) => return Ok(listener),
            Err(taken) => source = taken,
        }
    }
    Err(BindError::NoneFree { listen, tried, source })
}
