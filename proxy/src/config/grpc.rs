//! The settings of the port for gRPC.

use std::net::SocketAddr;

use clap::Args;
use tepal_shared::process::settings::Mistakes;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "gRPC")]
pub(super) struct GrpcArgs {
    /// Address for clients of the Open Inference Protocol over gRPC, as in 0.0.0.0:8001; none = no gRPC
    #[arg(long, env, value_name = "ADDR")]
    grpc_listen_addr: Option<String>,
    /// Most open connections for gRPC. Each has up to 100 calls at a time, all together at most MAX_CONNECTIONS
    #[arg(long, env, default_value = "1000", value_name = "N")]
    grpc_max_connections: String,
}

/// The port for gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcPort {
    /// Address to listen on.
    pub listen_addr: SocketAddr,
    /// Most open connections.
    pub most_connections: usize,
}

impl GrpcArgs {
    /// The port; `None` = no gRPC. `http`: the address of the other port.
    pub(super) fn check(&self, http: SocketAddr, mistakes: &mut Mistakes) -> Option<GrpcPort> {
        let most_connections =
            mistakes.number("GRPC_MAX_CONNECTIONS", &self.grpc_max_connections, 1..=1_000_000);
        let text = self.grpc_listen_addr.as_deref()?;
        let listen_addr = mistakes.parsed("GRPC_LISTEN_ADDR", text, SocketAddr::from(([0, 0, 0, 0], 8001)));
        // Port 0 is any free one.
        if listen_addr.port() == http.port() && http.port() != 0 {
            mistakes.add("GRPC_LISTEN_ADDR", "must have another port than LISTEN_ADDR");
        }
        Some(GrpcPort { listen_addr, most_connections })
    }
}
