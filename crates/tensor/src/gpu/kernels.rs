//! The kernels by name: elementwise, copies, rows, reductions, gathers, random numbers, matrix products.
//!
//! What each computes, its grid and block, and the bytes that it must move stand on top of its text in `src/ptx`.

use crate::DType;
use crate::kernel::Kernel;
use crate::kernels;

/// A module for each kernel, of the same name, and the list of all.
macro_rules! declare {
    ($($(#[$attribute:meta])* $name:ident = $entry:literal($($parameter:ident: $kind:ident),* $(,)?);)*) => {
        $(kernels! {
            module $entry in include_str!(concat!("../ptx/", $entry, ".ptx"));

            $(#[$attribute])*
            $name = $entry($($parameter: $kind),*);
        })*

        /// Every kernel of this module.
        pub const ALL: &[Kernel] = &[$($name),*];
    };
}

/// The kernel of an entry.
pub fn named(entry: &str) -> Option<&'static Kernel> {
    ALL.iter().find(|kernel| kernel.entry() == entry)
}

/// The kernel of an operation on a type: `of("exp", DType::F16)` is [`EXP_F16`]. None where there is none.
pub fn of(op: &str, dtype: DType) -> Option<&'static Kernel> {
    ALL.iter().find(|kernel| {
        kernel
            .entry()
            .strip_prefix(op)
            .and_then(|rest| rest.strip_prefix('_'))
            == Some(dtype.name())
    })
}

/// The kernel of an operation on elements of some bytes: `of_bytes("fill", 2)` is [`FILL_B16`].
pub fn of_bytes(op: &str, bytes: usize) -> Option<&'static Kernel> {
    named(&format!("{op}_b{}", 8 * bytes))
}

