//! A way to a server that can be cut off and opened again: an outage that the server itself, and what it remembers,
//! outlives.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A way to a server, at a port of its own; closed when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    server: u16,
    way: Option<Way>,
}

/// An open way.
struct Way {
    is_open: Arc<AtomicBool>,
    /// Both ends of each connection.
    connections: Arc<Mutex<Vec<TcpStream>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) fn to(server: u16) -> Self {
        let mut proxy = Self { port: 0, server, way: None };
        proxy.open();
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lets connections through, at the same port as before.
    pub(crate) fn open(&mut self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        self.port = listener.local_addr().unwrap().port();
        let (is_open, connections) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let (opened, kept, server) = (is_open.clone(), connections.clone(), self.server);
        let accepting = thread::spawn(move || {
            let mut copying = Vec::new();
            for client in listener.incoming().take_while(|_| opened.load(Ordering::Acquire)) {
                let ends = [client.unwrap(), TcpStream::connect((Ipv4Addr::LOCALHOST, server)).unwrap()];
                let clones = || ends.each_ref().map(|end| end.try_clone().unwrap());
                kept.lock().unwrap().extend(clones());
                let ([from, to], [back, again]) = (clones(), clones());
                copying.extend([(from, to), (again, back)].map(|(from, to)| thread::spawn(move || copy(from, to))));
            }
            copying.into_iter().for_each(|copying| copying.join().unwrap());
        });
        self.way = Some(Way { is_open, connections, accepting });
    }

    /// Cuts all connections off, and refuses others.
    pub(crate) fn close(&mut self) {
        let Some(Way { is_open, connections, accepting }) = self.way.take() else { return };
        is_open.store(false, Ordering::Release);
        // The one that it waits for.
        drop(TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))));
        let cut = || connections.lock().unwrap().drain(..).for_each(|end| _ = end.shutdown(Shutdown::Both));
        while !accepting.is_finished() {
            cut();
            thread::yield_now();
        }
        accepting.join().unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
    }
}

/// Hands on what comes, up to its end.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
