//! Matrix products: vectors, tiles, and tiles of the tensor cores.

use whittle_tensor::gpu::kernels;
use whittle_tensor::gpu::matmul::{MMA, Matrices, PLAIN, Tiles, gemm, gemv};
use whittle_tensor::kernel::Kernel;
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{DType, Driver};

use super::number::{FLOATS, Tol, U, close, decoded, normal, output, rounded, same, upload};
use super::{Body, Shape};

/// What the elements of the operands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// Small integers: every sum is exact, in whatever order it is taken.
    Integers,
    /// Normal numbers.
    Normal,
    /// Normal numbers of all magnitudes whose products cancel: the second half of each sum takes the first away again, and what is left
    /// is every rounding on the way.
    Cancelling,
    /// Powers of two whose products are too large for f32, while every sum of them with the one before is not: what rounds a product
    /// before it is added gets infinity.
    Huge,
    /// NaN in each row of the left operand, so that there is nothing else in the result.
    Nan,
}

impl Values {
    /// Which are told apart on a type. Products of f16 are exact in f32 and never too large.
    fn of(dtype: DType) -> &'static [Self] {
        match dtype {
            DType::BF16 => &[
                Self::Integers,
                Self::Normal,
                Self::Cancelling,
                Self::Huge,
                Self::Nan,
            ],
            _ => &[Self::Integers, Self::Normal, Self::Cancelling],
        }
    }
}

/// Rows of `cols` numbers. `is_left` tells the operand that changes its sign, and those of huge numbers are one chain.
fn values(
    kind: Values,
    dtype: DType,
    [rows, cols]: [usize; 2],
    stream: u64,
    is_left: bool,
) -> Vec<f32> {
    let len = rows * cols;
    match kind {
        Values::Normal => normal(dtype, len, stream),
        Values::Integers => {
            let mut random = Philox4x32::new(11, stream);
            let mut next = || (random.next_u32() % 7) as f32 - 3.0;
            (0..len).map(|_| next()).collect()
        }
        Values::Cancelling => {
            let scaled =
                |(i, x): (usize, f32)| rounded(dtype, x * 2f32.powi(5 - i as i32 * 5 % 13));
            let mut values: Vec<f32> = normal(DType::F32, len, stream)
                .into_iter()
                .enumerate()
                .map(scaled)
                .collect();
            let half = cols / 2;
            for row in values.chunks_exact_mut(cols.max(1)) {
                for i in 0..half {
                    row[half + i] = if is_left { -row[i] } else { row[i] };
                }
                if cols % 2 == 1 {
                    row[cols - 1] = 0.0;
                }
            }
            values
        }
        Values::Nan => {
            let mut values = normal(dtype, len, stream);
            if is_left {
                let firsts = values.iter_mut().step_by(cols.max(1));
                firsts.for_each(|x| *x = f32::NAN);
            }
            values
        }
        Values::Huge if is_left => (0..rows).flat_map(|_| (0..cols).map(huge)).collect(),
        Values::Huge => vec![2f32.powi(64); len],
    }
}

/// Factor `at` of a chain of products with 2^64: the sums are -2^127, 2^127, -2^127 and so on, the products but the first twice as large.
fn huge(at: usize) -> f32 {
    match at {
        0 => -2f32.powi(63),
        _ if at % 2 == 1 => 2f32.powi(64),
        _ => -2f32.powi(64),
    }
}

/// Rows of a matrix in memory, `stride` elements apart, NaN between them and nothing behind the last.
fn spread(rows: &[f32], cols: usize, stride: usize) -> Vec<f32> {
    if cols == 0 {
        return Vec::new();
    }
    let mut memory = Vec::new();
    for row in rows.chunks_exact(cols) {
        memory.resize(memory.len().next_multiple_of(stride), f32::NAN);
        memory.extend(row);
    }
    memory
}