declare! {
    /// `out = -x` for F32.
    NEG_F32 = "neg_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = -x` for F16.
    NEG_F16 = "neg_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = -x` for BF16.
    NEG_BF16 = "neg_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = e^x` for F32.
    EXP_F32 = "exp_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = e^x` for F16.
    EXP_F16 = "exp_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = e^x` for BF16.
    EXP_BF16 = "exp_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = ln x` for F32.
    LN_F32 = "ln_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = ln x` for F16.
    LN_F16 = "ln_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = ln x` for BF16.
    LN_BF16 = "ln_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = √x` for F32.
    SQRT_F32 = "sqrt_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = √x` for F16.
    SQRT_F16 = "sqrt_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = √x` for BF16.
    SQRT_BF16 = "sqrt_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = tanh x` for F32.
    TANH_F32 = "tanh_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = tanh x` for F16.
    TANH_F16 = "tanh_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = tanh x` for BF16.
    TANH_BF16 = "tanh_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = 1 / (1 + e^-x)` for F32.
    SIGMOID_F32 = "sigmoid_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = 1 / (1 + e^-x)` for F16.
    SIGMOID_F16 = "sigmoid_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = 1 / (1 + e^-x)` for BF16.
    SIGMOID_BF16 = "sigmoid_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x / (1 + e^-x)` for F32.
    SILU_F32 = "silu_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x / (1 + e^-x)` for F16.
    SILU_F16 = "silu_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x / (1 + e^-x)` for BF16.
    SILU_BF16 = "silu_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = max(x, 0)` for F32.
    RELU_F32 = "relu_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = max(x, 0)` for F16.
    RELU_F16 = "relu_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = max(x, 0)` for BF16.
    RELU_BF16 = "relu_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x · Φ(x)` for F32.
    GELU_ERF_F32 = "gelu_erf_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x · Φ(x)` for F16.
    GELU_ERF_F16 = "gelu_erf_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x · Φ(x)` for BF16.
    GELU_ERF_BF16 = "gelu_erf_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = ½x(1 + tanh(√(2/π)(x + 0.044715x³)))` for F32.
    GELU_TANH_F32 = "gelu_tanh_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = ½x(1 + tanh(√(2/π)(x + 0.044715x³)))` for F16.
    GELU_TANH_F16 = "gelu_tanh_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = ½x(1 + tanh(√(2/π)(x + 0.044715x³)))` for BF16.
    GELU_TANH_BF16 = "gelu_tanh_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x + value` for F32.
    ADD_SCALAR_F32 = "add_scalar_f32"(x: Ptr, out: Ptr, value: F32, n: U32);

    /// `out = x + value` for F16.
    ADD_SCALAR_F16 = "add_scalar_f16"(x: Ptr, out: Ptr, value: F32, n: U32);

    /// `out = x + value` for BF16.
    ADD_SCALAR_BF16 = "add_scalar_bf16"(x: Ptr, out: Ptr, value: F32, n: U32);

    /// `out = x · value` for F32.
    MUL_SCALAR_F32 = "mul_scalar_f32"(x: Ptr, out: Ptr, value: F32, n: U32);

    /// `out = x · value` for F16.
    MUL_SCALAR_F16 = "mul_scalar_f16"(x: Ptr, out: Ptr, value: F32, n: U32);

    /// `out = x · value` for BF16.
    MUL_SCALAR_BF16 = "mul_scalar_bf16"(x: Ptr, out: Ptr, value: F32, n: U32);

    /// `out = a + b` for F32.
    ADD_F32 = "add_f32"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a + b` for F16.
    ADD_F16 = "add_f16"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a + b` for BF16.
    ADD_BF16 = "add_bf16"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a − b` for F32.
    SUB_F32 = "sub_f32"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a − b` for F16.
    SUB_F16 = "sub_f16"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a − b` for BF16.
    SUB_BF16 = "sub_bf16"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a · b` for F32.
    MUL_F32 = "mul_f32"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a · b` for F16.
    MUL_F16 = "mul_f16"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a · b` for BF16.
    MUL_BF16 = "mul_bf16"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a / b` for F32.
    DIV_F32 = "div_f32"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a / b` for F16.
    DIV_F16 = "div_f16"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a / b` for BF16.
    DIV_BF16 = "div_bf16"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a / (1 + e^-a) · b` for F32.
    SILU_MUL_F32 = "silu_mul_f32"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a / (1 + e^-a) · b` for F16.
    SILU_MUL_F16 = "silu_mul_f16"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a / (1 + e^-a) · b` for BF16.
    SILU_MUL_BF16 = "silu_mul_bf16"(a: Ptr, b: Ptr, out: Ptr, n: U32);

    /// `out = a + b` for F32 views.
    ADD_STRIDED_F32 = "add_strided_f32"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a + b` for F16 views.
    ADD_STRIDED_F16 = "add_strided_f16"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a + b` for BF16 views.
    ADD_STRIDED_BF16 = "add_strided_bf16"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a − b` for F32 views.
    SUB_STRIDED_F32 = "sub_strided_f32"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a − b` for F16 views.
    SUB_STRIDED_F16 = "sub_strided_f16"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a − b` for BF16 views.
    SUB_STRIDED_BF16 = "sub_strided_bf16"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a · b` for F32 views.
    MUL_STRIDED_F32 = "mul_strided_f32"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a · b` for F16 views.
    MUL_STRIDED_F16 = "mul_strided_f16"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a · b` for BF16 views.
    MUL_STRIDED_BF16 = "mul_strided_bf16"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a / b` for F32 views.
    DIV_STRIDED_F32 = "div_strided_f32"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a / b` for F16 views.
    DIV_STRIDED_F16 = "div_strided_f16"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = a / b` for BF16 views.
    DIV_STRIDED_BF16 = "div_strided_bf16"(
        a: Ptr, b: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32,
        shift_2: U32, a_stride_0: U32, a_stride_1: U32, a_stride_2: U32, b_stride_0: U32, b_stride_1: U32,
        b_stride_2: U32
    );

    /// `out = x` as F16 for F32 `x`.
    CAST_F32_F16 = "cast_f32_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as BF16 for F32 `x`.
    CAST_F32_BF16 = "cast_f32_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U32 for F32 `x`.
    CAST_F32_U32 = "cast_f32_u32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I32 for F32 `x`.
    CAST_F32_I32 = "cast_f32_i32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U8 for F32 `x`.
    CAST_F32_U8 = "cast_f32_u8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I8 for F32 `x`.
    CAST_F32_I8 = "cast_f32_i8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F32 for F16 `x`.
    CAST_F16_F32 = "cast_f16_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as BF16 for F16 `x`.
    CAST_F16_BF16 = "cast_f16_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U32 for F16 `x`.
    CAST_F16_U32 = "cast_f16_u32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I32 for F16 `x`.
    CAST_F16_I32 = "cast_f16_i32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U8 for F16 `x`.
    CAST_F16_U8 = "cast_f16_u8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I8 for F16 `x`.
    CAST_F16_I8 = "cast_f16_i8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F32 for BF16 `x`.
    CAST_BF16_F32 = "cast_bf16_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F16 for BF16 `x`.
    CAST_BF16_F16 = "cast_bf16_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U32 for BF16 `x`.
    CAST_BF16_U32 = "cast_bf16_u32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I32 for BF16 `x`.
    CAST_BF16_I32 = "cast_bf16_i32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U8 for BF16 `x`.
    CAST_BF16_U8 = "cast_bf16_u8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I8 for BF16 `x`.
    CAST_BF16_I8 = "cast_bf16_i8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F32 for U32 `x`.
    CAST_U32_F32 = "cast_u32_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F16 for U32 `x`.
    CAST_U32_F16 = "cast_u32_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as BF16 for U32 `x`.
    CAST_U32_BF16 = "cast_u32_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I32 for U32 `x`.
    CAST_U32_I32 = "cast_u32_i32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U8 for U32 `x`.
    CAST_U32_U8 = "cast_u32_u8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I8 for U32 `x`.
    CAST_U32_I8 = "cast_u32_i8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F32 for I32 `x`.
    CAST_I32_F32 = "cast_i32_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F16 for I32 `x`.
    CAST_I32_F16 = "cast_i32_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as BF16 for I32 `x`.
    CAST_I32_BF16 = "cast_i32_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U32 for I32 `x`.
    CAST_I32_U32 = "cast_i32_u32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U8 for I32 `x`.
    CAST_I32_U8 = "cast_i32_u8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I8 for I32 `x`.
    CAST_I32_I8 = "cast_i32_i8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F32 for U8 `x`.
    CAST_U8_F32 = "cast_u8_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F16 for U8 `x`.
    CAST_U8_F16 = "cast_u8_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as BF16 for U8 `x`.
    CAST_U8_BF16 = "cast_u8_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U32 for U8 `x`.
    CAST_U8_U32 = "cast_u8_u32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I32 for U8 `x`.
    CAST_U8_I32 = "cast_u8_i32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I8 for U8 `x`.
    CAST_U8_I8 = "cast_u8_i8"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F32 for I8 `x`.
    CAST_I8_F32 = "cast_i8_f32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as F16 for I8 `x`.
    CAST_I8_F16 = "cast_i8_f16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as BF16 for I8 `x`.
    CAST_I8_BF16 = "cast_i8_bf16"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U32 for I8 `x`.
    CAST_I8_U32 = "cast_i8_u32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as I32 for I8 `x`.
    CAST_I8_I32 = "cast_i8_i32"(x: Ptr, out: Ptr, n: U32);

    /// `out = x` as U8 for I8 `x`.
    CAST_I8_U8 = "cast_i8_u8"(x: Ptr, out: Ptr, n: U32);

    /// Copies a view's elements of 4 bytes to another view.
    COPY_STRIDED_B32 = "copy_strided_b32"(
        x: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32, shift_2: U32,
        x_stride_0: U32, x_stride_1: U32, x_stride_2: U32, out_stride_0: U32, out_stride_1: U32, out_stride_2: U32
    );

    /// Copies a view's elements of 2 bytes to another view.
    COPY_STRIDED_B16 = "copy_strided_b16"(
        x: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32, shift_2: U32,
        x_stride_0: U32, x_stride_1: U32, x_stride_2: U32, out_stride_0: U32, out_stride_1: U32, out_stride_2: U32
    );

    /// Copies a view's elements of 1 byte to another view.
    COPY_STRIDED_B8 = "copy_strided_b8"(
        x: Ptr, out: Ptr, n: U32, size_1: U32, magic_1: U32, shift_1: U32, size_2: U32, magic_2: U32, shift_2: U32,
        x_stride_0: U32, x_stride_1: U32, x_stride_2: U32, out_stride_0: U32, out_stride_1: U32, out_stride_2: U32
    );

    /// Swaps the last two dimensions of `[batch, rows, cols]`, elements of 4 bytes.
    TRANSPOSE_B32 = "transpose_b32"(x: Ptr, out: Ptr, rows: U32, cols: U32);

    /// Swaps the last two dimensions of `[batch, rows, cols]`, elements of 2 bytes.
    TRANSPOSE_B16 = "transpose_b16"(x: Ptr, out: Ptr, rows: U32, cols: U32);

    /// Swaps the last two dimensions of `[batch, rows, cols]`, elements of 1 byte.
    TRANSPOSE_B8 = "transpose_b8"(x: Ptr, out: Ptr, rows: U32, cols: U32);

    /// `out = pattern` for elements of 4 bytes.
    FILL_B32 = "fill_b32"(out: Ptr, pattern: U32, n: U32);

    /// `out = pattern` for elements of 2 bytes.
    FILL_B16 = "fill_b16"(out: Ptr, pattern: U32, n: U32);

    /// `out = pattern` for elements of 1 byte.
    FILL_B8 = "fill_b8"(out: Ptr, pattern: U32, n: U32);

    /// `out = x` for words of 4 bytes.
    COPY_B32 = "copy_b32"(x: Ptr, out: Ptr, n: U32);

    /// Softmax of F32 rows.
    SOFTMAX_F32 = "softmax_f32"(x: Ptr, out: Ptr, cols: U32, resident: U32);

    /// Softmax of F16 rows.
    SOFTMAX_F16 = "softmax_f16"(x: Ptr, out: Ptr, cols: U32, resident: U32);

    /// Softmax of BF16 rows.
    SOFTMAX_BF16 = "softmax_bf16"(x: Ptr, out: Ptr, cols: U32, resident: U32);

    /// The logarithm of softmax of F32 rows.
    LOG_SOFTMAX_F32 = "log_softmax_f32"(x: Ptr, out: Ptr, cols: U32, resident: U32);

    /// The logarithm of softmax of F16 rows.
    LOG_SOFTMAX_F16 = "log_softmax_f16"(x: Ptr, out: Ptr, cols: U32, resident: U32);

    /// The logarithm of softmax of BF16 rows.
    LOG_SOFTMAX_BF16 = "log_softmax_bf16"(x: Ptr, out: Ptr, cols: U32, resident: U32);

    /// RMSNorm of F32 rows.
    RMS_NORM_F32 = "rms_norm_f32"(x: Ptr, weight: Ptr, out: Ptr, cols: U32, eps: F32, resident: U32);

    /// RMSNorm of F16 rows.
    RMS_NORM_F16 = "rms_norm_f16"(x: Ptr, weight: Ptr, out: Ptr, cols: U32, eps: F32, resident: U32);

    /// RMSNorm of BF16 rows.
    RMS_NORM_BF16 = "rms_norm_bf16"(x: Ptr, weight: Ptr, out: Ptr, cols: U32, eps: F32, resident: U32);

    /// LayerNorm of F32 rows.
    LAYER_NORM_F32 = "layer_norm_f32"(x: Ptr, weight: Ptr, bias: Ptr, out: Ptr, cols: U32, eps: F32, resident: U32);

    /// LayerNorm of F16 rows.
    LAYER_NORM_F16 = "layer_norm_f16"(x: Ptr, weight: Ptr, bias: Ptr, out: Ptr, cols: U32, eps: F32, resident: U32);

    /// LayerNorm of BF16 rows.
    LAYER_NORM_BF16 = "layer_norm_bf16"(x: Ptr, weight: Ptr, bias: Ptr, out: Ptr, cols: U32, eps: F32, resident: U32);

    /// RoPE of F32, pairs `2i` and `2i + 1`.
    ROPE_INTERLEAVED_F32 = "rope_interleaved_f32"(x: Ptr, turns: Ptr, out: Ptr, heads: U32, half: U32);

    /// RoPE of F16, pairs `2i` and `2i + 1`.
    ROPE_INTERLEAVED_F16 = "rope_interleaved_f16"(x: Ptr, turns: Ptr, out: Ptr, heads: U32, half: U32);

    /// RoPE of BF16, pairs `2i` and `2i + 1`.
    ROPE_INTERLEAVED_BF16 = "rope_interleaved_bf16"(x: Ptr, turns: Ptr, out: Ptr, heads: U32, half: U32);

    /// RoPE of F32, pairs `i` and `i + half`.
    ROPE_HALF_SPLIT_F32 = "rope_half_split_f32"(x: Ptr, turns: Ptr, out: Ptr, heads: U32, half: U32);

    /// RoPE of F16, pairs `i` and `i + half`.
    ROPE_HALF_SPLIT_F16 = "rope_half_split_f16"(x: Ptr, turns: Ptr, out: Ptr, heads: U32, half: U32);

    /// RoPE of BF16, pairs `i` and `i + half`.
    ROPE_HALF_SPLIT_BF16 = "rope_half_split_bf16"(x: Ptr, turns: Ptr, out: Ptr, heads: U32, half: U32);

    /// Rows by index, in pieces of 16 bytes.
    GATHER_B128 = "gather_b128"(x: Ptr, index: Ptr, out: Ptr, rows: U32, units: U32, stride: U32);

    /// Rows by index, in pieces of 4 bytes.
    GATHER_B32 = "gather_b32"(x: Ptr, index: Ptr, out: Ptr, rows: U32, units: U32, stride: U32);

    /// Rows by index, in pieces of 2 bytes.
    GATHER_B16 = "gather_b16"(x: Ptr, index: Ptr, out: Ptr, rows: U32, units: U32, stride: U32);

    /// Rows by index, in pieces of 1 byte.
    GATHER_B8 = "gather_b8"(x: Ptr, index: Ptr, out: Ptr, rows: U32, units: U32, stride: U32);

    /// A sparse matrix times a dense one of F32.
    SPMM_F32 = "spmm_f32"(indptr: Ptr, index: Ptr, values: Ptr, dense: Ptr, out: Ptr, n: U32, cols: U32);

    /// A sparse matrix of ones times a dense one of F32.
    SPMM_ONES_F32 = "spmm_ones_f32"(indptr: Ptr, index: Ptr, dense: Ptr, out: Ptr, n: U32, cols: U32);

    /// Adds F32 rows to rows, in a fixed order.
    SCATTER_ADD_F32 = "scatter_add_f32"(x: Ptr, indptr: Ptr, index: Ptr, rows: Ptr, out: Ptr, n: U32, cols: U32);

    /// A sparse matrix times a dense one of F16.
    SPMM_F16 = "spmm_f16"(indptr: Ptr, index: Ptr, values: Ptr, dense: Ptr, out: Ptr, n: U32, cols: U32);

    /// A sparse matrix of ones times a dense one of F16.
    SPMM_ONES_F16 = "spmm_ones_f16"(indptr: Ptr, index: Ptr, dense: Ptr, out: Ptr, n: U32, cols: U32);

    /// Adds F16 rows to rows, in a fixed order.
    SCATTER_ADD_F16 = "scatter_add_f16"(x: Ptr, indptr: Ptr, index: Ptr, rows: Ptr, out: Ptr, n: U32, cols: U32);

    /// A sparse matrix times a dense one of BF16.
    SPMM_BF16 = "spmm_bf16"(indptr: Ptr, index: Ptr, values: Ptr, dense: Ptr, out: Ptr, n: U32, cols: U32);

    /// A sparse matrix of ones times a dense one of BF16.
    SPMM_ONES_BF16 = "spmm_ones_bf16"(indptr: Ptr, index: Ptr, dense: Ptr, out: Ptr, n: U32, cols: U32);

    /// Adds BF16 rows to rows, in a fixed order.
    SCATTER_ADD_BF16 = "scatter_add_bf16"(x: Ptr, indptr: Ptr, index: Ptr, rows: Ptr, out: Ptr, n: U32, cols: U32);

    /// Sums of F32 rows, divided.
    SUM_ROWS_F32 = "sum_rows_f32"(x: Ptr, out: Ptr, cols: U32, divisor: U32);

    /// Sums of F32 columns, divided.
    SUM_COLUMNS_F32 = "sum_columns_f32"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32, divisor: U32);

    /// Sums of F16 rows, divided.
    SUM_ROWS_F16 = "sum_rows_f16"(x: Ptr, out: Ptr, cols: U32, divisor: U32);

    /// Sums of F16 columns, divided.
    SUM_COLUMNS_F16 = "sum_columns_f16"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32, divisor: U32);

    /// Sums of BF16 rows, divided.
    SUM_ROWS_BF16 = "sum_rows_bf16"(x: Ptr, out: Ptr, cols: U32, divisor: U32);

    /// Sums of BF16 columns, divided.
    SUM_COLUMNS_BF16 = "sum_columns_bf16"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32, divisor: U32);

    /// Greatest elements of F32 rows.
    MAX_ROWS_F32 = "max_rows_f32"(x: Ptr, out: Ptr, cols: U32);

    /// Greatest elements of F32 columns.
    MAX_COLUMNS_F32 = "max_columns_f32"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32);

    /// Greatest elements of F16 rows.
    MAX_ROWS_F16 = "max_rows_f16"(x: Ptr, out: Ptr, cols: U32);

    /// Greatest elements of F16 columns.
    MAX_COLUMNS_F16 = "max_columns_f16"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32);

    /// Greatest elements of BF16 rows.
    MAX_ROWS_BF16 = "max_rows_bf16"(x: Ptr, out: Ptr, cols: U32);

    /// Greatest elements of BF16 columns.
    MAX_COLUMNS_BF16 = "max_columns_bf16"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32);

    /// Greatest elements of U32 rows.
    MAX_ROWS_U32 = "max_rows_u32"(x: Ptr, out: Ptr, cols: U32);

    /// Greatest elements of U32 columns.
    MAX_COLUMNS_U32 = "max_columns_u32"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32);

    /// Greatest elements of I32 rows.
    MAX_ROWS_I32 = "max_rows_i32"(x: Ptr, out: Ptr, cols: U32);

    /// Greatest elements of I32 columns.
    MAX_COLUMNS_I32 = "max_columns_i32"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32);

    /// Least elements of F32 rows.
    MIN_ROWS_F32 = "min_rows_f32"(x: Ptr, out: Ptr, cols: U32);

    /// Least elements of F32 columns.
    MIN_COLUMNS_F32 = "min_columns_f32"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32);

    /// Least elements of F16 rows.
    MIN_ROWS_F16 = "min_rows_f16"(x: Ptr, out: Ptr, cols: U32);

    /// Least elements of F16 columns.
    MIN_COLUMNS_F16 = "min_columns_f16"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32);

    /// Least elements of BF16 rows.
    MIN_ROWS_BF16 = "min_rows_bf16"(x: Ptr, out: Ptr, cols: U32);

    /// Least elements of BF16 columns.
    MIN_COLUMNS_BF16 = "min_columns_bf16"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32);

    /// Least elements of U32 rows.
    MIN_ROWS_U32 = "min_rows_u32"(x: Ptr, out: Ptr, cols: U32);

    /// Least elements of U32 columns.
    MIN_COLUMNS_U32 = "min_columns_u32"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32);

    /// Least elements of I32 rows.
    MIN_ROWS_I32 = "min_rows_i32"(x: Ptr, out: Ptr, cols: U32);

    /// Least elements of I32 columns.
    MIN_COLUMNS_I32 = "min_columns_i32"(x: Ptr, out: Ptr, n: U32, len: U32, inner: U32);

    /// Positions of the greatest elements of F32 rows.
    ARGMAX_ROWS_F32 = "argmax_rows_f32"(x: Ptr, out: Ptr, cols: U32);

    /// Positions of the greatest elements of F16 rows.
    ARGMAX_ROWS_F16 = "argmax_rows_f16"(x: Ptr, out: Ptr, cols: U32);

    /// Positions of the greatest elements of BF16 rows.
    ARGMAX_ROWS_BF16 = "argmax_rows_bf16"(x: Ptr, out: Ptr, cols: U32);

    /// Positions of the greatest elements of U32 rows.
    ARGMAX_ROWS_U32 = "argmax_rows_u32"(x: Ptr, out: Ptr, cols: U32);

    /// Positions of the greatest elements of I32 rows.
    ARGMAX_ROWS_I32 = "argmax_rows_i32"(x: Ptr, out: Ptr, cols: U32);

    /// Words of a Philox stream.
    PHILOX_BITS = "philox_bits"(out: Ptr, seed: U64, stream: U64, n: U32);

    /// Uniform numbers of a Philox stream.
    PHILOX_UNIFORM = "philox_uniform"(out: Ptr, seed: U64, stream: U64, n: U32);

    /// Normal numbers of a Philox stream.
    PHILOX_NORMAL = "philox_normal"(out: Ptr, seed: U64, stream: U64, n: U32);

    /// `y = w · x` for F32 `w` of `n` rows.
    GEMV_F32 = "gemv_f32"(w: Ptr, x: Ptr, y: Ptr, n: U32, k: U32, row_stride: U32);

    /// `y = w · x` for F16 `w` of `n` rows.
    GEMV_F16 = "gemv_f16"(w: Ptr, x: Ptr, y: Ptr, n: U32, k: U32, row_stride: U32);

    /// `y = w · x` for BF16 `w` of `n` rows.
    GEMV_BF16 = "gemv_bf16"(w: Ptr, x: Ptr, y: Ptr, n: U32, k: U32, row_stride: U32);

    /// `c = a · bᵀ` for F32 matrices.
    GEMM_F32_NK = "gemm_f32_nk"(a: Ptr, b: Ptr, c: Ptr, m: U32, n: U32, k: U32, a_stride: U32, b_stride: U32, a_batch: U64, b_batch: U64);

    /// `c = a · b` for F32 matrices.
    GEMM_F32_KN = "gemm_f32_kn"(a: Ptr, b: Ptr, c: Ptr, m: U32, n: U32, k: U32, a_stride: U32, b_stride: U32, a_batch: U64, b_batch: U64);

    /// `c = a · bᵀ` for F16 matrices.
    GEMM_F16_NK = "gemm_f16_nk"(a: Ptr, b: Ptr, c: Ptr, m: U32, n: U32, k: U32, a_stride: U32, b_stride: U32, a_batch: U64, b_batch: U64);

    /// `c = a · b` for F16 matrices.
    GEMM_F16_KN = "gemm_f16_kn"(a: Ptr, b: Ptr, c: Ptr, m: U32, n: U32, k: U32, a_stride: U32, b_stride: U32, a_batch: U64, b_batch: U64);

    /// `c = a · bᵀ` for BF16 matrices.
    GEMM_BF16_NK = "gemm_bf16_nk"(a: Ptr, b: Ptr, c: Ptr, m: U32, n: U32, k: U32, a_stride: U32, b_stride: U32, a_batch: U64, b_batch: U64);

    /// `c = a · b` for BF16 matrices.
    GEMM_BF16_KN = "gemm_bf16_kn"(a: Ptr, b: Ptr, c: Ptr, m: U32, n: U32, k: U32, a_stride: U32, b_stride: U32, a_batch: U64, b_batch: U64);

    /// `c = a · bᵀ` for F16 matrices on tensor cores.
    GEMM_MMA_F16_NK = "gemm_mma_f16_nk"(a: Ptr, b: Ptr, c: Ptr, m: U32, n: U32, k: U32, a_stride: U32, b_stride: U32, a_batch: U64, b_batch: U64);

    /// `c = a · b` for F16 matrices on tensor cores.
    GEMM_MMA_F16_KN = "gemm_mma_f16_kn"(a: Ptr, b: Ptr, c: Ptr, m: U32, n: U32, k: U32, a_stride: U32, b_stride: U32, a_batch: U64, b_batch: U64);

    /// `c = a · bᵀ` for BF16 matrices on tensor cores.
    GEMM_MMA_BF16_NK = "gemm_mma_bf16_nk"(a: Ptr, b: Ptr, c: Ptr, m: U32, n: U32, k: U32, a_stride: U32, b_stride: U32, a_batch: U64, b_batch: U64);

    /// `c = a · b` for BF16 matrices on tensor cores.
    GEMM_MMA_BF16_KN = "gemm_mma_bf16_kn"(a: Ptr, b: Ptr, c: Ptr, m: U32, n: U32, k: U32, a_stride: U32, b_stride: U32, a_batch: U64, b_batch: U64);
}
