//! A driver in memory: what the trait asks of one, and what tensors and kernels do with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use whittle_tensor::device::Info;
use whittle_tensor::kernel::{Arg, ArgKind, Kernel};
use whittle_tensor::{
    Csr, DType, Device, DevicePtr, Driver, Error, Order, Pairing, Result, Tensor, kernels,
};

kernels! {
    module "scale" in include_str!("ptx/scale.ptx");

    /// `y[i] = alpha · x[i]` for `i < n`.
    SCALE = "scale_f32"(x: Ptr, y: Ptr, alpha: F32, n: U32);

    /// Declared, and not in the text.
    MISSING = "missing"(offset: I32, bytes: U64,);

    /// Without parameters.
    NOTHING = "nothing"();
}

/// Allocations by address, and a gap behind each.
#[derive(Debug, Default)]
struct Heap {
    live: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

impl Heap {
    /// Allocation and offset of a range that lies inside one allocation.
    fn range(&mut self, pointer: DevicePtr, bytes: usize) -> Option<&mut [u8]> {
        let (&start, memory) = self.live.range_mut(..=pointer.address()).next_back()?;
        let offset = usize::try_from(pointer.address() - start).ok()?;
        memory.get_mut(offset..offset.checked_add(bytes)?)
    }
}

#[derive(Debug, Default)]
struct Memory {
    heap: Mutex<Heap>,
    /// Entries of the texts that have been loaded, by module and text: two crates may use one name.
    modules: Mutex<BTreeMap<(&'static str, &'static str), Vec<&'static str>>>,
    /// The entries launched, in order.
    launched: Mutex<Vec<&'static str>>,
    is_newer: bool,
}

impl Memory {
    fn error(&self, op: &'static str, reason: &str) -> Error {
        Error::Driver {
            driver: self.info().name,
            op,
            reason: reason.to_owned(),
        }
    }

    /// Loads the kernel's text where it is new, and says whether its entry is there.
    fn load(&self, kernel: &Kernel) -> bool {
        let mut modules = self.modules.lock().unwrap();
        modules
            .entry((kernel.module(), kernel.ptx()))
            .or_insert_with(|| entries(kernel.ptx()))
            .contains(&kernel.entry())
    }

