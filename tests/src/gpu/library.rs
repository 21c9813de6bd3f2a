//! The vendor's matrix product, where it is installed, for comparison.

#![allow(unsafe_code)]

use super::machine::{Machine, median};
use libloading::{Library, Symbol};
use std::ffi::{c_int, c_void};
use std::ptr::{from_ref, null_mut};
use whittle_tensor::{DType, Device, Error, Result, Tensor};

/// cuBLAS by its versions.
const NAMES: [&str; 5] = [
    "libcublas.so.13",
    "libcublas.so.12",
    "libcublas.so.11",
    "libcublas.so",
    "cublas64_12.dll",
];

type Handle = *mut c_void;
type Create = unsafe extern "C" fn(*mut Handle) -> c_int;
type Destroy = unsafe extern "C" fn(Handle) -> c_int;
type SetStream = unsafe extern "C" fn(Handle, *mut c_void) -> c_int;
type GemmEx = unsafe extern "C" fn(
    Handle,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *const c_void,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    *mut c_void,
    c_int,
    c_int,
    c_int,
    c_int,
) -> c_int;

/// `CUDA_R_16BF`, `CUBLAS_COMPUTE_32F` and `CUBLAS_GEMM_DEFAULT` of cuBLAS's headers.
const BF16: c_int = 14;
const COMPUTE_F32: c_int = 68;
const DEFAULT: c_int = -1;

/// Microseconds that cuBLAS takes for a bf16 product of `side`-by-`side` matrices, f32 sums: median of 20.
///
/// # Errors
/// No GPU, no cuBLAS (with every name that was tried), or what it or the driver says.
pub fn bf16_product(machine: &Machine, side: usize) -> Result<f64, String> {
    let Some(cuda) = machine.gpu() else {
        return Err("cuBLAS needs a GPU".to_owned());
    };
    let library = load()?;
    let device = Device::Gpu(cuda.clone());
    let matrix = |seed| {
        Tensor::randn(&[side, side], seed, 0, &Device::Cpu)?
            .to_dtype(DType::BF16)?
            .to_device(&device)
    };
    let operands = (|| Ok([matrix(1)?, matrix(2)?, matrix(3)?]))();
    let [a, b, c] = operands.map_err(|error: Error| error.to_string())?;
    let address = |x: &Tensor| {
        let pointer = x.device_ptr().map_err(|error| error.to_string())?;
        Ok::<_, String>(pointer.address() as *mut c_void)
    };
    let (a_at, b_at, c_at) = (address(&a)?, address(&b)?, address(&c)?);
    let n = c_int::try_from(side).map_err(|error| error.to_string())?;
    // SAFETY: the types are those of cuBLAS's header for these functions, which no version has changed.
    let (create, destroy, set_stream, gemm) = unsafe {
        (
            symbol::<Create>(&library, "cublasCreate_v2")?,
            symbol::<Destroy>(&library, "cublasDestroy_v2")?,
            symbol::<SetStream>(&library, "cublasSetStream_v2")?,
            symbol::<GemmEx>(&library, "cublasGemmEx")?,
        )
    };
    cuda.context()
        .bind_to_thread()
        .map_err(|error| error.to_string())?;
    let mut handle = null_mut();
    // SAFETY: the context is bound, the pointer is to a live handle.
    succeed("cublasCreate", unsafe { create(&mut handle) })?;
    let product = || {
        let (one, zero) = (1f32, 0f32);
        let alpha: *const c_void = from_ref(&one).cast();
        let beta: *const c_void = from_ref(&zero).cast();
        // SAFETY: three live n-by-n bf16 matrices of the bound context; both scalars are read before the call returns. cuBLAS counts
        // columns first, so the transposed operands change places.
        let status = unsafe {
            gemm(
                handle,
                0,
                0,
                n,
                n,
                n,
                alpha,
                b_at,
                BF16,
                n,
                a_at,
                BF16,
                n,
                beta,
                c_at,
                BF16,
                n,
                COMPUTE_F32,
                DEFAULT,
            )
        };
        succeed("cublasGemmEx", status)
    };
    let measured = (|| {
        let stream = cuda.stream().cu_stream().cast();
        // SAFETY: the stream lives as long as `cuda`, longer than the handle.
        succeed("cublasSetStream", unsafe { set_stream(handle, stream) })?;
        // The first one chooses an algorithm.
        product()?;
        let mut times = Vec::new();
        for _ in 0..20 {
            let mut status = Ok(());
            let time = machine.time(|| {
                status = product();
                Ok(())
            });
            status?;
            times.push(time.map_err(|error| error.to_string())?);
        }
        median(&times)
            .map(|(micros, _)| micros)
            .ok_or_else(|| "no samples".to_owned())
    })();
    // SAFETY: the handle was created above and is not used again; the device has finished, as the last time was taken.
    succeed("cublasDestroy", unsafe { destroy(handle) })?;
    measured
}

fn load() -> Result<Library, String> {
    let mut tried = Vec::new();
    for name in NAMES {
        // SAFETY: cuBLAS's initialisers ask nothing of the caller.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(library),
            Err(_) => tried.push(name),
        }
    }
    Err(format!(
        "cuBLAS is not installed; looked for {}",
        tried.join(", ")
    ))
}

/// # Safety
/// `T` is the function's type.
unsafe fn symbol<'a, T>(library: &'a Library, name: &str) -> Result<Symbol<'a, T>, String> {
    // SAFETY: the caller's promise.
    unsafe { library.get(name.as_bytes()) }.map_err(|error| format!("{name}: {error}"))
}

fn succeed(call: &str, status: c_int) -> Result<(), String> {
    match status {
        0 => Ok(()),
        status => Err(format!("{call}: status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_the_reason_is_said() {
        let error = bf16_product(&Machine::vm(), 16).unwrap_err();
        assert_eq!(error, "cuBLAS needs a GPU");
    }
}
