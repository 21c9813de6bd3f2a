//! Operations that treat each element by itself.

use crate::dtype::DType;
use crate::layout::{broadcast_shapes, check_len};
use crate::real::Real;
use crate::storage::zeroed;
use crate::walk::Walk;
use crate::{Device, Result, Tensor, erf, gpu, par, simd};

impl Tensor {
    /// `self + rhs`, broadcast to each other.
    ///
    /// # Errors
    /// Those of every two-operand operation: [`Error::Shape`](crate::Error::Shape) where the shapes don't broadcast,
    /// [`Error::DType`](crate::Error::DType) for integers or two types, [`Error::Device`](crate::Error::Device) for two devices,
    /// [`Error::Memory`](crate::Error::Memory); on a device whatever its driver says.
    pub fn add(&self, rhs: &Self) -> Result<Self> {
        self.binary("add", rhs, Binary::Add)
    }

    /// `self − rhs`, broadcast to each other.
    ///
    /// # Errors
    /// Those of [`add`](Self::add).
    pub fn sub(&self, rhs: &Self) -> Result<Self> {
        self.binary("sub", rhs, Binary::Sub)
    }

    /// `self · rhs` element by element, broadcast to each other.
    ///
    /// # Errors
    /// Those of [`add`](Self::add).
    pub fn mul(&self, rhs: &Self) -> Result<Self> {
        self.binary("mul", rhs, Binary::Mul)
    }

    /// `self / rhs` element by element, broadcast to each other.
    ///
    /// # Errors
    /// Those of [`add`](Self::add).
    pub fn div(&self, rhs: &Self) -> Result<Self> {
        self.binary("div", rhs, Binary::Div)
    }

    /// `silu(self) · rhs` element by element, broadcast to each other: the inner half of SwiGLU. One pass on a device.
    ///
    /// # Errors
    /// Those of [`add`](Self::add).
    pub fn silu_mul(&self, rhs: &Self) -> Result<Self> {
        const OP: &str = "silu_mul";
        self.check_float(OP)?;
        self.check_alike(OP, rhs)?;
        match self.device() {
            Device::Gpu(_) if self.shape() == rhs.shape() => {
                gpu::binary::binary(OP, &self.contiguous()?, &rhs.contiguous()?)
            }
            _ => self.silu()?.mul(rhs),
        }
    }

    /// `x + value`, with `value` rounded to the element type (f32 for halves).
    ///
    /// # Errors
    /// Those of every one-operand operation: [`Error::DType`](crate::Error::DType) for integers,
    /// [`Error::Memory`](crate::Error::Memory); on a device whatever its driver says.
    pub fn add_scalar(&self, value: f64) -> Result<Self> {
        self.with_scalar(
            "add_scalar",
            value,
            |x, value| x + value,
            |x, value| x + value,
        )
    }

    /// `x · value`, with `value` rounded to the element type (f32 for halves).
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn mul_scalar(&self, value: f64) -> Result<Self> {
        self.with_scalar(
            "mul_scalar",
            value,
            |x, value| x * value,
            |x, value| x * value,
        )
    }

    /// `−x`.
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn neg(&self) -> Result<Self> {
        self.unary("neg", |x, out| each(x, out, |x| -x), |x| -x)
    }

    /// `e^x`.
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn exp(&self) -> Result<Self> {
        self.unary("exp", simd::exp, f64::exp)
    }

    /// Natural logarithm; NaN below 0.
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn ln(&self) -> Result<Self> {
        self.unary("ln", |x, out| each(x, out, f32::ln), f64::ln)
    }

    /// Square root; NaN below 0.
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn sqrt(&self) -> Result<Self> {
        self.unary("sqrt", |x, out| each(x, out, f32::sqrt), f64::sqrt)
    }

    /// Hyperbolic tangent.
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn tanh(&self) -> Result<Self> {
        self.unary("tanh", simd::tanh, f64::tanh)
    }

    /// `1 / (1 + e^-x)`.
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn sigmoid(&self) -> Result<Self> {
        self.unary("sigmoid", simd::sigmoid, |x| 1.0 / (1.0 + (-x).exp()))
    }

    /// `x / (1 + e^-x)`, also called swish.
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn silu(&self) -> Result<Self> {
        self.unary("silu", simd::silu, |x| x / (1.0 + (-x).exp()))
    }

    /// `max(x, 0)`; NaN stays NaN.
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn relu(&self) -> Result<Self> {
        self.unary(
            "relu",
            |x, out| each(x, out, |x| if x < 0.0 { 0.0 } else { x }),
            |x| if x < 0.0 { 0.0 } else { x },
        )
    }

    /// `x · Φ(x)` with the normal distribution function Φ (Hendrycks and Gimpel, 2016).
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn gelu_erf(&self) -> Result<Self> {
        self.unary("gelu_erf", simd::gelu_erf, |x| x * erf::normal_cdf(x))
    }

    /// `½x(1 + tanh(√(2/π)(x + 0.044715x³)))`, the approximation of [`gelu_erf`](Self::gelu_erf) that GPT-2 was trained with.
    ///
    /// # Errors
    /// Those of [`add_scalar`](Self::add_scalar).
    pub fn gelu_tanh(&self) -> Result<Self> {
        self.unary("gelu_tanh", simd::gelu_tanh, |x| {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        })
    }

