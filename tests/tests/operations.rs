//! Every tensor operation on the virtual machine against the same operation on the CPU: views of all kinds, all dtypes, awkward
//! sizes, and the same errors. What kernels compute is judged elsewhere; this judges how operations reach them.

use whittle_ptx_vm::Limits;
use whittle_tensor::{Csr, DType, Device, Driver, Pairing, Result, Tensor};
use whittle_tests::parity::gpu;

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const INTEGERS: [DType; 4] = [DType::U32, DType::I32, DType::U8, DType::I8];

const SHAPES: [&[usize]; 9] = [
    &[1],
    &[7],
    &[4, 64],
    &[33, 5],
    &[2, 3, 17],
    &[2, 3, 4, 5],
    &[3, 1, 2, 1, 4],
    &[0, 5],
    &[5, 0],
];

fn devices(test: &str) -> Vec<Device> {
    let vm = Device::Gpu(whittle_ptx_vm::open(Limits::checked(80)));
    std::iter::once(vm).chain(gpu(test)).collect()
}

/// Normal numbers, or whole ones from -5 or 0 on.
fn numbers(shape: &[usize], dtype: DType, stream: u64) -> Tensor {
    let x = Tensor::randn(shape, 5, stream, &Device::Cpu).unwrap();
    if dtype.is_float() {
        return x.to_dtype(dtype).unwrap();
    }
    let values = x.to_vec::<f32>().unwrap();
    let least = if matches!(dtype, DType::I32 | DType::I8) {
        -5.0
    } else {
        0.0
    };
    let whole = values
        .iter()
        .map(|x| (x * 4.0).round().clamp(least, 9.0))
        .collect();
    Tensor::from_vec::<f32>(whole, shape)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

/// Tensors of one shape in different layouts: contiguous, with two dimensions swapped, cut out of a larger one, broadcast.
fn layouts(shape: &[usize], dtype: DType, stream: u64) -> Vec<Tensor> {
    let mut layouts = vec![numbers(shape, dtype, stream)];
    let last = shape.len() - 1;
    if last > 0 {
        for (a, b) in [(last - 1, last), (0, last)] {
            let mut swapped = shape.to_vec();
            swapped.swap(a, b);
            layouts.push(numbers(&swapped, dtype, stream).transpose(a, b).unwrap());
        }
    }
    for dim in [0, last] {
        let mut larger = shape.to_vec();
        larger[dim] += 3;
        let larger = numbers(&larger, dtype, stream);
        layouts.push(larger.narrow(dim, 2, shape[dim]).unwrap());
    }
    let mut row = shape.to_vec();
    row[0] = 1;
    layouts.push(numbers(&row, dtype, stream).broadcast_to(shape).unwrap());
    layouts
}

/// How far a device may be from the CPU, relative to 1 or to the result: approximate functions, sums in another order, and the last
/// place of the type.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2e-5,
        DType::F16 => 2f64.powi(-9),
        DType::BF16 => 2f64.powi(-6),
        _ => 0.0,
    }
}

