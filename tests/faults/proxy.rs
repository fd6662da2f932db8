//! A loopback TCP proxy that cuts its connections at random bytes: half with a reset, half with a plain close.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// xorshift64: a failing run is repeated with its seed in `FW_TEST_SEED`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One connection at a time; after the last cut it forwards everything.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Cuts `cuts` connections, each after a number of bytes in `down` towards the client or, one in `one_up_in`, in
    /// `up` towards the server.
    pub(crate) async fn start(
        target: SocketAddr,
        cuts: usize,
        down: Range<u64>,
        up: Range<u64>,
        one_up_in: u64,
    ) -> Self {
        let seed =
            std::env::var("FW_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_micros() as u64)
            });
        println!("FW_TEST_SEED={seed}");
        let mut random = Random(seed.max(1));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let done = Arc::new(AtomicUsize::new(0));
        let counted = done.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                // Nobody is there while the server restarts.
                let Ok(server) = TcpStream::connect(target).await else { continue };
                let mut left = [u64::MAX; 2];
                if counted.load(Ordering::Relaxed) < cuts {
                    let direction = usize::from(random.below(one_up_in) != 0);
                    let bytes = if direction == 0 { &up } else { &down };
                    left[direction] = bytes.start + random.below(bytes.end - bytes.start);
                }
                let reset = random.below(2) == 0;
                if forward(client, server, left, reset).await {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Proxy { address, cuts: done, task }
    }

    /// How many connections it has cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards until an end closes, or cuts (true) once a direction's bytes are used up.
async fn forward(mut client: TcpStream, mut server: TcpStream, mut left: [u64; 2], reset: bool) -> bool {
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    loop {
        let (direction, read) = tokio::select! {
            read = client.read(&mut up) => (0, read),
            read = server.read(&mut down) => (1, read),
        };
        let Ok(read @ 1..) = read else { return false };
        let taken = read.min(usize::try_from(left[direction]).unwrap_or(usize::MAX));
        let written = match direction {
            0 => server.write_all(&up[..taken]).await,
            _ => client.write_all(&down[..taken]).await,
        };
        if written.is_err() {
            return false;
        }
        left[direction] -= taken as u64;
        if left[direction] == 0 {
            if reset {
                let _ = (client.set_zero_linger(), server.set_zero_linger());
            }
            return true;
        }
    }
}