/// Compares one result with the exact one and, where the order of additions is known, with the kernel's own.
#[allow(clippy::too_many_arguments)]
fn judge(
    context: &dyn Fn() -> String,
    dtype: DType,
    kind: Values,
    found: f32,
    a: &[f32],
    b: &[f32],
    twin: Option<f32>,
    per_product: f64,
) {
    let products = || a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    // A sum from -0.0, as that of the standard library, would be -0.0 of nothing.
    let expected = products().fold(0.0, |sum, product| sum + product);
    let magnitude: f64 = products().map(f64::abs).sum();
    if kind == Values::Integers {
        return same(context, found, rounded(dtype, expected as f32));
    }
    if let Some(twin) = twin {
        same(context, found, rounded(dtype, twin));
    }
    if kind == Values::Nan {
        return assert_eq!(found.is_nan(), !a.is_empty(), "{}: {found}", context());
    }
    if kind == Values::Huge {
        return assert!(found.is_finite(), "{}: {found}", context());
    }
    let error = a.len() as f64 * per_product * magnitude;
    let tol = Tol::of(error, "a rounding for each product of a sum");
    close(
        context,
        dtype,
        found,
        expected,
        tol.rounded_to(dtype, expected),
    );
}

/// A product with a vector.
#[derive(Clone, Copy, Debug)]
struct Vector {
    n: usize,
    k: usize,
    /// Elements between rows.
    gap: usize,
    /// Where matrix, vector and result begin, in elements from a place that is aligned to everything.
    shifts: [usize; 3],
}

impl Vector {
    const fn new(n: usize, k: usize, gap: usize, shifts: [usize; 3]) -> Self {
        Self { n, k, gap, shifts }
    }

    /// Whether matrix, vector and rows begin at multiples of 16 bytes.
    fn is_aligned(&self, dtype: DType) -> bool {
        let width = 16 / dtype.size_in_bytes();
        [self.shifts[0], self.shifts[1], self.k + self.gap]
            .iter()
            .all(|place| place % width == 0)
    }
}

/// Blocks with and without all their rows; vectors alone, tails alone, both, neither; more than one trip of each loop.
const VECTORS: [Vector; 16] = [
    Vector::new(1, 1, 0, [0, 0, 0]),
    Vector::new(3, 0, 8, [0, 0, 0]),
    Vector::new(4, 8, 0, [0, 0, 0]),
    Vector::new(5, 7, 1, [0, 0, 0]),
    Vector::new(6, 40, 0, [0, 0, 1]),
    Vector::new(2, 64, 0, [1, 0, 0]),
    Vector::new(2, 64, 0, [0, 2, 0]),
    Vector::new(2, 64, 4, [0, 0, 0]),
    Vector::new(7, 131, 5, [0, 0, 0]),
    Vector::new(8, 512, 0, [0, 0, 3]),
    Vector::new(3, 1031, 1, [0, 0, 0]),
    Vector::new(1, 2055, 1, [0, 0, 0]),
    Vector::new(13, 1024, 8, [8, 8, 0]),
    Vector::new(1, 300, 1, [3, 0, 0]),
    Vector::new(23, 2048, 0, [0, 0, 0]),
    Vector::new(96, 384, 1, [0, 0, 0]),
];

/// The sum of a row as the four warps of a block add it up.
fn vector_twin(w: &[f32], x: &[f32], is_aligned: bool, width: usize) -> f32 {
    let k = x.len();
    let end = if is_aligned { k / width * width } else { 0 };
    let sums: Vec<f32> = (0..128)
        .map(|thread| {
            let vectors = (thread * width..end).step_by(128 * width);
            let order = vectors
                .flat_map(|i| i..i + width)
                .chain((end + thread..k).step_by(128));
            order.fold(0.0, |sum: f32, i| w[i].mul_add(x[i], sum))
        })
        .collect();
    let warps = sums.chunks_exact(32).map(|lanes| {
        let butterfly = |lanes: Vec<f32>, distance: usize| {
            (0..32)
                .map(|lane| lanes[lane] + lanes[lane ^ distance])
                .collect()
        };
        [16, 8, 4, 2, 1].into_iter().fold(lanes.to_vec(), butterfly)[0]
    });
    warps.reduce(|sum, warp| sum + warp).unwrap_or(0.0)
}

