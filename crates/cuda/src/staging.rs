//! Uploads that don't wait: bytes go to page-locked memory first, from where the device fetches them in stream order.

use crate::words;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result};
use std::sync::Arc;

/// Bytes of one half. Small uploads share a half; a large one fills one while the device reads the other.
const HALF: usize = 4 << 20;

/// Two halves of page-locked memory, filled in turn.
#[derive(Debug)]
pub struct Staging {
    halves: [Half; 2],
    current: usize,
    used: usize,
    stream: Arc<CudaStream>,
}

impl Staging {
    /// Page-locked memory for uploads on `stream`.
    pub fn new(stream: &Arc<CudaStream>) -> Result<Self, String> {
        let context = stream.context();
        Ok(Self {
            halves: [Half::new(context)?, Half::new(context)?],
            current: 0,
            used: 0,
            stream: stream.clone(),
        })
    }

    /// Copies `src` to the device address `dst` in stream order; `src` is free when this returns.
    ///
    /// # Safety
    /// `src.len()` bytes at `dst` are memory of the stream's context that is not freed before this copy in stream order.
    pub unsafe fn send(&mut self, mut dst: u64, src: &[u8]) -> Result<(), String> {
        let mut rest = src;
        while !rest.is_empty() {
            if self.used == HALF {
                self.turn()?;
            }
            let (part, later) = rest.split_at(rest.len().min(HALF - self.used));
            let half = &mut self.halves[self.current];
            // SAFETY: the half has HALF bytes and `used + part.len()` is at most that. Nobody reads them: the device reads only
            // below `used`, and what it read of this half in the last round has been waited for by `turn`.
            let room =
                unsafe { std::slice::from_raw_parts_mut(half.memory.add(self.used), part.len()) };
            room.copy_from_slice(part);
            // SAFETY: `dst` is the caller's promise. The source stays as it is until `turn` has waited for the copy, and is freed
            // by Half::drop, when the driver has waited for the stream.
            unsafe { result::memcpy_htod_async(dst, room, self.stream.cu_stream()) }
                .map_err(words)?;
            self.used += part.len();
            dst += part.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Goes to the other half, once the device has read it.
    fn turn(&mut self) -> Result<(), String> {
        self.halves[self.current]
            .sent
            .record(&self.stream)
            .map_err(words)?;
        self.current ^= 1;
        self.used = 0;
        self.halves[self.current].sent.synchronize().map_err(words)
    }
}

/// `HALF` bytes of page-locked memory and the event after which the device has read them.
#[derive(Debug)]
struct Half {
    memory: *mut u8,
    sent: CudaEvent,
}

// SAFETY: the pointer is to memory that this value alone owns and that may be used from every thread.
unsafe impl Send for Half {}

impl Half {
    fn new(context: &Arc<CudaContext>) -> Result<Self, String> {
        let sent = context.new_event(None).map_err(words)?;
        // SAFETY: the contents are undefined until `send` writes them, and it copies no more than it wrote.
        let memory = unsafe { result::malloc_host(HALF, 0) }.map_err(words)?;
        Ok(Self {
            memory: memory.cast(),
            sent,
        })
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let context = self.sent.context();
        context.record_err(context.bind_to_thread());
        // SAFETY: the memory came from malloc_host and is freed once; Cuda::drop has waited for the last copy out of it.
        context.record_err(unsafe { result::free_host(self.memory.cast()) });
    }
}
