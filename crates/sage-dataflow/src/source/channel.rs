//! Channels as sources.
//!
//! A source has to wait for two things at once: for a record, and for what its job wants next. A receiver of
//! crossbeam-channel is selected together with a [`Doorbell`], one of tokio is polled (`polled.rs`). std's receiver can
//! do neither: only `recv` waits for it, and nothing but a record or the last sender ends that. So it is no
//! [`ChannelReceiver`], and the compiler says what to use.
//!
//! A drain ends the source where it stands. What is in the channel by then is not taken, as senders may be quicker than
//! the job for ever; the report says how much it was.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError};
use tokio::sync::mpsc;

use super::polled::PolledSource;
use super::{Next, Source, SourceContext};
use crate::BoxError;
use crate::chain::CloseContext;
use crate::clock::Rouse;
use crate::control::JobControl;
use crate::sync::FOREVER;

/// The receiving end of a channel that [`Environment::from_channel`](crate::Environment::from_channel) reads:
/// `crossbeam_channel::Receiver`, `tokio::sync::mpsc::Receiver` or `tokio::sync::mpsc::UnboundedReceiver`. Only the
/// engine implements it; for other channels that can be polled there is
/// [`from_stream`](crate::Environment::from_stream).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no receiver that `from_channel` can wait for",
    label = "expected a receiver of `crossbeam_channel` or of `tokio::sync::mpsc`",
    note = "nothing ends a wait for `std::sync::mpsc`, so no drain could: make the channel with `crossbeam_channel`"
)]
pub trait ChannelReceiver: Send + 'static {
    /// The records that are sent.
    type Item: Send + 'static;
    #[doc(hidden)]
    type Source: Source<Item = Self::Item>;

    #[doc(hidden)]
    fn into_source(self) -> Self::Source;
}

#[diagnostic::do_not_recommend]
impl<T: Send + 'static> ChannelReceiver for Receiver<T> {
    type Item = T;
    type Source = SelectedSource<T>;

    fn into_source(self) -> SelectedSource<T> {
        SelectedSource { receiver: self, doorbell: None, name: String::new(), is_dry: false }
    }
}

#[diagnostic::do_not_recommend]
impl<T: Send + 'static> ChannelReceiver for mpsc::Receiver<T> {
    type Item = T;
    type Source = PolledSource<Self>;

    fn into_source(self) -> PolledSource<Self> {
        PolledSource::new(self)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Send + 'static> ChannelReceiver for mpsc::UnboundedReceiver<T> {
    type Item = T;
    type Source = PolledSource<Self>;

    fn into_source(self) -> PolledSource<Self> {
        PolledSource::new(self)
    }
}

/// The records of a crossbeam channel.
#[derive(Debug)]
pub struct SelectedSource<T> {
    receiver: Receiver<T>,
    doorbell: Option<Doorbell>,
    name: String,
    /// Whether the channel was empty when it was last asked.
    is_dry: bool,
}

impl<T: Send + 'static> Source for SelectedSource<T> {
    type Item = T;

    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        self.doorbell = Some(Doorbell::hang(&cx.control));
        self.name.clone_from(&cx.name);
        Ok(())
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<T>, BoxError> {
        // What is buffered downstream is flushed before the wait.
        if self.is_dry
            && let Some(doorbell) = &self.doorbell
        {
            doorbell.wait_beside(&self.receiver, cx);
            if cx.interrupted() {
                return Ok(Next::Idle);
            }
        }
        let next = match self.receiver.try_recv() {
            Ok(record) => Next::Record(record),
            Err(TryRecvError::Empty) => Next::Idle,
            Err(TryRecvError::Disconnected) => Next::End,
        };
        self.is_dry = matches!(next, Next::Idle);
        Ok(next)
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.doorbell = None;
        note_left(&self.name, self.receiver.len(), cx);
        Ok(())
    }
}

/// Tells how many records the source at `name` has left in its channel.
pub(super) fn note_left(name: &str, records: usize, cx: &CloseContext) {
    match records {
        0 => {}
        1 => cx.note(format!("`{name}` left 1 record in its channel")),
        records => cx.note(format!("`{name}` left {records} records in its channel")),
    }
}

/// Ends a wait for a crossbeam channel: a channel of its own, which has a message from a ring on until the next wait is
/// over. It is rung whenever a [`Bell`](crate::bell::Bell) would be.
#[derive(Debug)]
struct Doorbell {
    control: Arc<JobControl>,
    button: Arc<Button>,
    rung: Receiver<()>,
}

#[derive(Debug)]
struct Button(Sender<()>);

impl Rouse for Button {
    fn rouse(&self) {
        // Where there is a message already, it is as good as two.
        let _ = self.0.try_send(());
    }
}

impl Doorbell {
    fn hang(control: &Arc<JobControl>) -> Self {
        let (sender, rung) = crossbeam_channel::bounded(1);
        let button = Arc::new(Button(sender));
        control.hang(button.clone());
        Self { control: control.clone(), button, rung }
    }

    /// Waits until `receiver` has a record or has lost its last sender, or something else is to be done.
    fn wait_beside<T>(&self, receiver: &Receiver<T>, cx: &SourceContext) {
        // A ring from here on is seen by the wait, and all that came before it by this look.
        let _ = self.rung.try_recv();
        let Some(limit) = cx.may_wait(FOREVER) else { return };
        let mut either = Select::new();
        either.recv(receiver);
        either.recv(&self.rung);
        let _ = either.ready_timeout(limit);
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.control.take_down(&self.button);
    }
}