    fn with_scalar(
        &self,
        op: &'static str,
        value: f64,
        f32_value: impl Fn(f32, f32) -> f32 + Send + Sync,
        f64_value: impl Fn(f64, f64) -> f64 + Send + Sync,
    ) -> Result<Self> {
        if let Device::Gpu(_) = self.device() {
            self.check_float(op)?;
            return gpu::unary::unary(op, self, Some(value as f32));
        }
        let rounded = value as f32;
        self.unary(
            op,
            |x, out| each(x, out, |x| f32_value(x, rounded)),
            |x| f64_value(x, value),
        )
    }

    fn unary(
        &self,
        op: &'static str,
        f32_slice: impl Fn(&[f32], &mut [f32]) + Send + Sync,
        f64_value: impl Fn(f64) -> f64 + Send + Sync,
    ) -> Result<Self> {
        self.check_float(op)?;
        if let Device::Gpu(_) = self.device() {
            return gpu::unary::unary(op, self, None);
        }
        match self.dtype() {
            DType::F64 => {
                self.mapped_slices(op, |x: &[f64], out: &mut [f64]| each(x, out, &f64_value))
            }
            DType::F32 => self.mapped_slices(op, f32_slice),
            _ => self.through_f32(|wide| wide.mapped_slices(op, f32_slice)),
        }
    }

    fn mapped_slices<T: Real>(
        &self,
        op: &'static str,
        f: impl Fn(&[T], &mut [T]) + Send + Sync,
    ) -> Result<Self> {
        let x = self.contiguous()?;
        let x = x.contiguous_slice::<T>(op)?;
        let mut out = zeroed::<T>(op, x.len())?;
        par::pieces(&mut out, COST * x.len(), |start, out| {
            f(&x[start..start + out.len()], out)
        });
        Self::from_vec(out, self.shape())
    }

    fn binary(&self, op: &'static str, rhs: &Self, f: Binary) -> Result<Self> {
        self.check_float(op)?;
        self.check_alike(op, rhs)?;
        if let Device::Gpu(_) = self.device() {
            let shape = broadcast_shapes(op, self.shape(), rhs.shape())?;
            let a = self.layout().broadcast_for(op, &shape)?;
            let b = rhs.layout().broadcast_for(op, &shape)?;
            return gpu::binary::binary(op, &self.view(a), &rhs.view(b));
        }
        match self.dtype() {
            DType::F64 => self.combined::<f64>(op, rhs, f),
            DType::F32 => self.combined::<f32>(op, rhs, f),
            _ => self.through_f32(|wide| wide.combined::<f32>(op, &rhs.to_dtype(DType::F32)?, f)),
        }
    }

    fn combined<T: Real>(&self, op: &'static str, rhs: &Self, f: Binary) -> Result<Self> {
        let shape = broadcast_shapes(op, self.shape(), rhs.shape())?;
        let (a, b) = (self.buffer::<T>(op)?, rhs.buffer::<T>(op)?);
        let walk = Walk::new([
            &self.layout().broadcast_for(op, &shape)?,
            &rhs.layout().broadcast_for(op, &shape)?,
        ]);
        let mut out = zeroed::<T>(op, check_len(op, &shape)?)?;
        let len = out.len();
        let operands = Operands {
            a,
            b,
            steps: walk.steps(),
        };
        par::pieces(&mut out, len, |start, piece| {
            walk.segments(start, piece.len(), |range, at| {
                let out = &mut piece[range];
                match f {
                    Binary::Add => operands.combine(at, out, |a, b| a + b),
                    Binary::Sub => operands.combine(at, out, |a, b| a - b),
                    Binary::Mul => operands.combine(at, out, |a, b| a * b),
                    Binary::Div => operands.combine(at, out, |a, b| a / b),
                }
            });
        });
        Self::from_vec(out, &shape)
    }
}

/// What a function of one element costs, in the simple operations of [`par`]: between a multiplication (1) and a logarithm (10).
const COST: usize = 2;

#[derive(Clone, Copy)]
enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

/// The buffers of two operands and the distances between their elements inside a segment.
struct Operands<'a, T> {
    a: &'a [T],
    b: &'a [T],
    steps: [usize; 2],
}

impl<T: Real> Operands<'_, T> {
    #[inline]
    fn combine(&self, [a, b]: [usize; 2], out: &mut [T], f: impl Fn(T, T) -> T) {
        let (a, b) = (&self.a[a..], &self.b[b..]);
        match self.steps {
            [1, 1] => out
                .iter_mut()
                .zip(a)
                .zip(b)
                .for_each(|((out, &a), &b)| *out = f(a, b)),
            [1, 0] => out
                .iter_mut()
                .zip(a)
                .for_each(|(out, &a)| *out = f(a, b[0])),
            [0, 1] => out
                .iter_mut()
                .zip(b)
                .for_each(|(out, &b)| *out = f(a[0], b)),
            [a_step, b_step] => {
                out.iter_mut()
                    .enumerate()
                    .for_each(|(i, out)| *out = f(a[i * a_step], b[i * b_step]));
            }
        }
    }
}

fn each<T: Real>(x: &[T], out: &mut [T], f: impl Fn(T) -> T) {
    out.iter_mut().zip(x).for_each(|(out, &x)| *out = f(x));
}
