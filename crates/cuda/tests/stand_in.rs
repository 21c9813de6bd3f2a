//! The driver crate against a stand-in for the driver's library, which runs kernels on the virtual machine. It shows that calls, their
//! order and their errors are right as far as the driver's documentation goes; what a GPU does, only a GPU shows.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use whittle_cuda::{Cuda, Timer};
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::{DType, Device, DevicePtr, Driver, Error, Tensor, kernels};

const PTX: &str = "
.version 7.0
.target sm_70
.address_size 64
.visible .entry scale(.param .u64 x, .param .u64 y, .param .f32 alpha, .param .u32 n)
.maxntid 128
{
    .reg .b64 %from, %to, %offset;
    .reg .b32 %at, %block, %count;
    .reg .f32 %value, %factor;
    .reg .pred %outside;
    ld.param.u64 %from, [x];
    ld.param.u64 %to, [y];
    ld.param.f32 %factor, [alpha];
    ld.param.u32 %count, [n];
    mov.u32 %at, %tid.x;
    mov.u32 %block, %ctaid.x;
    mad.lo.u32 %at, %block, 128, %at;
    setp.ge.u32 %outside, %at, %count;
    @%outside ret;
    mul.wide.u32 %offset, %at, 4;
    add.s64 %from, %from, %offset;
    add.s64 %to, %to, %offset;
    ld.global.f32 %value, [%from];
    mul.rn.f32 %value, %value, %factor;
    st.global.f32 [%to], %value;
    ret;
}
.visible .entry nothing() { ret; }
";

kernels! {
    module "scale" in PTX;

    /// `y[i] = alpha · x[i]` for `i < n`.
    SCALE = "scale"(x: Ptr, y: Ptr, alpha: F32, n: U32);

    /// Nothing.
    NOTHING = "nothing"();

    /// Declared with fewer parameters than the text has.
    SHORT = "scale"(x: Ptr);

    /// Not in the text.
    MISSING = "missing"();
}

/// Runs `test` in a process of its own, in which the stand-in is the driver. `name` is the test's.
/// Returns what it printed, and nothing in that process.
fn on_stand_in(name: &str, environment: &[(&str, &str)], test: impl FnOnce()) -> Option<String> {
    if std::env::var_os("STAND_IN").is_some() {
        test();
        return None;
    }
    let program = std::env::current_exe().unwrap();
    // Cargo builds the stand-in as an example, beside the tests.
    let built = program.parent().unwrap().with_file_name("examples");
    let built = built.join("libstand_in_cuda.so");
    assert!(
        built.exists(),
        "{} is missing: start the tests with `cargo test -p whittle-cuda`, which builds it",
        built.display()
    );
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&built, folder.join("libcuda.so.1")).unwrap();
    std::fs::copy(&built, folder.join("libcuda.so")).unwrap();
    let output = Command::new(&program)
        .args(["--exact", name, "--nocapture"])
        .env("STAND_IN", "1")
        .env("LD_LIBRARY_PATH", &folder)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    Some(said.into_owned())
}

fn open() -> Arc<Cuda> {
    whittle_cuda::open(0).unwrap()
}

fn says(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    parts
        .iter()
        .for_each(|part| assert!(message.contains(part), "`{message}` does not say `{part}`"));
}