    fn live(&self) -> usize {
        self.heap.lock().unwrap().live.len()
    }
}

/// The names behind `.entry` in a PTX text.
fn entries(ptx: &'static str) -> Vec<&'static str> {
    ptx.split(".entry ")
        .skip(1)
        .filter_map(|rest| rest.split_once('(').map(|(name, _)| name.trim()))
        .collect()
}

impl Driver for Memory {
    fn alloc(&self, bytes: usize) -> Result<DevicePtr> {
        if bytes == 0 {
            return Err(self.error("alloc", "no bytes"));
        }
        let mut heap = self.heap.lock().unwrap();
        heap.next += 256;
        let address = heap.next;
        heap.next += (bytes as u64).next_multiple_of(256);
        heap.live.insert(address, vec![0xAA; bytes]);
        Ok(DevicePtr::new(address))
    }

    fn free(&self, pointer: DevicePtr) -> Result<()> {
        let freed = self.heap.lock().unwrap().live.remove(&pointer.address());
        freed
            .map(drop)
            .ok_or_else(|| self.error("free", "not the start of a live allocation"))
    }

    fn upload(&self, dst: DevicePtr, src: &[u8]) -> Result<()> {
        let mut heap = self.heap.lock().unwrap();
        let memory = heap
            .range(dst, src.len())
            .ok_or_else(|| self.error("upload", "outside of an allocation"))?;
        memory.copy_from_slice(src);
        Ok(())
    }

    fn download(&self, src: DevicePtr, dst: &mut [u8]) -> Result<()> {
        let mut heap = self.heap.lock().unwrap();
        let memory = heap
            .range(src, dst.len())
            .ok_or_else(|| self.error("download", "outside of an allocation"))?;
        dst.copy_from_slice(memory);
        Ok(())
    }

    fn copy(&self, src: DevicePtr, dst: DevicePtr, bytes: usize) -> Result<()> {
        let mut between = vec![0; bytes];
        self.download(src, &mut between)?;
        self.upload(dst, &between)
    }

    fn launch(
        &self,
        kernel: &Kernel,
        grid: [u32; 3],
        block: [u32; 3],
        _shared: u32,
        args: &[Arg],
    ) -> Result<()> {
        if !self.load(kernel) {
            let reason = format!("no kernel {} in {}", kernel.entry(), kernel.module());
            return Err(self.error("launch", &reason));
        }
        self.launched.lock().unwrap().push(kernel.entry());
        if kernel.entry() != SCALE.entry() {
            return Ok(());
        }
        let &[Arg::Ptr(x), Arg::Ptr(y), Arg::F32(alpha), Arg::U32(n)] = args else {
            return Ok(());
        };
        // One thread an element, as the grid has them.
        for thread in (0..grid[0] * block[0]).take_while(|&thread| thread < n) {
            let at = |pointer: DevicePtr| pointer.byte_offset(4 * u64::from(thread));
            let mut value = 0f32;
            self.download(at(x), bytemuck::bytes_of_mut(&mut value))?;
            self.upload(at(y), bytemuck::bytes_of(&(alpha * value)))?;
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn info(&self) -> Info {
        Info {
            name: "memory".to_owned(),
            capability: if self.is_newer { (8, 0) } else { (7, 0) },
            multiprocessors: 1,
            memory: 1 << 30,
            shared_memory: if self.is_newer { 163 << 10 } else { 48 << 10 },
        }
    }
}

fn device() -> (Arc<Memory>, Device) {
    let memory = Arc::new(Memory::default());
    (memory.clone(), Device::Gpu(memory))
}

/// One with tensor cores.
fn newer_device() -> (Arc<Memory>, Device) {
    let memory = Arc::new(Memory {
        is_newer: true,
        ..Memory::default()
    });
    (memory.clone(), Device::Gpu(memory))
}

fn says(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    parts
        .iter()
        .for_each(|part| assert!(message.contains(part), "`{message}` does not say `{part}`"));
}

#[test]
fn a_tensor_comes_back_from_a_device_as_it_went() {
    let (memory, gpu) = device();
    let x = Tensor::randn(&[5, 7, 3], 1, 0, &Device::Cpu).unwrap();
    for dtype in [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::U32,
        DType::I32,
        DType::U8,
        DType::I8,
    ] {
        let x = x.to_dtype(dtype).unwrap();
        let views = [
            x.clone(),
            x.narrow(1, 2, 3).unwrap(),
            x.transpose(0, 2).unwrap(),
            x.narrow(0, 1, 0).unwrap(),
        ];
        for view in views {
            let there = view.to_device(&gpu).unwrap();
            assert_eq!(
                (there.shape(), there.dtype(), there.device()),
                (view.shape(), dtype, &gpu)
            );
            assert_eq!(
                there.storage_bytes(),
                view.len() * dtype.size_in_bytes(),
                "only what the view shows is copied"
            );
            let back = there
                .to_device(&Device::Cpu)
                .unwrap()
                .to_dtype(DType::F64)
                .unwrap();
            assert_eq!(
                back.to_vec::<f64>().unwrap(),
                view.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap()
            );
        }
    }
    assert_eq!(memory.live(), 0);
}

#[test]
fn views_on_a_device_share_its_memory_and_read_back_in_their_own_order() {
    let (memory, gpu) = device();
    let x = Tensor::from_vec((0..24u32).collect(), &[4, 6]).unwrap();
    let there = x.to_device(&gpu).unwrap();
    let view = there.transpose(0, 1).unwrap().narrow(0, 1, 2).unwrap();
    assert_eq!(memory.live(), 1);
    let expected = x
        .transpose(0, 1)
        .unwrap()
        .narrow(0, 1, 2)
        .unwrap()
        .to_vec::<u32>()
        .unwrap();
    assert_eq!(view.to_vec::<u32>().unwrap(), expected);
    assert_eq!(view.into_vec::<u32>().unwrap(), expected);
    assert_eq!(
        there.into_vec::<u32>().unwrap(),
        (0..24).collect::<Vec<_>>()
    );
}

#[test]
fn the_last_tensor_gives_the_memory_back() {
    let (memory, gpu) = device();
    let x = Tensor::zeros(&[16], DType::F32, &gpu).unwrap();
    let view = x.narrow(0, 4, 4).unwrap();
    assert_eq!(
        view.device_ptr().unwrap(),
        x.device_ptr().unwrap().byte_offset(16)
    );
    drop(x);
    assert_eq!(memory.live(), 1);
    drop(view);
    assert_eq!(memory.live(), 0);
}

#[test]
fn a_failed_upload_leaks_nothing() {
    /// Takes allocations but no bytes.
    #[derive(Debug, Default)]
    struct Full(Memory);

    impl Driver for Full {
        fn alloc(&self, bytes: usize) -> Result<DevicePtr> {
            self.0.alloc(bytes)
        }
        fn free(&self, pointer: DevicePtr) -> Result<()> {
            self.0.free(pointer)
        }
        fn upload(&self, _: DevicePtr, _: &[u8]) -> Result<()> {
            Err(self.0.error("upload", "the link is down"))
        }
        fn download(&self, src: DevicePtr, dst: &mut [u8]) -> Result<()> {
            self.0.download(src, dst)
        }
        fn copy(&self, src: DevicePtr, dst: DevicePtr, bytes: usize) -> Result<()> {
            self.0.copy(src, dst, bytes)
        }
        fn launch(
            &self,
            kernel: &Kernel,
            grid: [u32; 3],
            block: [u32; 3],
            shared: u32,
            args: &[Arg],
        ) -> Result<()> {
            self.0.launch(kernel, grid, block, shared, args)
        }
        fn synchronize(&self) -> Result<()> {
            self.0.synchronize()
        }
        fn info(&self) -> Info {
            self.0.info()
        }
    }

    let driver = Arc::new(Full::default());
    let x = Tensor::zeros(&[4], DType::F32, &Device::Cpu).unwrap();
    let error = x.to_device(&Device::Gpu(driver.clone())).unwrap_err();
    says(&error, &["memory", "upload", "the link is down"]);
    assert_eq!(driver.0.live(), 0);
}

#[test]
fn misuse_of_memory_is_an_error() {
    let driver = Memory::default();
    let pointer = driver.alloc(16).unwrap();
    driver.upload(pointer, &[1; 16]).unwrap();
    says(
        &driver.upload(pointer.byte_offset(8), &[1; 9]).unwrap_err(),
        &["upload", "outside"],
    );
    says(&driver.free(pointer.byte_offset(8)).unwrap_err(), &["free"]);
    driver.free(pointer).unwrap();
    says(&driver.free(pointer).unwrap_err(), &["free", "live"]);
    says(&driver.upload(pointer, &[1]).unwrap_err(), &["upload"]);
    says(
        &driver.download(pointer, &mut [0]).unwrap_err(),
        &["download"],
    );
    says(
        &driver.copy(pointer, pointer, 1).unwrap_err(),
        &["download"],
    );
    says(&driver.alloc(0).unwrap_err(), &["alloc"]);
}

#[test]
fn a_launch_runs_the_kernel_on_the_tensors_memory() {
    let (driver, gpu) = device();
    let x = Tensor::from_vec(vec![1f32, 2.0, 3.0, 4.0, 5.0], &[5])
        .unwrap()
        .to_device(&gpu)
        .unwrap();
    let y = Tensor::zeros(&[5], DType::F32, &Device::Cpu)
        .unwrap()
        .to_device(&gpu)
        .unwrap();
    let args = [
        Arg::Ptr(x.device_ptr().unwrap()),
        Arg::Ptr(y.device_ptr().unwrap()),
        Arg::F32(2.0),
        Arg::U32(4),
    ];
    SCALE
        .launch(&*driver, [2, 1, 1], [3, 1, 1], 0, &args)
        .unwrap();
    driver.synchronize().unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [2.0, 4.0, 6.0, 8.0, 0.0]);
    let (a, b) = (x.device_ptr().unwrap(), y.device_ptr().unwrap());
    driver.copy(a, b, 20).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn declarations_hold_what_they_declare() {
    assert_eq!((SCALE.module(), SCALE.entry()), ("scale", "scale_f32"));
    let parameters: Vec<_> = SCALE
        .parameters()
        .iter()
        .map(|parameter| (parameter.name, parameter.kind))
        .collect();
    assert_eq!(
        parameters,
        [
            ("x", ArgKind::Ptr),
            ("y", ArgKind::Ptr),
            ("alpha", ArgKind::F32),
            ("n", ArgKind::U32)
        ]
    );
    assert_eq!(MISSING.parameters().len(), 2);
    assert!(NOTHING.parameters().is_empty());
    let shown = format!("{SCALE:?}");
    assert!(shown.contains("scale_f32") && !shown.contains(".version"));
}

#[test]
fn a_kernel_carries_the_text_that_a_driver_loads() {
    assert_eq!(SCALE.ptx(), include_str!("ptx/scale.ptx"));
    assert_eq!(entries(SCALE.ptx()), ["scale_f32", "nothing"]);
    let driver = Memory::default();
    let launch = |kernel: &Kernel| kernel.launch(&driver, [1; 3], [1; 3], 0, &[]);
    assert_eq!(launch(&NOTHING), Ok(()));
    // The same name over another text is another module.
    let other = Kernel::new(NOTHING.module(), ".version 7.0", NOTHING.entry(), &[]);
    says(
        &launch(&other).unwrap_err(),
        &["memory", "launch", "no kernel nothing in scale"],
    );
    assert_eq!(launch(&NOTHING), Ok(()));
    assert_eq!(driver.modules.lock().unwrap().len(), 2);
}

#[test]
fn arguments_that_are_not_the_declared_ones_never_reach_the_driver() {
    let driver = Memory::default();
    let pointer = Arg::Ptr(DevicePtr::new(256));
    let launch = |kernel: &Kernel, args: &[Arg]| {
        kernel.launch(&driver, [1; 3], [1; 3], 0, args).unwrap_err()
    };
    says(
        &launch(&SCALE, &[pointer, pointer, Arg::F32(1.0)]),
        &["scale_f32", "4 arguments", "3"],
    );
    let error = launch(&SCALE, &[pointer, pointer, Arg::U32(1), Arg::U32(1)]);
    says(&error, &["scale_f32", "argument 2", "alpha", "F32", "U32"]);
    assert!(matches!(
        error,
        Error::Launch {
            kernel: "scale_f32",
            ..
        }
    ));
    says(
        &launch(&MISSING, &[Arg::I32(-1), Arg::I32(1)]),
        &["missing", "bytes", "U64", "I32"],
    );
    says(
        &launch(&NOTHING, &[pointer]),
        &["nothing", "0 arguments", "1"],
    );
    assert_eq!(
        SCALE.check(&[pointer, pointer, Arg::F32(1.0), Arg::U32(1)]),
        Ok(())
    );
    // The right arguments reach it, and it does not know the kernel.
    says(
        &launch(&MISSING, &[Arg::I32(-1), Arg::U64(1)]),
        &["memory", "launch", "no kernel missing"],
    );
}

#[test]
fn an_empty_grid_or_block_is_an_error() {
    let driver = Memory::default();
    for (grid, block) in [([0, 1, 1], [1; 3]), ([1; 3], [1, 1, 0])] {
        says(
            &NOTHING.launch(&driver, grid, block, 0, &[]).unwrap_err(),
            &["nothing", "grid", "block", "0"],
        );
    }
}

/// The entries launched since this was last asked.
fn launched(memory: &Memory) -> String {
    std::mem::take(&mut *memory.launched.lock().unwrap()).join(" ")
}

/// A tensor of zeros that went to the device without a kernel.
fn uploaded(dtype: DType, shape: &[usize], device: &Device) -> Tensor {
    let x = Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    x.to_device(device).unwrap()
}

#[test]
fn operations_launch_the_kernels_of_their_name_and_type() {
    let (memory, gpu) = device();
    for (dtype, bits, piece) in [
        (DType::F32, "b32", "b128"),
        (DType::F16, "b16", "b32"),
        (DType::BF16, "b16", "b32"),
    ] {
        let on = |shape: &[usize]| uploaded(dtype, shape, &gpu);
        let (x, row, heads) = (on(&[4, 4]), on(&[4]), on(&[1, 2, 4]));
        let (swapped, two) = (x.transpose(0, 1).unwrap(), x.narrow(0, 0, 2).unwrap());
        let index = uploaded(DType::U32, &[2], &gpu);
        let graph = Csr::new(4, vec![0, 1], vec![0], None).unwrap();
        let results: [(&str, Result<Tensor>); 22] = [
            ("add_T", x.add(&x)),
            ("add_strided_T", x.add(&row)),
            ("silu_T", x.silu()),
            ("silu_mul_T", x.silu_mul(&x)),
            ("mul_scalar_T", x.mul_scalar(2.0)),
            ("transpose_B exp_T", swapped.exp()),
            ("transpose_B", swapped.contiguous()),
            ("softmax_T", x.softmax(1)),
            ("transpose_B log_softmax_T transpose_B", x.log_softmax(0)),
            ("rms_norm_T", x.rms_norm(&row, 1e-5)),
            ("layer_norm_T", x.layer_norm(&row, &row, 1e-5)),
            (
                "rope_interleaved_T",
                heads.rope(&[0], 1e4, Pairing::Interleaved),
            ),
            ("sum_rows_T", x.sum(1)),
            ("sum_columns_T", x.mean(0)),
            ("max_columns_T", x.max(0)),
            ("argmax_rows_T", x.argmax(1)),
            ("gather_P", x.gather(&index)),
            ("scatter_add_T", x.scatter_add(&index, &two)),
            ("spmm_ones_T", graph.spmm(&x)),
            ("copy_strided_B copy_strided_B", Tensor::cat(&[&x, &x], 1)),
            ("cast_T_u8", x.to_dtype(DType::U8)),
            ("fill_B", Tensor::full(&[3], 1.0, dtype, &gpu)),
        ];
        for (names, result) in &results {
            let result = result
                .as_ref()
                .unwrap_or_else(|error| panic!("{names}: {error}"));
            assert_eq!(result.device(), &gpu, "{names}");
            assert!(result.layout().is_contiguous(), "{names}");
        }
        let expected = results.map(|(names, _)| names).join(" ");
        let expected = expected
            .replace("_T", &format!("_{dtype}"))
            .replace("_B", &format!("_{bits}"))
            .replace("_P", &format!("_{piece}"));
        assert_eq!(launched(&memory), expected);
    }
    assert_eq!(memory.live(), 0);
}

#[test]
fn a_product_takes_the_kernel_of_its_shape_layout_and_device() {
    let (memory, gpu) = device();
    let (newer, newer_gpu) = newer_device();
    for (memory, gpu, halves) in [(&memory, &gpu, "gemm"), (&newer, &newer_gpu, "gemm_mma")] {
        for (dtype, gemm) in [
            (DType::F32, "gemm"),
            (DType::F16, halves),
            (DType::BF16, halves),
        ] {
            let on = |shape: &[usize]| uploaded(dtype, shape, gpu);
            let (x, w, vector) = (on(&[16, 8]), on(&[24, 8]), on(&[8]));
            let (wt, odd) = (w.transpose(0, 1).unwrap(), on(&[8, 3]));
            let batch = on(&[2, 3, 16, 8]);
            let results = [
                // A linear layer, of one token and of many.
                (format!("gemv_{dtype}"), w.matvec(&vector)),
                (
                    format!("gemv_{dtype}"),
                    x.narrow(0, 3, 1).unwrap().matmul(&wt),
                ),
                (format!("{gemm}_{dtype}_nk"), x.matmul(&wt)),
                (
                    format!("{gemm}_{dtype}_kn"),
                    x.matmul(&wt.contiguous().unwrap()),
                ),
                // Rows of three halves do not lie on 16 bytes.
                (format!("gemm_{dtype}_kn"), x.matmul(&odd)),
                (
                    format!("gemv_{dtype}"),
                    x.matmul(&odd.narrow(1, 0, 1).unwrap().contiguous().unwrap()),
                ),
                // Batches, one side broadcast, and outer dimensions in another order.
                (format!("{gemm}_{dtype}_nk"), batch.matmul(&wt)),
                (
                    format!("{gemm}_{dtype}_nk"),
                    batch.permute(&[1, 0, 2, 3]).unwrap().matmul(&wt),
                ),
            ];
            let mut expected = String::new();
            for (at, (name, result)) in results.into_iter().enumerate() {
                let result = result.unwrap();
                assert!(result.layout().is_contiguous() && result.device() == gpu);
                let copies: &[&str] = match (at, dtype) {
                    (3, DType::F32) | (5, DType::F32) | (7, DType::F32) => &["b32"],
                    (3 | 5 | 7, _) => &["b16"],
                    _ => &[],
                };
                for bits in copies {
                    let copy = if at == 3 { "transpose" } else { "copy_strided" };
                    expected += &format!("{copy}_{bits} ");
                }
                expected += &format!("{name} ");
            }
            assert_eq!(launched(memory), expected.trim_end());
        }
    }
}

#[test]
fn an_operation_without_a_kernel_is_an_error_that_names_operation_type_and_device() {
    let (memory, gpu) = device();
    let x = uploaded(DType::F16, &[4, 4], &gpu);
    let index = uploaded(DType::U32, &[2], &gpu);
    for (op, result) in [
        ("arg_sort", x.arg_sort(0, Order::Ascending)),
        ("top_k", x.top_k(1).map(|(values, _)| values)),
        ("as_slice", x.as_slice::<half::f16>().map(|_| x.clone())),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(error, Error::Device { op: found, .. } if found == op),
            "{error}"
        );
        says(&error, &[op, "f16", "memory"]);
    }
    // Operands on two devices.
    let here = Tensor::zeros(&[4, 4], DType::F16, &Device::Cpu).unwrap();
    says(&here.add(&x).unwrap_err(), &["add", "cpu", "memory"]);
    says(&here.matmul(&x).unwrap_err(), &["matmul", "cpu", "memory"]);
    says(&here.gather(&index).unwrap_err(), &["gather", "memory"]);
    assert_eq!(launched(&memory), "");
}

#[test]
fn operands_are_checked_before_anything_is_launched() {
    let (memory, gpu) = device();
    let x = uploaded(DType::F32, &[4, 4], &gpu);
    let index = uploaded(DType::U32, &[1], &gpu);
    // What the CPU says of the same operands.
    let alike = |there: Result<Tensor>, here: Result<Tensor>| {
        assert_eq!(there.unwrap_err(), here.unwrap_err());
    };
    let y = Tensor::zeros(&[4, 4], DType::F32, &Device::Cpu).unwrap();
    let (rows, here) = (x.narrow(0, 0, 3).unwrap(), y.narrow(0, 0, 3).unwrap());
    let row = |x: &Tensor| x.reshape(&[16]).unwrap();
    alike(x.add(&rows), y.add(&here));
    alike(x.matmul(&rows), y.matmul(&here));
    alike(x.matmul(&row(&x)), y.matmul(&row(&y)));
    alike(x.softmax(2), y.softmax(2));
    alike(x.rms_norm(&row(&x), 1e-5), y.rms_norm(&row(&y), 1e-5));
    alike(
        x.rope(&[0], 1e4, Pairing::HalfSplit),
        y.rope(&[0], 1e4, Pairing::HalfSplit),
    );
    alike(x.sum(2), y.sum(2));
    alike(
        Tensor::cat(&[&x, &row(&x)], 0),
        Tensor::cat(&[&y, &row(&y)], 0),
    );
    alike(x.gather(&x), y.gather(&y));
    says(&index.add(&index).unwrap_err(), &["add", "u32"]);
    // An index on the device is read back to be checked.
    let beyond = Tensor::from_vec(vec![4u32], &[1]).unwrap();
    alike(
        x.gather(&beyond.to_device(&gpu).unwrap()),
        y.gather(&beyond),
    );
    assert_eq!(launched(&memory), "");
}

#[test]
fn f64_stays_on_the_cpu_and_devices_are_told_apart() {
    let (_, gpu) = device();
    let (_, other) = device();
    says(
        &Tensor::zeros(&[1], DType::F64, &gpu).unwrap_err(),
        &["zeros", "f64"],
    );
    assert_ne!(gpu, other);
    assert_ne!(gpu, Device::Cpu);
    let x = Tensor::from_vec(vec![1u8, 2], &[2])
        .unwrap()
        .to_device(&gpu)
        .unwrap();
    assert!(x.to_device(&gpu).unwrap().shares_storage(&x));
    let moved = x.to_device(&other).unwrap();
    assert_eq!(
        (moved.device(), moved.to_vec::<u8>().unwrap()),
        (&other, vec![1, 2])
    );
}
