//! Chains of Python functions as operators and sinks of the engine.

use sage::{BoxError, Cancelling, CloseContext, Emit, Fault, FinishContext, OpenContext, Operator, Sink};

use crate::Record;
use crate::chain::Chain;
use crate::thread::attach;

/// A chain with records behind it.
pub(crate) struct ChainOperator(pub(crate) Chain);

impl ChainOperator {
    fn run(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        let ran = self.run_all(out);
        if ran.is_err() {
            attach(|py| self.0.drop_rest(py));
        }
        ran
    }

    fn run_all(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        while let Some(records) = self.0.work().map_err(Fault::Error)? {
            records.into_iter().try_for_each(|record| out.emit(record))?;
            out.look()?;
        }
        Ok(())
    }
}

impl Operator for ChainOperator {
    type In = Record;
    type Out = Record;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        Ok(self.0.open(cx)?)
    }

    fn process(&mut self, record: Record, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        if self.0.take(record) { self.run(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.run(out)
    }

    fn finish(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.0.ended = Some(0);
        self.run(out)
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.0.close(cx)
    }
}

/// A chain that ends in a sink.
pub(crate) struct ChainSink {
    chain: Chain,
    cancelling: Option<Cancelling>,
}

impl ChainSink {
    pub(crate) fn new(chain: Chain) -> Self {
        Self { chain, cancelling: None }
    }

    fn run(&mut self) -> Result<(), BoxError> {
        while self.chain.work()?.is_some() {
            if self.cancelling.as_ref().is_some_and(Cancelling::has_begun) {
                attach(|py| self.chain.drop_rest(py));
            }
        }
        Ok(())
    }
}

impl Sink for ChainSink {
    type In = Record;

    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        self.cancelling = Some(cx.cancelling());
        Ok(self.chain.open(cx)?)
    }

    fn write(&mut self, record: Record) -> Result<(), BoxError> {
        if self.chain.take(record) { self.run() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        self.run()
    }

    fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
        self.chain.ended = Some(0);
        self.run()?;
        self.chain.publish()
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.chain.close(cx)
    }
}