fn check_vector(kernel: &Kernel, driver: &dyn Driver, dtype: DType) {
    for (at, case) in VECTORS.into_iter().enumerate() {
        for &kind in Values::of(dtype) {
            let Vector { n, k, gap, shifts } = case;
            let width = 16 / dtype.size_in_bytes();
            let stream = 2 * at as u64;
            let mut w = values(kind, dtype, [n, k], stream, true);
            if kind == Values::Huge {
                // Where all threads have as many products, each a chain of its own, and half of them with the other sign: the first
                // butterfly takes them together.
                let step = if case.is_aligned(dtype) { width } else { 1 };
                if k == 0 || k % (128 * step) != 0 {
                    continue;
                }
                for (i, w) in w.iter_mut().enumerate().map(|(at, w)| (at % k, w)) {
                    let (thread, at) = (i / step % 128, i / (128 * step) * step + i % step);
                    *w = if thread & 16 == 0 {
                        huge(at)
                    } else {
                        -huge(at)
                    };
                }
            }
            let x = values(kind, dtype, [1, k], stream + 1, false);
            let w_memory = upload(driver, dtype, &spread(&w, k, k + gap), shifts[0]);
            let x_memory = upload(driver, dtype, &x, shifts[1]);
            let y = output(driver, dtype, n, shifts[2]);
            let pointers = [w_memory.pointer(), x_memory.pointer(), y.pointer()];
            gemv(kernel, driver, pointers, [n, k], k + gap).unwrap();
            for (j, found) in decoded(dtype, &y.bytes()).into_iter().enumerate() {
                let row = &w[j * k..][..k];
                let twin = vector_twin(row, &x, case.is_aligned(dtype), width);
                let context = || format!("{} at [{j}] of {case:?}, {kind:?}", kernel.entry());
                judge(&context, dtype, kind, found, row, &x, Some(twin), U);
            }
        }
    }
}

/// Products of matrices.
#[derive(Clone, Copy, Debug)]
struct Product {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    /// Elements between rows of the operands.
    gaps: [usize; 2],
    /// Whether all products have one right operand.
    is_shared: bool,
}

impl Product {
    const fn new(batch: usize, [m, n, k]: [usize; 3], gaps: [usize; 2], is_shared: bool) -> Self {
        Self {
            batch,
            m,
            n,
            k,
            gaps,
            is_shared,
        }
    }

    /// The gaps that let every row of the operands begin at a multiple of 16 bytes, for a right operand with rows of `cols`.
    fn aligned(self, cols: usize) -> Self {
        let gap = |len: usize, gap: usize| (len + gap).next_multiple_of(8) - len;
        Self {
            gaps: [gap(self.k, self.gaps[0]), gap(cols, self.gaps[1])],
            ..self
        }
    }
}

/// Tiles that are whole and tiles that are not, on either side; k of no, one and several tiles, whole and not; results whose rows are
/// whole vectors and others.
const PRODUCTS: [Product; 11] = [
    // A whole tile first, which tells most kernels that are wrong.
    Product::new(1, [64, 64, 8], [0, 0], false),
    Product::new(1, [65, 65, 17], [3, 0], false),
    Product::new(1, [128, 128, 64], [0, 0], false),
    Product::new(1, [1, 1, 1], [0, 0], false),
    Product::new(1, [64, 64, 0], [8, 8], false),
    Product::new(2, [5, 7, 19], [1, 3], false),
    Product::new(3, [2, 4, 33], [0, 0], true),
    Product::new(1, [33, 68, 40], [0, 4], false),
    Product::new(1, [70, 132, 24], [0, 0], false),
    Product::new(1, [130, 136, 200], [0, 0], false),
    Product::new(1, [17, 40, 330], [2, 1], false),
];