fn wide(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

/// Runs an operation on the CPU and on a device, which have to give the same shape and nearly the same numbers, or the same error.
#[track_caller]
fn alike(
    what: &str,
    device: &Device,
    operands: &[&Tensor],
    operation: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let here: Vec<Tensor> = operands.iter().map(|&x| x.clone()).collect();
    let there: Vec<Tensor> = operands.iter().map(|x| there(x, device)).collect();
    let context = format!("{what} of {operands:?}");
    let (found, expected) = match (operation(&there), operation(&here)) {
        (Ok(found), Ok(expected)) => (found, expected),
        (Err(found), Err(expected)) => return assert_eq!(found, expected, "{context}"),
        (found, expected) => panic!("{context}: {found:?}, not {expected:?}"),
    };
    assert_eq!(found.device(), device, "{context}");
    assert_eq!(
        (found.shape(), found.dtype()),
        (expected.shape(), expected.dtype()),
        "{context}"
    );
    let tolerance = tolerance(found.dtype());
    let found = wide(&found.to_device(&Device::Cpu).unwrap());
    for (i, (found, expected)) in found.into_iter().zip(wide(&expected)).enumerate() {
        let is_near = (found - expected).abs() <= tolerance * expected.abs().max(1.0);
        let is_same = found == expected || found.is_nan() && expected.is_nan();
        assert!(
            is_near || is_same,
            "{context}: element {i} is {found}, not {expected}"
        );
    }
}

/// The same view of the same storage on a device: the storage is uploaded whole, then viewed.
fn there(x: &Tensor, device: &Device) -> Tensor {
    // Contiguous tensors go as they are. Others are made there of a contiguous one in the order of their strides.
    let layout = x.layout();
    if layout.is_contiguous() {
        return x.to_device(device).unwrap();
    }
    let mut dims: Vec<usize> = (0..x.rank()).collect();
    dims.sort_by_key(|&dim| std::cmp::Reverse(layout.stride()[dim]));
    let mut sizes: Vec<usize> = dims.iter().map(|&dim| x.shape()[dim]).collect();
    let mut ordered = x.permute(&dims).unwrap();
    for (at, &dim) in dims.iter().enumerate() {
        if layout.stride()[dim] == 0 && sizes[at] > 0 {
            sizes[at] = 1;
            ordered = ordered.narrow(at, 0, 1).unwrap();
        }
    }
    // A margin keeps a view that was cut out one with gaps.
    let margin = Tensor::cat(&[&ordered, &ordered], dims.len() - 1).unwrap();
    let len = sizes[dims.len() - 1];
    let uploaded = margin.to_device(device).unwrap();
    let cut = uploaded.narrow(dims.len() - 1, len, len).unwrap();
    let shape: Vec<usize> = dims.iter().map(|&dim| x.shape()[dim]).collect();
    let mut back = vec![0; dims.len()];
    for (at, &dim) in dims.iter().enumerate() {
        back[dim] = at;
    }
    cut.broadcast_to(&shape).unwrap().permute(&back).unwrap()
}

#[test]
fn operations_on_one_tensor() {
    type Unary = (&'static str, fn(&Tensor) -> Result<Tensor>);
    let operations: [Unary; 17] = [
        ("add_scalar", |x| x.add_scalar(0.3)),
        ("mul_scalar", |x| x.mul_scalar(-1.7)),
        ("neg", Tensor::neg),
        ("exp", Tensor::exp),
        ("ln", |x| x.exp()?.ln()),
        ("sqrt", |x| x.exp()?.sqrt()),
        ("tanh", Tensor::tanh),
        ("sigmoid", Tensor::sigmoid),
        ("silu", Tensor::silu),
        ("relu", Tensor::relu),
        ("gelu_erf", Tensor::gelu_erf),
        ("gelu_tanh", Tensor::gelu_tanh),
        ("contiguous", Tensor::contiguous),
        ("cat", |x| Tensor::cat(&[x, &x.exp()?], 0)),
        ("cat at the end", |x| Tensor::cat(&[x, x, x], x.rank() - 1)),
        ("reshape", |x| x.reshape(&[x.len()])),
        ("unsqueeze", |x| x.unsqueeze(0)?.contiguous()),
    ];
    for device in devices("operations_on_one_tensor") {
        for dtype in FLOATS {
            for (shape, x) in SHAPES.iter().flat_map(|shape| {
                let layouts = layouts(shape, dtype, 1);
                layouts.into_iter().map(move |x| (shape, x))
            }) {
                for (name, operation) in operations {
                    alike(&format!("{name} {shape:?}"), &device, &[&x], |x| {
                        operation(&x[0])
                    });
                }
            }
        }
        for dtype in INTEGERS {
            for x in layouts(&[3, 5, 4], dtype, 2) {
                alike("contiguous", &device, &[&x], |x| x[0].contiguous());
                alike("exp", &device, &[&x], |x| x[0].exp());
            }
        }
    }
}

#[test]
fn conversions_between_all_types() {
    for device in devices("conversions_between_all_types") {
        let types = || FLOATS.into_iter().chain(INTEGERS);
        for (from, to) in types().flat_map(|from| types().map(move |to| (from, to))) {
            for x in layouts(&[3, 37], from, 3) {
                // The CPU converts negative numbers to unsigned ones by saturation, and so do kernels.
                alike(&format!("to {to}"), &device, &[&x], |x| x[0].to_dtype(to));
            }
        }
    }
}

#[test]
fn operations_on_two_tensors() {
    type Binary = (&'static str, fn(&Tensor, &Tensor) -> Result<Tensor>);
    let operations: [Binary; 5] = [
        ("add", Tensor::add),
        ("sub", Tensor::sub),
        ("mul", Tensor::mul),
        ("div", |x, y| x.div(&y.exp()?)),
        ("silu_mul", Tensor::silu_mul),
    ];
    for device in devices("operations_on_two_tensors") {
        for dtype in FLOATS {
            for shape in SHAPES {
                let last = shape[shape.len() - 1];
                let mut others = layouts(shape, dtype, 5);
                others.push(numbers(&[last], dtype, 6));
                others.push(numbers(&[shape[0], 1], dtype, 6).narrow(1, 0, 1).unwrap());
                others.push(numbers(&[2, 9], dtype, 6));
                for x in layouts(shape, dtype, 4) {
                    for y in &others {
                        for (name, operation) in operations {
                            alike(name, &device, &[&x, y], |x| operation(&x[0], &x[1]));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn operations_on_rows_and_reductions() {
    for device in devices("operations_on_rows_and_reductions") {
        for dtype in FLOATS.into_iter().chain(INTEGERS) {
            for (shape, x) in SHAPES.iter().flat_map(|shape| {
                let layouts = layouts(shape, dtype, 7);
                layouts.into_iter().map(move |x| (shape, x))
            }) {
                for dim in 0..=shape.len() {
                    alike("softmax", &device, &[&x], |x| x[0].softmax(dim));
                    alike("log_softmax", &device, &[&x], |x| x[0].log_softmax(dim));
                    alike("sum", &device, &[&x], |x| x[0].sum(dim));
                    alike("mean", &device, &[&x], |x| x[0].mean(dim));
                    alike("max", &device, &[&x], |x| x[0].max(dim));
                    alike("min", &device, &[&x], |x| x[0].min(dim));
                    alike("argmax", &device, &[&x], |x| x[0].argmax(dim));
                }
                let len = shape[shape.len() - 1];
                let w = numbers(&[len], dtype, 8);
                let b = numbers(&[2 * len], dtype, 9).narrow(0, len, len).unwrap();
                alike("rms_norm", &device, &[&x, &w], |x| {
                    x[0].rms_norm(&x[1], 1e-5)
                });
                alike("layer_norm", &device, &[&x, &w, &b], |x| {
                    x[0].layer_norm(&x[1], &x[2], 1e-5)
                });
            }
        }
    }
}

#[test]
fn rotary_embedding() {
    for device in devices("rotary_embedding") {
        for dtype in FLOATS {
            for shape in [[5, 3, 8], [1, 4, 64], [3, 1, 2], [0, 2, 4], [2, 2, 3]] {
                let positions: Vec<u32> = (0..shape[0] as u32).map(|i| 1000 * i + 3).collect();
                for x in layouts(&shape, dtype, 10) {
                    for pairing in [Pairing::Interleaved, Pairing::HalfSplit] {
                        alike("rope", &device, &[&x], |x| {
                            x[0].rope(&positions, 1e4, pairing)
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn rows_by_index_and_sparse_products() {
    for device in devices("rows_by_index_and_sparse_products") {
        let index = |values: &[u32]| Tensor::from_vec(values.to_vec(), &[values.len()]).unwrap();
        for dtype in FLOATS.into_iter().chain(INTEGERS) {
            for shape in [&[6][..], &[6, 5], &[6, 16], &[6, 2, 3]] {
                for x in layouts(shape, dtype, 11) {
                    for index in [index(&[5, 0, 5, 2]), index(&[]), index(&[6])] {
                        alike("gather", &device, &[&x, &index], |x| x[0].gather(&x[1]));
                        // The index may also be on the host.
                        alike("gather", &device, &[&x], |x| x[0].gather(&index));
                        let rows = [&[index.len()], &shape[1..]].concat();
                        let rows = numbers(&rows, dtype, 12);
                        alike("scatter_add", &device, &[&x, &index, &rows], |x| {
                            x[0].scatter_add(&x[1], &x[2])
                        });
                    }
                }
            }
        }
        let (indptr, columns) = (vec![0, 2, 2, 5], vec![3, 0, 1, 1, 5]);
        let values = vec![0.5, -1.0, 2.0, 3.0, 0.25];
        for values in [None, Some(values)] {
            let graph = Csr::new(6, indptr.clone(), columns.clone(), values).unwrap();
            for dtype in FLOATS.into_iter().chain([DType::U32]) {
                for shape in [[6, 1], [6, 33], [6, 0], [5, 4]] {
                    for x in layouts(&shape, dtype, 13) {
                        alike("spmm", &device, &[&x], |x| graph.spmm(&x[0]));
                    }
                }
            }
        }
    }
}

#[test]
fn matrix_products() {
    // Left and right shapes: vectors, tiles with and without edges, batches, broadcast on either side, and what does not fit.
    let shapes: [(&[usize], &[usize]); 14] = [
        (&[1, 8], &[8, 24]),
        (&[1, 37], &[37, 5]),
        (&[70, 24], &[24, 1]),
        (&[16, 8], &[8, 136]),
        (&[65, 33], &[33, 17]),
        (&[3, 0], &[0, 4]),
        (&[0, 3], &[3, 4]),
        (&[3, 4, 16], &[3, 16, 8]),
        (&[2, 3, 5, 7], &[7, 9]),
        (&[5, 8], &[2, 3, 8, 16]),
        (&[2, 1, 4, 8], &[1, 3, 8, 8]),
        (&[4, 8], &[9, 4]),
        (&[8], &[8, 8]),
        (&[2, 4, 8], &[3, 8, 4]),
    ];
    for device in devices("matrix_products") {
        for dtype in FLOATS.into_iter().chain([DType::I32]) {
            for (a, b) in shapes {
                for a in layouts(a, dtype, 14) {
                    for b in layouts(b, dtype, 15) {
                        // Sums of up to 37 products below 10.
                        let scaled = |x: &[Tensor]| x[0].matmul(&x[1])?.mul_scalar(1.0 / 16.0);
                        alike("matmul", &device, &[&a, &b], scaled);
                    }
                }
            }
            for w in layouts(&[19, 40], dtype, 16) {
                for x in layouts(&[40], dtype, 17) {
                    let scaled = |x: &[Tensor]| x[0].matvec(&x[1])?.mul_scalar(1.0 / 16.0);
                    alike("matvec", &device, &[&w, &x], scaled);
                }
            }
        }
    }
}

#[test]
fn new_tensors() {
    for device in devices("new_tensors") {
        for shape in SHAPES {
            for dtype in FLOATS.into_iter().chain(INTEGERS) {
                let same = |make: &dyn Fn(&Device) -> Result<Tensor>| {
                    let (found, expected) = (make(&device).unwrap(), make(&Device::Cpu).unwrap());
                    assert_eq!(found.device(), &device);
                    let found = found.to_device(&Device::Cpu).unwrap();
                    assert_eq!((found.shape(), found.dtype()), (expected.shape(), dtype));
                    assert_eq!(wide(&found), wide(&expected));
                };
                same(&|device| Tensor::zeros(shape, dtype, device));
                same(&|device| Tensor::full(shape, 2.5, dtype, device));
                if dtype == DType::F32 {
                    same(&|device| Tensor::rand(shape, 9, 1, device));
                }
            }
            let normal = |device| Tensor::randn(shape, 9, 1, device).unwrap();
            let found = normal(&device).to_device(&Device::Cpu).unwrap();
            let pairs = wide(&found).into_iter().zip(wide(&normal(&Device::Cpu)));
            pairs.for_each(|(found, expected)| assert!((found - expected).abs() < 1e-5));
        }
    }
}

#[test]
fn the_last_tensor_gives_its_memory_back() {
    let limits = Limits {
        memory_bytes: 1 << 20,
        ..Limits::checked(80)
    };
    let vm = whittle_ptx_vm::open(limits);
    let device = Device::Gpu(vm.clone());
    let x = numbers(&[64, 64], DType::F32, 1)
        .to_device(&device)
        .unwrap();
    // Far more than there is room for, were anything left behind.
    for _ in 0..200 {
        let y = x
            .transpose(0, 1)
            .unwrap()
            .matmul(&x)
            .unwrap()
            .softmax(0)
            .unwrap();
        x.add(&y).unwrap().sum(1).unwrap().to_vec::<f32>().unwrap();
    }
    drop(x);
    let all = vm.alloc((1 << 20) - 4096).unwrap();
    vm.free(all).unwrap();
}
