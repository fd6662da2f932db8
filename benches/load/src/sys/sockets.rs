//! Kernel memory of the server's sockets, as `ss -tm` tells it.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::process::Command;

/// Send memory of the server's side of some connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SendMemory {
    pub(crate) sockets: u64,
    /// Those that the server has not closed.
    pub(crate) established: u64,
    /// Largest `t` + `w` of one socket, bytes.
    pub(crate) max_bytes: u64,
    /// Sum of `t` + `w`, bytes.
    pub(crate) sum_bytes: u64,
}

/// Asks `ss` for the sockets that `server` holds towards `peers`.
///
/// # Errors
/// When `ss` (Debian: iproute2) cannot be run.
pub(crate) fn send_memory(server: SocketAddr, peers: &HashSet<SocketAddr>) -> io::Result<SendMemory> {
    let output = Command::new("ss")
        .args(["-tmnH", "-O", "state", "all", "sport", "=", &format!(":{}", server.port())])
        .output()?;
    Ok(sum(&String::from_utf8_lossy(&output.stdout), peers))
}

fn sum(listing: &str, peers: &HashSet<SocketAddr>) -> SendMemory {
    let mut memory = SendMemory::default();
    for line in listing.lines() {
        let is_peer = line
            .split_ascii_whitespace()
            .filter_map(|word| word.parse::<SocketAddr>().ok())
            .any(|address| peers.contains(&address));
        let Some((_, skmem)) = line.split_once("skmem:(") else { continue };
        if !is_peer {
            continue;
        }
        let bytes = skmem
            .trim_end()
            .trim_end_matches(')')
            .split(',')
            .filter_map(|part| part.strip_prefix('t').or_else(|| part.strip_prefix('w')))
            .filter_map(|digits| digits.parse::<u64>().ok())
            .sum::<u64>();
        memory.sockets += 1;
        memory.established += u64::from(line.starts_with("ESTAB"));
        memory.sum_bytes += bytes;
        memory.max_bytes = memory.max_bytes.max(bytes);
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_peers_count_and_only_t_and_w() {
        let listing = "ESTAB 0 88 127.0.0.1:80 127.0.0.2:5 skmem:(r0,rb131072,t768,tb87040,f1280,w2816,o0,bl0,d0)\n\
                       FIN-WAIT-1 0 9 127.0.0.1:80 127.0.0.2:7 skmem:(r0,rb131072,t0,tb87040,f0,w100,o0,bl0,d0)\n\
                       ESTAB 0 0 127.0.0.1:80 127.0.0.2:6 skmem:(r0,rb131072,t9,tb87040,f0,w9,o0,bl0,d0)\n";
        let peers = ["127.0.0.2:5", "127.0.0.2:7"].map(|text| text.parse().expect("an address"));
        let peers = HashSet::from(peers);
        let memory = sum(listing, &peers);
        assert_eq!((memory.sockets, memory.established), (2, 1));
        assert_eq!((memory.max_bytes, memory.sum_bytes), (3_584, 3_684));
    }
}