/// Sizes at which each comparison with an edge is once equal, so that what reads or writes a row or column too many is found out:
/// results in vectors of 8 and one by one, and every place that a thread has in a tile.
fn edges(is_mma: bool) -> Vec<Product> {
    let case = |m, n, k| Product::new(1, [m, n, k], [1, 1], false);
    if is_mma {
        let rows = [1, 8, 16, 24, 32, 40, 48, 56];
        let columns = [1, 2, 8, 9, 10, 17, 18, 24, 25, 26];
        let rows = rows
            .into_iter()
            .flat_map(|m| [case(m, 7, 1), case(m, 8, 1)]);
        // Each piece of a tile that is loaded, in the first tile, the second, and a later one.
        let pieces = [[20, 40], [40, 70], [70, 100], [100, 20]]
            .into_iter()
            .zip(0..);
        let pieces =
            pieces.flat_map(|([m, n], i)| [0, 1, 2].map(|tile| case(m, n, 64 * tile + 16 * i + 4)));
        return rows
            .chain(columns.map(|n| case(128, n, 1)))
            .chain(pieces)
            .collect();
    }
    let mut edges = vec![case(16, 8, 1)];
    for i in 0..16 {
        // Each group of four rows or columns, each remainder in both halves of a tile; k of one tile, and of more, with every rest.
        let size = (4 * i + i % 4).max(3);
        let other = if i / 4 % 2 == 0 { 8 } else { 7 };
        edges.push(case(size, other, 17 + i));
        edges.push(case(64, size, 17 + i));
        edges.push(case(3, 5, 1 + i));
    }
    edges
}

fn check_products(kernel: &Kernel, driver: &dyn Driver, dtype: DType, is_mma: bool, is_nk: bool) {
    let check = |case, kind, stream| {
        check_product(kernel, driver, dtype, [is_mma, is_nk], case, kind, stream);
    };
    for (case, stream) in PRODUCTS.into_iter().zip(100..) {
        // What the tensor cores round is nobody's promise.
        let kinds = if is_mma {
            &Values::of(dtype)[..2]
        } else {
            Values::of(dtype)
        };
        kinds.iter().for_each(|&kind| check(case, kind, 2 * stream));
    }
    for (case, stream) in edges(is_mma).into_iter().zip(200..) {
        check(case, Values::Integers, 2 * stream);
    }
}

fn check_product(
    kernel: &Kernel,
    driver: &dyn Driver,
    dtype: DType,
    [is_mma, is_nk]: [bool; 2],
    case: Product,
    kind: Values,
    stream: u64,
) {
    let b_cols = if is_nk { case.k } else { case.n };
    let case = if is_mma { case.aligned(b_cols) } else { case };
    let Product {
        batch,
        m,
        n,
        k,
        gaps,
        ..
    } = case;
    let b_batch = if case.is_shared { 1 } else { batch };
    let a = values(kind, dtype, [batch * m, k], stream, true);
    // Column by column.
    let b = values(kind, dtype, [b_batch * n, k], stream + 1, false);
    let b_rows: Vec<f32> = if is_nk {
        b.clone()
    } else {
        let places = (0..b_batch * k * n).map(|at| (at / (k * n), at / n % k, at % n));
        places.map(|(z, l, j)| b[(z * n + j) * k + l]).collect()
    };
    let strides = [k + gaps[0], b_cols + gaps[1]];
    let a_memory = upload(driver, dtype, &spread(&a, k, strides[0]), 0);
    let b_memory = upload(driver, dtype, &spread(&b_rows, b_cols, strides[1]), 0);
    let c = output(driver, dtype, batch * m * n, 0);
    let bytes = dtype.size_in_bytes();
    let matrices = |first, stride, rows| Matrices {
        first,
        stride,
        batch_stride: rows * stride,
        bytes,
    };
    // Rows of the right operand from one product's to the next one's.
    let b_step = if case.is_shared {
        0
    } else {
        n * k / b_cols.max(1)
    };
    let operands = [
        matrices(a_memory.pointer(), strides[0], m),
        matrices(b_memory.pointer(), strides[1], b_step),
    ];
    gemm(
        kernel,
        driver,
        tiles(is_mma),
        operands,
        c.pointer(),
        [batch, m, n, k],
    )
    .unwrap();
    for (at, found) in decoded(dtype, &c.bytes()).into_iter().enumerate() {
        let (z, i, j) = (at / (m * n), at / n % m, at % n);
        let row = &a[(z * m + i) * k..][..k];
        let column = &b[(z % b_batch * n + j) * k..][..k];
        // One chain of fused multiply-adds; what the tensor cores do is nobody's promise.
        let chain = row.iter().zip(column);
        let chain = chain.fold(0.0, |sum: f32, (a, b)| a.mul_add(*b, sum));
        let context = || {
            format!(
                "{} at [{z}, {i}, {j}] of {case:?}, {kind:?}",
                kernel.entry()
            )
        };
        let (twin, per_product) = if is_mma {
            (None, 2.0 * U)
        } else {
            (Some(chain), U)
        };
        judge(&context, dtype, kind, found, row, column, twin, per_product);
    }
}

