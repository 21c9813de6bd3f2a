//! The loops over blocks, compiled again for processors with wider vectors. All give the same bits: nothing is fused or
//! reordered.
#![allow(unsafe_code)]

use super::{dequantize_blocks, dot_blocks};
use crate::gguf::GgmlType;

/// `name = body(arguments)`: runs `body` as compiled for the widest vectors of this processor.
macro_rules! widest {
    ($(#[$attribute:meta])* fn $name:ident = $body:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?) => {
        $(#[$attribute])*
        pub(super) fn $name($($argument: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")]
                fn avx512($($argument: $kind),*) $(-> $result)? {
                    $body($($argument),*)
                }
                #[target_feature(enable = "avx2,f16c")]
                fn avx2($($argument: $kind),*) $(-> $result)? {
                    $body($($argument),*)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
                    if is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512vl")
                    {
                        // SAFETY: the function is safe but for its instruction sets, all of which were just found.
                        return unsafe { avx512($($argument),*) };
                    }
                    // SAFETY: as above; these two were found.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $body($($argument),*)
        }
    };
}

widest! {
    /// [`dequantize_blocks`] for this processor.
    fn dequantize = dequantize_blocks(kind: GgmlType, bytes: &[u8], out: &mut [f32])
}

widest! {
    /// [`dot_blocks`] for this processor.
    fn dot = dot_blocks(kind: GgmlType, bytes: &[u8], x: &[f32]) -> f32
}
