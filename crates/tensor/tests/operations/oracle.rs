//! Tensors with awkward layouts, the same as f64 arrays, and comparison within a tolerance that has a reason.

use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{DType, Device, Element, Tensor};

/// The float types.
pub const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

/// All types.
pub const ALL: [DType; 8] = [
    DType::F64,
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::U32,
    DType::I32,
    DType::U8,
    DType::I8,
];

/// A size that loops over vector registers get wrong first.
pub fn size() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![
        0usize, 1, 2, 3, 5, 7, 8, 13, 15, 16, 17, 31, 33, 63, 64, 65,
    ])
}

/// A shape of the given ranks with at most a few thousand elements.
pub fn shape(ranks: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(size(), ranks).prop_map(|mut shape| {
        // Keep what is drawn but cut outer dimensions where the product grows beyond a test's patience.
        let mut len = 1;
        for size in shape.iter_mut().rev() {
            if len * *size > 5000 {
                *size = (*size).min(3);
            }
            len *= (*size).max(1);
        }
        shape
    })
}

/// Unit of rounding: the greatest relative error of one rounding to the type.
pub fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 2f64.powi(-53),
        DType::F32 => 2f64.powi(-24),
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 0.0,
    }
}

/// Normal numbers of `shape` in a layout drawn by the seed: dimensions in any order in memory, sliced out of larger ones, some of
/// them broadcast.
pub fn strided(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    let mut random = Philox4x32::new(seed, 99);
    let rank = shape.len();
    let mut order: Vec<usize> = (0..rank).collect();
    for i in (1..rank).rev() {
        order.swap(i, random.next_u32() as usize % (i + 1));
    }
    let kinds: Vec<u32> = (0..rank).map(|_| random.next_u32() % 5).collect();
    let starts: Vec<usize> = (0..rank).map(|_| random.next_u32() as usize % 3).collect();
    // Every other tensor is plainly contiguous.
    let plain = random.next_u32().is_multiple_of(2);
    let stored: Vec<usize> = order
        .iter()
        .map(|&dim| match (plain, kinds[dim]) {
            (false, 0) => 1,
            (false, 1 | 2) => shape[dim] + starts[dim] + 1,
            _ => shape[dim],
        })
        .collect();
    let numbers = Tensor::randn(&stored, seed, 0, &Device::Cpu)
        .unwrap()
        .mul_scalar(2.0)
        .unwrap();
    let mut tensor = numbers.to_dtype(dtype).unwrap();
    if plain {
        return tensor.reshape(shape).unwrap();
    }
    for (at, &dim) in order.iter().enumerate() {
        if matches!(kinds[dim], 1 | 2) {
            tensor = tensor.narrow(at, starts[dim], shape[dim]).unwrap();
        }
    }
    let mut back = vec![0; rank];
    order
        .iter()
        .enumerate()
        .for_each(|(at, &dim)| back[dim] = at);
    tensor.permute(&back).unwrap().broadcast_to(shape).unwrap()
}

/// The elements as f64, each exactly.
pub fn array(tensor: &Tensor) -> ArrayD<f64> {
    fn values<T: Element>(tensor: &Tensor) -> Vec<f64> {
        tensor
            .to_vec::<T>()
            .unwrap()
            .into_iter()
            .map(T::to_double)
            .collect()
    }
    let values = match tensor.dtype() {
        DType::F64 => values::<f64>(tensor),
        DType::F32 => values::<f32>(tensor),
        DType::F16 => values::<half::f16>(tensor),
        DType::BF16 => values::<half::bf16>(tensor),
        DType::U32 => values::<u32>(tensor),
        DType::I32 => values::<i32>(tensor),
        DType::U8 => values::<u8>(tensor),
        DType::I8 => values::<i8>(tensor),
    };
    ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).unwrap()
}

/// How far a result may be from the oracle: `relative · |expected| + absolute`.
pub struct Tol {
    relative: f64,
    absolute: f64,
    reason: &'static str,
}

impl Tol {
    /// Not at all.
    pub const EXACT: Self = Self {
        relative: 0.0,
        absolute: 0.0,
        reason: "no rounding",
    };

    /// `count` roundings to `dtype`, of results and of intermediate values of the same size.
    pub fn roundings(count: f64, dtype: DType) -> Self {
        // Halves below 2^-14 are denormal in f16: their error is absolute.
        let absolute = if dtype == DType::F16 {
            2f64.powi(-25)
        } else {
            0.0
        };
        Self {
            relative: count * epsilon(dtype),
            absolute,
            reason: "",
        }
    }

    /// An absolute error on top.
    pub fn plus(self, absolute: f64) -> Self {
        Self {
            absolute: self.absolute + absolute,
            ..self
        }
    }

    /// Why this is what the computation may be off.
    pub fn because(self, reason: &'static str) -> Self {
        Self { reason, ..self }
    }

    /// Whether one value is as near as it has to be. Two NaN are.
    pub fn admits(&self, found: f64, expected: f64) -> bool {
        found == expected
            || (found.is_nan() && expected.is_nan())
            || (found - expected).abs() <= self.relative * expected.abs() + self.absolute
    }
}

/// Compares shape and every element.
pub fn assert_close(found: &Tensor, expected: &ArrayD<f64>, tol: &Tol) {
    assert_eq!(found.shape(), expected.shape());
    for ((at, &expected), &found) in expected.indexed_iter().zip(&array(found)) {
        assert!(
            tol.admits(found, expected),
            "at {at:?}: {found:e} for {expected:e} ({})",
            tol.reason
        );
    }
}

/// Asserts that a result is an error whose message has all the parts.
pub fn assert_error<T: std::fmt::Debug>(result: whittle_tensor::Result<T>, parts: &[&str]) {
    let message = result.unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}
