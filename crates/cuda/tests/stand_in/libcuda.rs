//! A stand-in for the driver's library: the functions that whittle-cuda reaches through cudarc, on the PTX virtual machine.
//!
//! It is as slow to act as the driver may be: what is put into a stream happens at a synchronisation and not before, so that
//! memory which was freed or written over too early shows. Only copies from and to memory that is not page-locked are done with the
//! host's side of it when the call returns. When the last context goes, everything else must have gone.
//! `STAND_IN_DEVICES`, `STAND_IN_VERSION` and `STAND_IN_POOLS` in the environment make it another driver.

#![allow(non_snake_case, unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Instant;
use whittle_ptx_vm::{Limits, Module};
use whittle_tensor::kernel::{Arg, ArgKind, Kernel, Parameter};
use whittle_tensor::{DevicePtr, Driver};

type Handle = *mut c_void;

const SUCCESS: u32 = 0;
const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const INVALID_DEVICE: u32 = 101;
const INVALID_CONTEXT: u32 = 201;
const INVALID_PTX: u32 = 218;
const NOT_FOUND: u32 = 500;
const LAUNCH_FAILED: u32 = 719;

/// The context's handle.
const CONTEXT: usize = 0x10;

/// What a driver that has one stream knows.
#[derive(Default)]
struct State {
    vm: Option<Arc<dyn Driver>>,
    retained: usize,
    next: usize,
    modules: HashMap<usize, Text>,
    functions: HashMap<usize, Function>,
    events: HashMap<usize, Event>,
    streams: usize,
    pools: usize,
    host: HashMap<usize, Vec<u8>>,
    device: HashMap<u64, usize>,
    queue: VecDeque<Work>,
    failed: u32,
}

struct Text {
    text: &'static str,
    module: Module,
}

struct Function {
    module: usize,
    kernel: Kernel,
    kinds: Vec<ArgKind>,
    dynamic_shared_max: u32,
}

#[derive(Default)]
struct Event {
    /// Recorded and not reached.
    pending: bool,
    at: Option<Instant>,
}

/// What waits in the stream.
enum Work {
    /// From page-locked memory.
    Upload(u64, usize, usize),
    /// From a copy of other memory.
    Staged(u64, Vec<u8>),
    Download(usize, u64, usize),
    Copy(u64, u64, usize),
    Launch(Kernel, [u32; 3], [u32; 3], u32, Vec<Arg>),
    Free(u64),
    Event(usize),
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

thread_local! {
    static CURRENT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap()
}

/// The state, for calls that want a current context.
fn bound() -> Result<MutexGuard<'static, State>, u32> {
    if CURRENT.get() != CONTEXT {
        return Err(INVALID_CONTEXT);
    }
    let state = state();
    if state.failed == SUCCESS {
        Ok(state)
    } else {
        Err(state.failed)
    }
}

fn code(result: Result<(), u32>) -> u32 {
    result.err().unwrap_or(SUCCESS)
}

fn environment(name: &str, otherwise: c_int) -> c_int {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |value| value.parse().unwrap())
}

impl State {
    fn vm(&self) -> &dyn Driver {
        &**self.vm.as_ref().expect("a context is retained")
    }

    fn handle(&mut self) -> usize {
        self.next += 0x100;
        self.next
    }

    /// Does what waits, up to the event where one is given.
    fn run(&mut self, until: Option<usize>) {
        while until.is_none_or(|event| self.events[&event].pending) {
            let Some(work) = self.queue.pop_front() else {
                return;
            };
            if let Err(error) = self.act(work) {
                eprintln!("stand-in: {error}");
                self.failed = LAUNCH_FAILED;
            }
        }
    }

    fn act(&mut self, work: Work) -> whittle_tensor::Result<()> {
        let vm = self.vm.clone().expect("a context is retained");
        match work {
            Work::Upload(dst, src, bytes) => {
                // SAFETY: the caller of the copy keeps the host's memory as it is until it has waited for the copy.
                let src = unsafe { std::slice::from_raw_parts(src as *const u8, bytes) };
                vm.upload(DevicePtr::new(dst), src)
            }
            Work::Staged(dst, bytes) => vm.upload(DevicePtr::new(dst), &bytes),
            Work::Download(dst, src, bytes) => {
                // SAFETY: as above; nobody else reads the memory before that.
                let dst = unsafe { std::slice::from_raw_parts_mut(dst as *mut u8, bytes) };
                vm.download(DevicePtr::new(src), dst)
            }
            Work::Copy(dst, src, bytes) => vm.copy(DevicePtr::new(src), DevicePtr::new(dst), bytes),
            Work::Launch(kernel, grid, block, shared, args) => {
                kernel.launch(&*vm, grid, block, shared, &args)
            }
            Work::Free(address) => {
                self.device.remove(&address);
                vm.free(DevicePtr::new(address))
            }
            Work::Event(event) => {
                let event = self.events.get_mut(&event).expect("a live event");
                *event = Event {
                    pending: false,
                    at: Some(Instant::now()),
                };
                Ok(())
            }
        }
    }