#[test]
fn a_kernel_runs_and_everything_is_given_back() {
    on_stand_in("a_kernel_runs_and_everything_is_given_back", &[], || {
        let cuda = open();
        assert_eq!(cuda.info().name, "cuda:0 stand-in");
        assert_eq!(cuda.info().capability, (8, 0));
        let device = Device::Gpu(cuda.clone());
        let x: Vec<f32> = (0..300).map(|i| i as f32).collect();
        let there = Tensor::from_vec(x, &[300])
            .unwrap()
            .to_device(&device)
            .unwrap();
        let y = Tensor::zeros(&[300], DType::F32, &device).unwrap();
        let launch = |n: u32, alpha| {
            let args = [
                Arg::Ptr(there.device_ptr().unwrap()),
                Arg::Ptr(y.device_ptr().unwrap()),
                Arg::F32(alpha),
                Arg::U32(n),
            ];
            SCALE
                .launch(&*cuda, [3, 1, 1], [128, 1, 1], 0, &args)
                .unwrap();
        };
        launch(300, 2.0);
        launch(2, -1.0);
        let y = y.to_vec::<f32>().unwrap();
        assert_eq!((y[0], y[1], y[2], y[299]), (0.0, -1.0, 4.0, 598.0));
        // Left to the driver's own drop, with work in the stream.
        let left = cuda.alloc(64).unwrap();
        cuda.upload(left, &[1; 64]).unwrap();
        NOTHING.launch(&*cuda, [1; 3], [32, 1, 1], 0, &[]).unwrap();
    });
}

#[test]
fn uploads_may_be_written_over_at_once() {
    on_stand_in("uploads_may_be_written_over_at_once", &[], || {
        let cuda = open();
        // Three halves of the staging memory and a bit, in pieces that do not divide a half.
        let bytes: Vec<u8> = (0..(12u32 << 20) + 77)
            .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
            .collect();
        let memory = cuda.alloc(bytes.len()).unwrap();
        let mut piece = Vec::new();
        let mut at = 0;
        for size in [1, 4095, 3 << 20, 5 << 20, usize::MAX] {
            let end = bytes.len().min(at + size.min(bytes.len()));
            piece.clear();
            piece.extend_from_slice(&bytes[at..end]);
            cuda.upload(memory.byte_offset(at as u64), &piece).unwrap();
            piece.fill(0xEE);
            at = end;
        }
        let mut back = vec![0; bytes.len()];
        cuda.download(memory, &mut back).unwrap();
        assert!(back == bytes, "the bytes came back changed");
        // Work of the stream sees the memory before it is freed.
        let other = cuda.alloc(64).unwrap();
        cuda.copy(memory, other, 64).unwrap();
        cuda.free(memory).unwrap();
        let mut start = [0; 64];
        cuda.download(other, &mut start).unwrap();
        assert_eq!(start, bytes[..64]);
        // Page-locked memory is written when the device gets to it; `download` waits for that.
        // SAFETY: the bytes are written by the download before they are read.
        let mut locked = unsafe { cuda.context().alloc_pinned_with_flags::<u8>(64, 0) }.unwrap();
        let locked = locked.as_mut_slice().unwrap();
        cuda.download(other, locked).unwrap();
        assert_eq!(locked, &bytes[..64]);
    });
}