const fn tiles(is_mma: bool) -> Tiles {
    if is_mma { MMA } else { PLAIN }
}

/// The kernels of tiles: type, whether on tensor cores, whether the right operand's rows are columns of the product.
fn products() -> Vec<(&'static Kernel, DType, bool, bool)> {
    let mut products = Vec::new();
    for dtype in FLOATS {
        for is_mma in [false, true] {
            for (form, is_nk) in [("nk", true), ("kn", false)] {
                let family = if is_mma { "gemm_mma" } else { "gemm" };
                if let Some(kernel) = kernels::named(&format!("{family}_{dtype}_{form}")) {
                    products.push((kernel, dtype, is_mma, is_nk));
                }
            }
        }
    }
    products
}

pub(super) fn bodies() -> Vec<Body> {
    let vectors = FLOATS.map(|dtype| {
        let kernel = kernels::of("gemv", dtype).expect("gemv");
        Body::new(kernel, move |driver| check_vector(kernel, driver, dtype))
    });
    let products = products()
        .into_iter()
        .map(|(kernel, dtype, is_mma, is_nk)| {
            Body::new(kernel, move |driver| {
                check_products(kernel, driver, dtype, is_mma, is_nk);
            })
        });
    vectors.into_iter().chain(products).collect()
}

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for dtype in FLOATS {
        let kernel = kernels::of("gemv", dtype).expect("gemv");
        let bytes = dtype.size_in_bytes();
        for (n, k, has_floor) in [(256, 4096, true), (7, 131, false)] {
            let floor = n * k * bytes + n / 4 * (k * bytes + 32);
            let floor = has_floor.then_some(floor);
            shapes.push(Shape::new(
                kernel,
                format!("{n}x{k}"),
                n,
                floor,
                move |driver| {
                    let w = upload(driver, dtype, &vec![1.0; n * k], 0);
                    let x = upload(driver, dtype, &vec![1.0; k], 0);
                    let y = output(driver, dtype, n, 0);
                    let pointers = [w.pointer(), x.pointer(), y.pointer()];
                    gemv(kernel, driver, pointers, [n, k], k).unwrap();
                },
            ));
        }
    }
    for (kernel, dtype, is_mma, is_nk) in products() {
        let bytes = dtype.size_in_bytes();
        let side = tiles(is_mma).side as usize;
        for ([m, n, k], has_floor) in [([256usize, 256, 256], true), ([67, 40, 72], false)] {
            let tiles_mn = m.div_ceil(side) * n.div_ceil(side);
            let floor = tiles_mn * (2 * side * k + side * side) * bytes;
            let floor = has_floor.then_some(floor);
            shapes.push(Shape::new(
                kernel,
                format!("{m}x{n}x{k}"),
                m * n,
                floor,
                move |driver| {
                    let a = upload(driver, dtype, &vec![1.0; m * k], 0);
                    let b = upload(driver, dtype, &vec![1.0; n * k], 0);
                    let c = output(driver, dtype, m * n, 0);
                    let matrices = |first, stride| Matrices {
                        first,
                        stride,
                        batch_stride: 0,
                        bytes,
                    };
                    let operands = [
                        matrices(a.pointer(), k),
                        matrices(b.pointer(), if is_nk { k } else { n }),
                    ];
                    gemm(
                        kernel,
                        driver,
                        tiles(is_mma),
                        operands,
                        c.pointer(),
                        [1, m, n, k],
                    )
                    .unwrap();
                },
            ));
        }
    }
    shapes
}
