//! From unpacked codes to the numbers that they stand for.

use crate::simd::{Isa, Kernel, Lanes};

/// `x = code·scale + min` in place: run `i` of `run` codes has `scale[i]` and `min[i]`. `run` is a multiple of 16.
///
/// The product of a code of 4 bits and an f16 is exact in f32, so fused and unfused sums have the same bits.
pub(crate) fn decode(numbers: &mut [f32], run: usize, scale: &[f32], min: &[f32]) {
    Isa::detect().run(Decode {
        numbers,
        run,
        scale,
        min,
    });
}

struct Decode<'a> {
    numbers: &'a mut [f32],
    run: usize,
    scale: &'a [f32],
    min: &'a [f32],
}

impl Kernel for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let runs = self.numbers.chunks_exact_mut(self.run);
        for ((numbers, &scale), &min) in runs.zip(self.scale).zip(self.min) {
            let (scale, min) = (L::splat(scale), L::splat(min));
            for chunk in numbers.as_chunks_mut::<16>().0 {
                L::load(chunk).mul_add(scale, min).store(chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn every_instruction_set_decodes_as_two_rounded_operations_do() {
        let number = |i: usize| f16::from_f32((i as f32 * 0.917).sin() * 3.0).to_f32();
        for run in [16, 32, 64] {
            let codes: Vec<f32> = (0..run * 5).map(|i| (i % 16) as f32).collect();
            let scale: Vec<f32> = (0..5).map(|i| number(i).abs()).collect();
            let min: Vec<f32> = (5..10).map(number).collect();
            let expected: Vec<f32> = codes
                .iter()
                .enumerate()
                .map(|(i, c)| c * scale[i / run] + min[i / run])
                .collect();
            for isa in Isa::available() {
                let mut numbers = codes.clone();
                isa.run(Decode {
                    numbers: &mut numbers,
                    run,
                    scale: &scale,
                    min: &min,
                });
                assert_eq!(numbers, expected, "{}", isa.name());
            }
        }
    }
}
