//! Counter-based random numbers.

use crate::device::Device;
use crate::layout::check_len;
use crate::storage::zeroed;
use crate::{Result, Tensor, gpu, par};

/// Philox-4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011): a bijection of 128-bit counters for each
/// 64-bit key.
///
/// Number `i` of a stream is a function of seed, stream and `i` alone, so that threads and devices draw the same numbers in any
/// order: word `i % 4` of the block with key `seed` and counter `(i / 4, stream)`, low words first.
///
/// The seed chooses the numbers, the stream number separates independent uses of one seed.
#[derive(Clone, Debug)]
pub struct Philox4x32 {
    key: [u32; 2],
    stream: [u32; 2],
    next: u64,
}

impl Philox4x32 {
    /// The stream with number `stream` of a seed, from its first number on.
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self {
            key: words(seed),
            stream: words(stream),
            next: 0,
        }
    }

    /// The bijection itself, ten rounds.
    pub const fn block(mut key: [u32; 2], mut counter: [u32; 4]) -> [u32; 4] {
        const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
        const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
        let mut round = 0;
        while round < 10 {
            let [low0, high0] = words(MULTIPLIERS[0] * counter[0] as u64);
            let [low1, high1] = words(MULTIPLIERS[1] * counter[2] as u64);
            counter = [
                high1 ^ counter[1] ^ key[0],
                low1,
                high0 ^ counter[3] ^ key[1],
                low0,
            ];
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
            round += 1;
        }
        counter
    }

    /// Number `i` of the stream.
    pub const fn u32_at(&self, i: u64) -> u32 {
        let [low, high] = words(i / 4);
        Self::block(self.key, [low, high, self.stream[0], self.stream[1]])[(i % 4) as usize]
    }

    /// Number `i` as a uniform number in `[0, 1)`: its upper 24 bits.
    pub fn uniform_at(&self, i: u64) -> f32 {
        (self.u32_at(i) >> 8) as f32 / (1 << 24) as f32
    }

    /// Standard normal number `i`: Box-Muller in f64 on the numbers `i` and its neighbour, cosine for even `i`, sine for odd.
    pub fn normal_at(&self, i: u64) -> f32 {
        const SCALE: f64 = 1.0 / (1u64 << 32) as f64;
        let even = i & !1;
        // In (0, 1], so that the logarithm is finite.
        let radius = (f64::from(self.u32_at(even)) + 1.0) * SCALE;
        let (sin, cos) =
            (f64::from(self.u32_at(even | 1)) * SCALE * std::f64::consts::TAU).sin_cos();
        ((-2.0 * radius.ln()).sqrt() * if i == even { cos } else { sin }) as f32
    }

    /// The next number of the stream.
    pub fn next_u32(&mut self) -> u32 {
        let i = self.step();
        self.u32_at(i)
    }

    /// The next number, uniform in `[0, 1)`.
    pub fn next_uniform(&mut self) -> f32 {
        let i = self.step();
        self.uniform_at(i)
    }

    /// The next number, standard normal.
    pub fn next_normal(&mut self) -> f32 {
        let i = self.step();
        self.normal_at(i)
    }

    fn step(&mut self) -> u64 {
        let i = self.next;
        self.next = i.wrapping_add(1);
        i
    }
}

const fn words(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

impl Tensor {
    /// F32 on `device`: element `i` is [`Philox4x32::uniform_at`]`(i)` of the seed's stream.
    ///
    /// # Errors
    /// Those of [`zeros`](Self::zeros).
    pub fn rand(shape: &[usize], seed: u64, stream: u64, device: &Device) -> Result<Self> {
        if let Device::Gpu(driver) = device {
            return gpu::random::drawn("rand", "philox_uniform", shape, [seed, stream], driver);
        }
        let random = Philox4x32::new(seed, stream);
        drawn("rand", shape, |i| random.uniform_at(i))
    }

    /// F32 on `device`: element `i` is [`Philox4x32::normal_at`]`(i)` of the seed's stream.
    ///
    /// # Errors
    /// Those of [`zeros`](Self::zeros).
    pub fn randn(shape: &[usize], seed: u64, stream: u64, device: &Device) -> Result<Self> {
        if let Device::Gpu(driver) = device {
            return gpu::random::drawn("randn", "philox_normal", shape, [seed, stream], driver);
        }
        let random = Philox4x32::new(seed, stream);
        drawn("randn", shape, |i| random.normal_at(i))
    }
}

fn drawn(
    op: &'static str,
    shape: &[usize],
    number: impl Fn(u64) -> f32 + Send + Sync,
) -> Result<Tensor> {
    let mut out = zeroed::<f32>(op, check_len(op, shape)?)?;
    let work = COST * out.len();
    par::pieces(&mut out, work, |start, piece| {
        piece
            .iter_mut()
            .zip(start as u64..)
            .for_each(|(out, i)| *out = number(i));
    });
    Tensor::from_vec(out, shape)
}

/// What a number costs in the simple operations of [`par`]: ten rounds.
const COST: usize = 20;
