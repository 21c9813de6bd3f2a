//! One build that holds both: the driver of this crate shares cudarc's types with whoever else uses cudarc.

use cudarc::driver::CudaContext;
use std::sync::Arc;

/// The context that candle would be given.
pub fn context(cuda: &whittle_cuda::Cuda) -> &Arc<CudaContext> {
    cuda.context()
}
