//! Free loopback ports for servers that cannot use port 0, or that must come back on the same
//! port.
//!
//! Ports come from below the kernel's ephemeral range. From inside it, a client that reconnects while the
//! server is down can be given the server's own port as its source port: it then connects to itself, and the
//! server cannot come back.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::SystemTime;

const LOWEST: u16 = 15_000;
/// Linux's default start of the ephemeral range, `net.ipv4.ip_local_port_range`.
const DEFAULT_EPHEMERAL: u16 = 32_768;

static NEXT: AtomicU16 = AtomicU16::new(0);
/// One UDP socket for each reserved port. TCP and UDP ports are independent, so the socket disturbs no
/// server, yet no other test process can reserve the same number until this process ends.
static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A TCP port on 127.0.0.1 that nothing listens on and that no other test gets while this process
/// lives.
///
/// # Panics
/// When no port of the range is free.
#[must_use]
pub fn free_port() -> u16 {
    let end = end_of_range();
    let span = end - LOWEST;
    let start = first_guess();
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = LOWEST + start.wrapping_add(step) % span;
        if reserve(port) {
            return port;
        }
    }
    panic!("no free TCP port on 127.0.0.1 from {LOWEST} to {end}");
}

/// Whether a TCP listener could be opened on this port of 127.0.0.1 now.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn reserve(port: u16) -> bool {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    if !is_free(port) {
        return false;
    }
    RESERVED.lock().expect("no panic while held").push(socket);
    true
}

/// Test processes that start together should not try the same ports in the same order.
fn first_guess() -> u16 {
    static GUESS: std::sync::OnceLock<u16> = std::sync::OnceLock::new();
    *GUESS.get_or_init(|| {
        let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
        let mixed = (nanos ^ process::id().rotate_left(16)).wrapping_mul(0x9E37_79B9);
        (mixed >> 16) as u16
    })
}

fn end_of_range() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|start| *start > LOWEST + 1_000)
        .unwrap_or(DEFAULT_EPHEMERAL)
}

/// A port of `[::1]` that leads to `addr`, as long as the test's runtime lives.
///
/// # Panics
/// When this machine has no IPv6.
pub async fn on_ipv6(addr: String) -> u16 {
    let listener = tokio::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.expect("a port of [::1]");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let addr = addr.clone();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(&addr).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    port
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ports_are_free_distinct_and_outside_the_ephemeral_range() {
        let ports: HashSet<u16> = (0..200).map(|_| free_port()).collect();

        assert_eq!(ports.len(), 200);
        assert!(ports.iter().all(|port| is_free(*port) && *port < end_of_range()));
    }

    #[test]
    fn a_port_with_a_listener_is_not_handed_out() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();

        assert!(!reserve(listener.local_addr().unwrap().port()));
    }
}
