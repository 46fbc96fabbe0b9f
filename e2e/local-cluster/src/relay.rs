//! A TCP relay on loopback that stands for a Service in front of several webhook replicas.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::ports::Port;

/// A replica that does not accept a connection within this time is skipped.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// Spreads connections over its backends in turn and skips those that accept none, as a Service does once a
/// replica is not ready any more. It works in a thread of its own and so serves tests with different async
/// runtimes; dropping it closes all its connections.
#[derive(Debug)]
pub struct Relay {
    port: Port,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    backends: Vec<u16>,
    next: usize,
    connections: Vec<(u16, usize)>,
}

impl Relay {
    /// Starts a relay to ports on 127.0.0.1.
    pub fn start(backends: &[u16]) -> Result<Self> {
        let port = Port::lease()?;
        let state = Arc::new(Mutex::new(State { backends: backends.to_vec(), ..State::default() }));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        let listener =
            std::net::TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true).context("preparing the relay")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the relay's async runtime")?;
        let (stop, stopped) = oneshot::channel();
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime ends the tasks and closes their connections.
        });
        Ok(Self { port, state, stop: Some(stop), thread: Some(thread) })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `https://127.0.0.1:<port>`, for `registration print --url`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port())
    }

    /// Changes the backends for new connections.
    pub fn set_backends(&self, backends: &[u16]) {
        backends.clone_into(&mut self.locked().backends);
    }

    /// How many connections a backend got so far.
    pub fn connections(&self, backend: u16) -> usize {
        self.locked().connections.iter().find(|(port, _)| *port == backend).map_or(0, |(_, count)| *count)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, state: Arc<Mutex<State>>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of file descriptors, usually; try again when some were closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let state = state.clone();
        tokio::spawn(async move {
            let mut client = client;
            if let Some(mut backend) = connect(&state).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
            }
        });
    }
}

/// A connection to the next backend that accepts one.
async fn connect(state: &Mutex<State>) -> Option<TcpStream> {
    let candidates: Vec<u16> = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state.next;
        state.next = first.wrapping_add(1);
        let count = state.backends.len();
        (0..count)
            .filter_map(|step| state.backends.get((first.wrapping_add(step)) % count).copied())
            .collect()
    };
    for port in candidates {
        let attempt = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_LIMIT, attempt).await {
            let _ = stream.set_nodelay(true);
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            match state.connections.iter_mut().find(|(known, _)| *known == port) {
                Some((_, count)) => *count += 1,
                None => state.connections.push((port, 1)),
            }
            return Some(stream);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn echo(letter: u8) -> (Port, std::net::TcpListener, std::thread::JoinHandle<()>) {
        let port = Port::lease().expect("a port");
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("bound");
        let accepting = listener.try_clone().expect("shared");
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_ok() && byte == [b'?'] {
                    let _ = stream.write_all(&[letter]);
                } else {
                    return;
                }
            }
        });
        (port, listener, thread)
    }

    fn ask(port: u16, question: u8) -> Option<u8> {
        let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.write_all(&[question]).ok()?;
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    #[test]
    fn connections_are_spread_and_dead_backends_skipped() {
        let (one, one_listener, one_thread) = echo(b'1');
        let (two, _two_listener, _two_thread) = echo(b'2');
        let relay = Relay::start(&[one.number(), two.number()]).expect("a relay");
        let mut answers: Vec<u8> = (0..4).filter_map(|_| ask(relay.port(), b'?')).collect();
        answers.sort_unstable();
        assert_eq!(answers, b"1122");
        assert_eq!((relay.connections(one.number()), relay.connections(two.number())), (2, 2));
        // Any other byte ends the first backend.
        let _ = ask(one.number(), b'!');
        one_thread.join().expect("ended");
        drop(one_listener);
        // A child that another test is just starting holds the socket open until it executes its program.
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, one.number())).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let answers: Vec<u8> = (0..4).filter_map(|_| ask(relay.port(), b'?')).collect();
        assert_eq!(answers, b"2222");
        relay.set_backends(&[]);
        assert_eq!(ask(relay.port(), b'?'), None);
    }
}
