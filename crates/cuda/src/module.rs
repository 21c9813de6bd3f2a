//! PTX text that the driver has compiled for its device, and the entries that were looked up in it.

use crate::signature::Signature;
use crate::words;
use cudarc::driver::{CudaContext, result, sys};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;
use sys::CUfunction_attribute::*;
use whittle_tensor::kernel::Kernel;

/// Bytes of the compiler's log that an error shows.
const LOG: usize = 8 << 10;

/// What the driver's compiler made of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// 32-bit registers of a thread.
    pub registers: u32,
    /// Local memory of a thread in bytes: spills and stack.
    pub local_bytes: u32,
    /// Static shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// The most threads that a block can have.
    pub threads_max: u32,
    /// The architecture that the code was compiled for, 90 for compute capability 9.0.
    pub architecture: u32,
}

/// An entry, ready to launch.
#[derive(Clone, Debug)]
pub struct Function {
    function: sys::CUfunction,
    pub signature: Arc<Signature>,
    pub resources: Resources,
    // The code lives as long as its module.
    _module: Arc<Module>,
}

// SAFETY: function handles may be used from every thread, by the driver's documentation; the module keeps the code alive.
unsafe impl Send for Function {}

impl Function {
    /// The driver's handle, valid while `self` lives.
    pub fn raw(&self) -> sys::CUfunction {
        self.function
    }

    /// Allows launches with `bytes` of dynamic shared memory; the context is bound. The driver wants to be told from 48 KiB on.
    pub fn allow_shared(&self, bytes: u32) -> Result<(), String> {
        let attribute = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let bytes = i32::try_from(bytes).map_err(|_| format!("{bytes} bytes of shared memory"))?;
        // SAFETY: the handle is of a module that `self` keeps loaded.
        unsafe { result::function::set_function_attribute(self.function, attribute, bytes) }
            .map_err(words)
    }

    /// Blocks of `threads` threads with `shared` bytes of dynamic shared memory that one multiprocessor holds at a time; the context is bound.
    pub fn occupancy(&self, threads: u32, shared: u32) -> Result<u32, String> {
        let threads = i32::try_from(threads).map_err(|_| format!("{threads} threads"))?;
        // SAFETY: the handle is of a module that `self` keeps loaded.
        let blocks = unsafe {
            result::occupancy::max_active_block_per_multiprocessor(
                self.function,
                threads,
                shared as usize,
            )
        };
        Ok(blocks.map_err(words)?.unsigned_abs())
    }
}

/// Everything that was loaded. Modules are found by their text, entries by the address of their text first, because kernels are
/// constants: a launch then hashes a few bytes, not the text.
#[derive(Debug, Default)]
pub struct Modules {
    functions: HashMap<(*const u8, usize, &'static str), Function>,
    modules: HashMap<&'static str, Arc<Module>>,
}

// SAFETY: the pointers are keys and never read through; they are addresses of 'static text.
unsafe impl Send for Modules {}

impl Modules {
    /// The kernel's entry; loads its text where that is new.
    pub fn function(
        &mut self,
        kernel: &Kernel,
        context: &Arc<CudaContext>,
    ) -> Result<Function, String> {
        let text = kernel.ptx();
        let key = (text.as_ptr(), text.len(), kernel.entry());
        if let Some(function) = self.functions.get(&key) {
            return Ok(function.clone());
        }
        let module = match self.modules.get(text) {
            Some(module) => module.clone(),
            None => {
                let module = Arc::new(Module::load(text, context)?);
                self.modules.insert(text, module.clone());
                module
            }
        };
        let function = module.function(text, kernel.entry())?;
        self.functions.insert(key, function.clone());
        Ok(function)
    }
}

/// A loaded module.
#[derive(Debug)]
struct Module {
    module: sys::CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: module handles may be used from every thread, by the driver's documentation.
unsafe impl Send for Module {}
// SAFETY: as above; every call is one call of the driver, which locks where it must.
unsafe impl Sync for Module {}

impl Module {
    /// Compiles `ptx` for the context's device. An error carries the compiler's log.
    fn load(ptx: &str, context: &Arc<CudaContext>) -> Result<Self, String> {
        let text = CString::new(ptx).map_err(|error| format!("the PTX text holds a {error}"))?;
        context.bind_to_thread().map_err(words)?;
        let mut log = vec![0u8; LOG];
        let mut options = [
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // The driver takes the size in the pointer's place.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG as *mut c_void];
        let mut module = MaybeUninit::uninit();
        // SAFETY: the text ends in a zero byte; options and values are two live arrays of that length, the first value points to
        // the LOG bytes that the second one says; success writes the handle.
        let loaded = unsafe {
            sys::cuModuleLoadDataEx(
                module.as_mut_ptr(),
                text.as_ptr().cast(),
                2,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        loaded.result().map_err(|error| {
            let said = log.split(|&byte| byte == 0).next().unwrap_or_default();
            let said = String::from_utf8_lossy(said);
            format!("{}; the compiler says: {}", words(error), said.trim())
        })?;
        Ok(Self {
            // SAFETY: the call succeeded.
            module: unsafe { module.assume_init() },
            context: context.clone(),
        })
    }

    fn function(self: Arc<Self>, text: &str, entry: &str) -> Result<Function, String> {
        let signature = Arc::new(Signature::read(text, entry)?);
        let name = CString::new(entry).map_err(|error| error.to_string())?;
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(self.module, name) }.map_err(words)?;
        let attribute = |attribute| {
            // SAFETY: the handle was got above from a loaded module.
            unsafe { result::function::get_function_attribute(function, attribute) }
                .map(i32::unsigned_abs)
                .map_err(words)
        };
        let resources = Resources {
            registers: attribute(CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            local_bytes: attribute(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            shared_bytes: attribute(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
            threads_max: attribute(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            architecture: attribute(CU_FUNC_ATTRIBUTE_BINARY_VERSION)?,
        };
        Ok(Function {
            function,
            signature,
            resources,
            _module: self,
        })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.context.record_err(self.context.bind_to_thread());
        // SAFETY: the module is unloaded once; functions hold an Arc to it, so none is left, and Cuda::drop has waited for their launches.
        self.context
            .record_err(unsafe { result::module::unload(self.module) });
    }
}