    /// Ends the process where something of that kind waits in the stream.
    fn refuse(&self, what: &str, waits: impl Fn(&Work) -> bool) {
        if self.queue.iter().any(waits) {
            eprintln!("stand-in: {what}");
            std::process::exit(86);
        }
    }

    /// Whether an address is in page-locked memory.
    fn is_locked(&self, address: usize) -> bool {
        self.host
            .iter()
            .any(|(&start, buffer)| (start..start + buffer.len()).contains(&address))
    }

    fn alloc(&mut self, bytes: usize) -> Result<u64, u32> {
        let pointer = self.vm().alloc(bytes).map_err(|_| OUT_OF_MEMORY)?;
        self.device.insert(pointer.address(), bytes);
        Ok(pointer.address())
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(_: c_uint) -> u32 {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { *version = environment("STAND_IN_VERSION", 12020) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { *count = environment("STAND_IN_DEVICES", 1) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> u32 {
    if ordinal >= environment("STAND_IN_DEVICES", 1) {
        return INVALID_DEVICE;
    }
    // SAFETY: the caller's pointer.
    unsafe { *device = ordinal };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, _: c_int) -> u32 {
    let mut state = state();
    state.retained += 1;
    state
        .vm
        .get_or_insert_with(|| whittle_ptx_vm::open(Limits::checked(80)) as Arc<dyn Driver>);
    // SAFETY: the caller's pointer.
    unsafe { *context = CONTEXT as Handle };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(_: c_int) -> u32 {
    let mut state = state();
    state.run(None);
    state.retained -= 1;
    let left = [
        ("modules", state.modules.len()),
        ("events", state.events.len()),
        ("streams", state.streams),
        ("pools", state.pools),
        ("host allocations", state.host.len()),
        ("device allocations", state.device.len()),
    ];
    if state.retained == 0 && left.iter().any(|(_, count)| *count > 0) {
        eprintln!("stand-in: the last context goes and leaves {left:?}");
        std::process::exit(86);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, _: c_int) -> u32 {
    let found = match attribute {
        75 => 8,
        76 => 0,
        16 => 4,
        39 => 2048,
        106 => 32,
        82 => 65_536,
        81 => 164 << 10,
        97 => 163 << 10,
        111 => 1024,
        38 => 1 << 20,
        115 => environment("STAND_IN_POOLS", 1),
        13 | 36 | 37 => 1,
        _ => return INVALID_VALUE,
    };
    // SAFETY: the caller's pointer.
    unsafe { *value = found };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, _: c_int) -> u32 {
    let text = c"stand-in";
    assert!(len as usize > text.count_bytes());
    // SAFETY: the caller's buffer has `len` bytes.
    unsafe { name.copy_from_nonoverlapping(text.as_ptr(), text.count_bytes() + 1) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _: c_int) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { *bytes = 2 << 30 };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { *context = CURRENT.get() as Handle };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: Handle) -> u32 {
    CURRENT.set(context.addr());
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> u32 {
    cuStreamSynchronize(std::ptr::null_mut())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut Handle, _: c_uint) -> u32 {
    code(bound().map(|mut state| {
        state.streams += 1;
        // SAFETY: the caller's pointer.
        unsafe { *stream = state.handle() as Handle };
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(_: Handle) -> u32 {
    state().streams -= 1;
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(_: Handle) -> u32 {
    code(bound().and_then(|mut state| {
        state.run(None);
        if state.failed == SUCCESS {
            Ok(())
        } else {
            Err(state.failed)
        }
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(_: Handle, _: Handle, _: c_uint) -> u32 {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut Handle, _: c_uint) -> u32 {
    code(bound().map(|mut state| {
        let handle = state.handle();
        state.events.insert(handle, Event::default());
        // SAFETY: the caller's pointer.
        unsafe { *event = handle as Handle };
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: Handle) -> u32 {
    let mut state = state();
    state.run(Some(event.addr()));
    state.events.remove(&event.addr());
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, _: Handle) -> u32 {
    code(bound().map(|mut state| {
        let event = event.addr();
        state.events.get_mut(&event).expect("a live event").pending = true;
        state.queue.push_back(Work::Event(event));
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: Handle) -> u32 {
    code(bound().and_then(|mut state| {
        state.run(Some(event.addr()));
        if state.failed == SUCCESS {
            Ok(())
        } else {
            Err(state.failed)
        }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime(millis: *mut f32, start: Handle, end: Handle) -> u32 {
    code(bound().and_then(|state| {
        let at = |event: Handle| state.events[&event.addr()].at.ok_or(INVALID_VALUE);
        let time = at(end)?.duration_since(at(start)?);
        // SAFETY: the caller's pointer.
        unsafe { *millis = time.as_secs_f32() * 1e3 };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(memory: *mut Handle, bytes: usize, _: c_uint) -> u32 {
    code(bound().map(|mut state| {
        let mut buffer = vec![0xA5; bytes];
        let address = buffer.as_mut_ptr();
        state.host.insert(address.addr(), buffer);
        // SAFETY: the caller's pointer.
        unsafe { *memory = address.cast() };
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(memory: Handle) -> u32 {
    code(bound().and_then(|mut state| {
        let freed = |work: &Work| match work {
            Work::Upload(_, src, _) => state.host[&memory.addr()]
                .as_ptr_range()
                .contains(&(*src as *const u8)),
            _ => false,
        };
        state.refuse("page-locked memory is freed under a copy", freed);
        state
            .host
            .remove(&memory.addr())
            .map(drop)
            .ok_or(INVALID_VALUE)
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemPoolCreate(pool: *mut Handle, _: *const c_void) -> u32 {
    code(bound().map(|mut state| {
        state.pools += 1;
        // SAFETY: the caller's pointer.
        unsafe { *pool = state.handle() as Handle };
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAttribute(_: Handle, _: c_uint, _: Handle) -> u32 {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolDestroy(_: Handle) -> u32 {
    state().pools -= 1;
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocFromPoolAsync(
    address: *mut u64,
    bytes: usize,
    _: Handle,
    _: Handle,
) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { cuMemAlloc_v2(address, bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, _: Handle) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { cuMemAlloc_v2(address, bytes) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, _: Handle) -> u32 {
    code(bound().map(|mut state| state.queue.push_back(Work::Free(address))))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> u32 {
    code(bound().and_then(|mut state| {
        // SAFETY: the caller's pointer.
        unsafe { *address = state.alloc(bytes)? };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> u32 {
    code(bound().and_then(|mut state| {
        let live = state.device.remove(&address).ok_or(INVALID_VALUE);
        live.map(|_| state.vm().free(DevicePtr::new(address)).unwrap())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    dst: u64,
    src: *const c_void,
    bytes: usize,
    _: Handle,
) -> u32 {
    code(bound().map(|mut state| {
        let work = if state.is_locked(src.addr()) {
            Work::Upload(dst, src.addr(), bytes)
        } else {
            // SAFETY: the caller's memory.
            let bytes = unsafe { std::slice::from_raw_parts(src.cast(), bytes) };
            Work::Staged(dst, bytes.to_vec())
        };
        state.queue.push_back(work);
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(dst: Handle, src: u64, bytes: usize, _: Handle) -> u32 {
    code(bound().and_then(|mut state| {
        let dst = dst.addr();
        state.queue.push_back(Work::Download(dst, src, bytes));
        if !state.is_locked(dst) {
            state.run(None);
        }
        if state.failed == SUCCESS {
            Ok(())
        } else {
            Err(state.failed)
        }
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(dst: u64, src: u64, bytes: usize, _: Handle) -> u32 {
    code(bound().map(|mut state| state.queue.push_back(Work::Copy(dst, src, bytes))))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut Handle,
    image: *const c_char,
    count: c_uint,
    options: *const c_uint,
    values: *const Handle,
) -> u32 {
    code(bound().and_then(|mut state| {
        // SAFETY: a text that ends in zero.
        let text = unsafe { CStr::from_ptr(image) }
            .to_str()
            .map_err(|_| INVALID_PTX)?;
        let text = text.to_owned().leak();
        let parsed = Module::parse(text).map_err(|error| error.to_string());
        let parsed = parsed.and_then(|module| match module.target() {
            ..=80 => Ok(module),
            newer => Err(format!("sm_{newer} is not for this device")),
        });
        let parsed = parsed.map_err(|error| {
            // SAFETY: as many options as values.
            let (options, values) = unsafe {
                (
                    std::slice::from_raw_parts(options, count as usize),
                    std::slice::from_raw_parts(values, count as usize),
                )
            };
            let value = |option| {
                options
                    .iter()
                    .position(|&o| o == option)
                    .map(|at| values[at])
            };
            // CU_JIT_ERROR_LOG_BUFFER and its size.
            if let (Some(log), Some(size)) = (value(5), value(6)) {
                let said = CString::new(format!("ptxas: {error}")).unwrap();
                let bytes = said.as_bytes_with_nul();
                let shown = bytes.len().min(size.addr());
                // SAFETY: the buffer has as many bytes as the size says.
                unsafe {
                    log.cast::<u8>()
                        .copy_from_nonoverlapping(bytes.as_ptr(), shown)
                };
            }
            INVALID_PTX
        })?;
        let handle = state.handle();
        let text = Text {
            text,
            module: parsed,
        };
        state.modules.insert(handle, text);
        eprintln!("stand-in: module loaded");
        // SAFETY: the caller's pointer.
        unsafe { *module = handle as Handle };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: Handle) -> u32 {
    let mut state = state();
    let launched = |work: &Work| matches!(work, Work::Launch(..));
    state.refuse("a module is unloaded under a launch", launched);
    state
        .functions
        .retain(|_, function| function.module != module.addr());
    state.modules.remove(&module.addr());
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(
    function: *mut Handle,
    module: Handle,
    name: *const c_char,
) -> u32 {
    code(bound().and_then(|mut state| {
        // SAFETY: a text that ends in zero.
        let name = unsafe { CStr::from_ptr(name) }
            .to_str()
            .map_err(|_| NOT_FOUND)?;
        let found = &state.modules[&module.addr()];
        let entry = found.module.entry(name).map_err(|_| NOT_FOUND)?;
        let parameters: Vec<Parameter> = entry
            .signature()
            .iter()
            .map(|parameter| {
                let kind = match format!("{:?}", parameter.ty).as_str() {
                    "F32" => ArgKind::F32,
                    "S32" => ArgKind::I32,
                    _ if parameter.bytes == 8 => ArgKind::U64,
                    _ => ArgKind::U32,
                };
                Parameter {
                    name: parameter.name.clone().leak(),
                    kind,
                }
            })
            .collect();
        let loaded = Function {
            module: module.addr(),
            kinds: parameters.iter().map(|parameter| parameter.kind).collect(),
            kernel: Kernel::new(
                "loaded",
                found.text,
                name.to_owned().leak(),
                parameters.leak(),
            ),
            dynamic_shared_max: 48 << 10,
        };
        let handle = state.handle();
        state.functions.insert(handle, loaded);
        // SAFETY: the caller's pointer.
        unsafe { *function = handle as Handle };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, _: Handle) -> u32 {
    let found = match attribute {
        0 => 512,
        4 => 32,
        6 => 80,
        _ => 0,
    };
    // SAFETY: the caller's pointer.
    unsafe { *value = found };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: Handle, attribute: c_uint, value: c_int) -> u32 {
    code(bound().map(|mut state| {
        assert_eq!(attribute, 8, "the maximum of dynamic shared memory");
        let function = state.functions.get_mut(&function.addr()).unwrap();
        function.dynamic_shared_max = value.unsigned_abs();
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    function: Handle,
    threads: c_int,
    shared: usize,
) -> u32 {
    code(bound().and_then(|state| {
        if shared > state.functions[&function.addr()].dynamic_shared_max as usize {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller's pointer.
        unsafe { *blocks = 2048 / threads };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    gx: c_uint,
    gy: c_uint,
    gz: c_uint,
    bx: c_uint,
    by: c_uint,
    bz: c_uint,
    shared: c_uint,
    _: Handle,
    parameters: *const *const u8,
    _: *const Handle,
) -> u32 {
    code(bound().and_then(|mut state| {
        let function = &state.functions[&function.addr()];
        if shared > function.dynamic_shared_max {
            return Err(INVALID_VALUE);
        }
        let arg = |(at, kind): (usize, &ArgKind)| {
            // SAFETY: the caller has one pointer a parameter, each to a value of the parameter's size.
            unsafe {
                let value = *parameters.add(at);
                match kind {
                    ArgKind::F32 => Arg::F32(value.cast::<f32>().read_unaligned()),
                    ArgKind::I32 => Arg::I32(value.cast::<i32>().read_unaligned()),
                    ArgKind::U32 => Arg::U32(value.cast::<u32>().read_unaligned()),
                    ArgKind::Ptr | ArgKind::U64 => Arg::U64(value.cast::<u64>().read_unaligned()),
                }
            }
        };
        let args = function.kinds.iter().enumerate().map(arg).collect();
        let work = Work::Launch(function.kernel, [gx, gy, gz], [bx, by, bz], shared, args);
        state.queue.push_back(work);
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(error: u32, name: *mut *const c_char) -> u32 {
    let text = match error {
        INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
        INVALID_CONTEXT => c"CUDA_ERROR_INVALID_CONTEXT",
        INVALID_PTX => c"CUDA_ERROR_INVALID_PTX",
        NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
        LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
        _ => return INVALID_VALUE,
    };
    // SAFETY: the caller's pointer.
    unsafe { *name = text.as_ptr() };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(error: u32, text: *mut *const c_char) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { cuGetErrorName(error, text) }
}
