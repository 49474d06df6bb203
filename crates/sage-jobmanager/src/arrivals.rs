//! Tells when something comes about in a job's folder, such as the socket of its reaper.
//!
//! One descriptor of the system's for all folders: there are few of them for each user.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Watches folders. [`Self::run`] has to be polled.
#[derive(Debug)]
pub(crate) struct Arrivals {
    inotify: AsyncFd<Descriptor>,
    watched: Mutex<HashMap<WatchDescriptor, Arc<Notify>>>,
}

/// As the runtime wants it.
#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A folder that is watched, until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    arrivals: Arc<Arrivals>,
    descriptor: WatchDescriptor,
    notify: Arc<Notify>,
}

impl Arrivals {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // SAFETY: the descriptor stays open, and the same, as long as it is owned.
        let inotify = unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE)? };
        Ok(Arc::new(Self { inotify, watched: Mutex::default() }))
    }

    /// Watches a folder from now on.
    pub(crate) fn watch(self: &Arc<Self>, folder: &Path) -> io::Result<Watched> {
        // A socket is made, and its rights are changed when somebody listens.
        let what = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVED_TO;
        let descriptor = self.inotify.get_ref().0.add_watch(folder, what | AddWatchFlags::IN_ONLYDIR)?;
        let notify = Arc::new(Notify::new());
        self.lock().insert(descriptor, notify.clone());
        Ok(Watched { arrivals: self.clone(), descriptor, notify })
    }

    /// Hands on what the system tells, for ever.
    pub(crate) async fn run(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            match ready.get_inner().0.read_events() {
                Ok(events) => {
                    let watched = self.lock();
                    for event in events {
                        // If there were too many to be kept, everybody looks.
                        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                            watched.values().for_each(|notify| notify.notify_one());
                        } else if let Some(notify) = watched.get(&event.wd) {
                            notify.notify_one();
                        }
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WatchDescriptor, Arc<Notify>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Waits until something has come about since the last time, or since it is watched.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.arrivals.lock().remove(&self.descriptor);
        // It fails if the folder is gone.
        let _ = self.arrivals.inotify.get_ref().0.rm_watch(self.descriptor);
    }
}
