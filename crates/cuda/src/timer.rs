//! Time on the device, by events in its stream.

use crate::{Cuda, words};
use cudarc::driver::{CudaEvent, sys};
use whittle_tensor::Result;

/// Two events in a driver's stream: what they enclose is timed on the device, without the host's part.
#[derive(Debug)]
pub struct Timer<'a> {
    cuda: &'a Cuda,
    start: CudaEvent,
    stop: CudaEvent,
}

impl<'a> Timer<'a> {
    /// A timer of the driver's stream.
    ///
    /// # Errors
    /// [`Error::Driver`](whittle_tensor::Error::Driver) where the driver has no events left.
    pub fn new(cuda: &'a Cuda) -> Result<Self> {
        let event = || {
            cuda.context()
                .new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT))
                .map_err(|error| cuda.error("timer", words(error)))
        };
        Ok(Self {
            cuda,
            start: event()?,
            stop: event()?,
        })
    }

    /// Microseconds that the device took from before the first to after the last piece of work that `work` put into the stream.
    /// The resolution is about half a microsecond.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Driver`](whittle_tensor::Error::Driver) where a launch failed.
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let failed = |error| self.cuda.error("timer", words(error));
        self.start.record(self.cuda.stream()).map_err(failed)?;
        work()?;
        self.stop.record(self.cuda.stream()).map_err(failed)?;
        // Waits for both.
        let milliseconds = self.start.elapsed_ms(&self.stop).map_err(failed)?;
        Ok(f64::from(milliseconds) * 1e3)
    }
}