#[test]
fn misuse_is_an_error_and_reaches_no_kernel() {
    on_stand_in("misuse_is_an_error_and_reaches_no_kernel", &[], || {
        let cuda = open();
        let memory = cuda.alloc(256).unwrap();
        cuda.upload(memory, &[0; 256]).unwrap();
        says(&cuda.alloc(0).unwrap_err(), &["cuda:0 stand-in", "alloc"]);
        says(
            &cuda.upload(memory.byte_offset(255), &[0; 2]).unwrap_err(),
            &["upload", "2 bytes"],
        );
        says(
            &cuda.download(memory, &mut [0; 257]).unwrap_err(),
            &["download", "257 bytes"],
        );
        says(
            &cuda.copy(memory, memory.byte_offset(8), 16).unwrap_err(),
            &["copy", "overlap"],
        );
        says(&cuda.free(memory.byte_offset(8)).unwrap_err(), &["free"]);

        let pointer = Arg::Ptr(memory);
        let good = [pointer, pointer, Arg::F32(1.0), Arg::U32(1)];
        let launch = |kernel: &Kernel, grid, block, shared, args: &[Arg]| {
            kernel.launch(&*cuda, grid, block, shared, args)
        };
        let (one, block) = ([1; 3], [128, 1, 1]);
        assert_eq!(launch(&SCALE, one, block, 0, &good), Ok(()));
        says(
            &launch(&SHORT, one, block, 0, &good[..1]).unwrap_err(),
            &["scale", "4 arguments"],
        );
        says(
            &launch(&MISSING, one, block, 0, &[]).unwrap_err(),
            &["missing"],
        );
        says(
            &launch(&SCALE, [1, 1 << 16, 1], block, 0, &good).unwrap_err(),
            &["grid", "65535"],
        );
        says(
            &launch(&SCALE, one, [513, 1, 1], 0, &good).unwrap_err(),
            &["512 threads"],
        );
        says(
            &launch(&NOTHING, one, one, 1 << 20, &[]).unwrap_err(),
            &["shared memory", "1048576"],
        );
        let stray = Arg::Ptr(DevicePtr::new(0x1234));
        says(
            &launch(&SCALE, one, block, 0, &[stray, pointer, good[2], good[3]]).unwrap_err(),
            &["0x1234", "live allocation"],
        );
        cuda.free(memory).unwrap();
        says(&cuda.free(memory).unwrap_err(), &["free", "live"]);
        says(
            &launch(&SCALE, one, block, 0, &good).unwrap_err(),
            &["live allocation"],
        );
        assert_eq!(cuda.synchronize(), Ok(()));
    });
}

#[test]
fn texts_are_compiled_once_and_refused_with_the_compilers_words() {
    let name = "texts_are_compiled_once_and_refused_with_the_compilers_words";
    let said = on_stand_in(name, &[], || {
        let cuda = open();
        let resources = cuda.resources(&SCALE).unwrap();
        assert_eq!((resources.registers, resources.architecture), (32, 80));
        // Equal text at another address: the module is known.
        let copy: &'static str = PTX.to_owned().leak();
        let same = Kernel::new("scale", copy, "nothing", &[]);
        assert_eq!(cuda.resources(&same), Ok(resources));

        let broken = Kernel::new(
            "broken",
            ".version 7.0\n.target sm_70\nnonsense",
            "nothing",
            &[],
        );
        let error = cuda.resources(&broken).unwrap_err();
        says(
            &error,
            &[
                "resources",
                "CUDA_ERROR_INVALID_PTX",
                "the compiler says: ptxas: line 3",
            ],
        );
        let newer = Kernel::new("newer", ".version 8.0\n.target sm_90\n", "nothing", &[]);
        says(
            &cuda.resources(&newer).unwrap_err(),
            &["the compiler says: ptxas: sm_90"],
        );
        let zero = Kernel::new("zero", "a\0b", "nothing", &[]);
        says(&cuda.resources(&zero).unwrap_err(), &["nul byte"]);
    });
    if let Some(said) = said {
        assert_eq!(said.matches("module loaded").count(), 1, "{said}");
    }
}

#[test]
fn much_shared_memory_is_asked_for() {
    on_stand_in("much_shared_memory_is_asked_for", &[], || {
        let cuda = open();
        for shared in [0, 48 << 10, (48 << 10) + 16, 163 << 10] {
            assert_eq!(
                NOTHING.launch(&*cuda, [1; 3], [32, 1, 1], shared, &[]),
                Ok(())
            );
            assert_eq!(cuda.occupancy(&NOTHING, 256, shared), Ok(8));
        }
        assert_eq!(cuda.synchronize(), Ok(()));
    });
}

#[test]
fn a_timer_encloses_the_work() {
    on_stand_in("a_timer_encloses_the_work", &[], || {
        let cuda = open();
        let timer = Timer::new(&cuda).unwrap();
        let once = || NOTHING.launch(&*cuda, [1; 3], [32, 1, 1], 0, &[]);
        let one = timer.time(once).unwrap();
        let many = timer.time(|| (0..200).try_for_each(|_| once())).unwrap();
        assert!(0.0 < one && one < many, "{one} µs, {many} µs");
    });
}

