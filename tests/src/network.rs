//! A network of its own for servers, in which one of them can be cut off: a bridge, and for each server a network namespace with an
//! address. Needs Linux, root and the program `ip`.

use std::io::Write as _;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// The network. It is removed when it is dropped; its servers must have ended by then.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    /// The first three numbers of the addresses.
    prefix: String,
    last: AtomicU8,
    namespaces: Mutex<Vec<String>>,
}

/// The place of a server in the network.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) namespace: String,
    /// Its address.
    pub(crate) address: String,
    /// The address of the harness and of the services.
    pub(crate) clients: String,
}

impl Network {
    /// Makes the network; `None` without the right to.
    ///
    /// # Panics
    /// When the right is there and `ip` fails.
    #[must_use]
    pub fn new() -> Option<Self> {
        let id = std::process::id();
        let bridge = format!("tb{id}");
        // Namespaces need another right than links.
        try_ip(&["netns", "add", &bridge]).ok()?;
        let prefix = format!("10.{}.{}", 200 + id / 256 % 50, id % 256);
        let (last, namespaces) = (AtomicU8::new(1), Mutex::new(vec![bridge.clone()]));
        let network = Self { bridge, prefix, last, namespaces };
        try_ip(&["link", "add", &network.bridge, "type", "bridge"]).ok()?;
        ip(&["address", "add", &format!("{}/24", network.address(1)), "dev", &network.bridge]);
        ip(&["link", "set", &network.bridge, "up"]);
        Some(network)
    }

    fn address(&self, number: u8) -> String {
        format!("{}.{number}", self.prefix)
    }

    /// A place for a server.
    pub(crate) fn host(&self) -> Host {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (namespace, link) = (format!("{}-{number}", self.bridge), format!("{}-{number}", self.bridge));
        let address = self.address(number);
        ip(&["netns", "add", &namespace]);
        self.namespaces.lock().expect("no panic while held").push(namespace.clone());
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        ip(&["link", "set", &link, "master", &self.bridge, "up"]);
        let within = |arguments: &[&str]| ip(&[&["-n", &namespace], arguments].concat());
        within(&["address", "add", &format!("{address}/24"), "dev", "eth0"]);
        within(&["link", "set", "eth0", "up"]);
        within(&["link", "set", "lo", "up"]);
        let host = Host { namespace, address, clients: self.address(1) };
        // What comes from an address to which no route leads is dropped, too, also on connections that are open.
        for (name, value) in [("conf/all/rp_filter", 1), ("ip_early_demux", 0)] {
            host.run(&["sh", "-c", &format!("echo {value} > /proc/sys/net/ipv4/{name}")]);
        }
        host
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A panic here could end the process without a word of the one before it.
        for namespace in self.namespaces.lock().into_iter().flat_map(|names| names.clone()) {
            let _ = try_ip(&["netns", "delete", &namespace]);
        }
        let _ = try_ip(&["link", "delete", &self.bridge]);
    }
}

impl Host {
    /// The start of a command line that runs a program here.
    pub(crate) fn wrapper(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.namespace]
    }

    fn run(&self, command: &[&str]) {
        ip(&[&self.wrapper()[1..], command].concat());
    }

    /// Drops what comes from these addresses or goes to them. Connections stay open.
    pub(crate) fn cut_off(&self, from: &[&str]) {
        let routes: String = from.iter().map(|address| format!("route add blackhole {address}\n")).collect();
        let mut batch = tempfile::NamedTempFile::new().expect("a temporary file");
        batch.write_all(routes.as_bytes()).expect("room for some lines");
        // All at once.
        ip(&["-n", &self.namespace, "-batch", &batch.path().to_string_lossy()]);
    }

    /// Ends [`cut_off`](Self::cut_off).
    pub(crate) fn reconnect(&self) {
        ip(&["-n", &self.namespace, "route", "flush", "type", "blackhole"]);
    }
}

/// Runs `ip`.
fn ip(arguments: &[&str]) {
    try_ip(arguments).unwrap_or_else(|error| panic!("ip {}: {error}", arguments.join(" ")));
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