#[test]
fn a_fault_shows_at_the_next_wait_and_stays() {
    on_stand_in("a_fault_shows_at_the_next_wait_and_stays", &[], || {
        let cuda = open();
        let memory = cuda.alloc(16).unwrap();
        let args = [
            Arg::Ptr(memory),
            Arg::Ptr(memory),
            Arg::F32(1.0),
            Arg::U32(128),
        ];
        // Reads beyond the allocation: the launch is put into the stream, its failure comes later.
        assert_eq!(SCALE.launch(&*cuda, [1; 3], [128, 1, 1], 0, &args), Ok(()));
        says(
            &cuda.synchronize().unwrap_err(),
            &["synchronize", "CUDA_ERROR_LAUNCH_FAILED"],
        );
        says(
            &cuda.download(memory, &mut [0]).unwrap_err(),
            &["CUDA_ERROR_LAUNCH_FAILED"],
        );
        // What a dead context can't give back is nobody's any more; the process ends here, as with a dead GPU.
        std::mem::forget(cuda);
    });
}

#[test]
fn tensors_and_slices_share_memory_both_ways() {
    on_stand_in("tensors_and_slices_share_memory_both_ways", &[], || {
        let cuda = open();
        let device = Device::Gpu(cuda.clone());
        let x = Tensor::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
        let there = x.to_device(&device).unwrap();
        let row = there.narrow(0, 1, 1).unwrap();
        let view = cuda.view::<f32>(&row).unwrap();
        assert_eq!(cuda.stream().clone_dtoh(&*view).unwrap(), [3.0, 4.0]);
        says(&cuda.view::<u32>(&row).unwrap_err(), &["view", "f32"]);
        says(&cuda.view::<f32>(&x).unwrap_err(), &["view", "cpu"]);
        drop(view);
        assert_eq!(there.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);

        let slice = cuda.stream().clone_htod(&[5f32, 6.0]).unwrap();
        let address = cuda.adopt_slice(slice).unwrap();
        let args = [
            Arg::Ptr(address),
            Arg::Ptr(address),
            Arg::F32(10.0),
            Arg::U32(2),
        ];
        SCALE.launch(&*cuda, [1; 3], [128, 1, 1], 0, &args).unwrap();
        let mut scaled = [0f32; 2];
        let bytes = bytemuck::cast_slice_mut(&mut scaled);
        cuda.download(address, bytes).unwrap();
        assert_eq!(scaled, [50.0, 60.0]);
        cuda.free(address).unwrap();
        says(&cuda.free(address).unwrap_err(), &["free"]);
    });
}

#[test]
fn devices_without_pools_allocate_too() {
    let name = "devices_without_pools_allocate_too";
    on_stand_in(name, &[("STAND_IN_POOLS", "0")], || {
        let cuda = open();
        let memory = cuda.alloc(4).unwrap();
        cuda.upload(memory, &[1, 2, 3, 4]).unwrap();
        let mut back = [0; 4];
        cuda.download(memory, &mut back).unwrap();
        assert_eq!(back, [1, 2, 3, 4]);
        cuda.free(memory).unwrap();
    });
}

#[test]
fn a_driver_without_the_device_says_how_many_it_has() {
    let name = "a_driver_without_the_device_says_how_many_it_has";
    on_stand_in(name, &[("STAND_IN_DEVICES", "0")], || {
        says(
            &whittle_cuda::open(3).unwrap_err(),
            &["cuda:3: open failed", "has 0 devices"],
        );
    });
}

#[test]
fn an_old_driver_is_refused_by_its_version() {
    let name = "an_old_driver_is_refused_by_its_version";
    on_stand_in(name, &[("STAND_IN_VERSION", "11080")], || {
        says(
            &whittle_cuda::open(0).unwrap_err(),
            &["open", "12.2 (R535)", "11.8"],
        );
    });
}
