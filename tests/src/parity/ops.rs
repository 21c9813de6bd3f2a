//! Operations of f32 of which one may round as a mutant's does, and the search for inputs on which that shows.
//!
//! A half has 8 or 11 of the 24 digits of f32: a result of f32 that is off by its last digit rounds to another half once in 2^16 or
//! 2^13 times. Random inputs would have to be many; these are drawn on the host until each instruction has some that tell.

use super::number::{off_tie, rounded};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use whittle_tensor::DType;

/// What a mutant does to an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// `.rn` became `.rz`.
    TowardZero,
    /// `fma` became `mul` and `add`.
    Unfused,
}

/// Arithmetic of f32. Each operation has a site: the number of the instruction that does it, unique in its kernel's twin.
#[derive(Debug, Default)]
pub(super) struct Ops {
    broken: Option<(usize, Break)>,
    /// Sites that were met, and whether they fuse.
    met: Option<RefCell<BTreeSet<(usize, bool)>>>,
}

/// The value between 0 and `exact + rest` that is nearest to it, where `rest` is too small to be in `exact`.
fn toward_zero(exact: f64, rest: f64) -> f32 {
    let near = exact as f32;
    let wide = f64::from(near);
    let is_beyond = wide.abs() > exact.abs() || wide == exact && rest * exact < 0.0;
    match is_beyond {
        true if near.is_finite() && near != 0.0 => f32::from_bits(near.to_bits() - 1),
        _ => near,
    }
}

/// `a + b` and what it lost.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

impl Ops {
    fn breaks(&self, site: usize, fuses: bool) -> Option<Break> {
        if let Some(met) = &self.met {
            met.borrow_mut().insert((site, fuses));
        }
        self.broken
            .filter(|(broken, _)| *broken == site)
            .map(|(_, how)| how)
    }

    pub(super) fn add(&self, site: usize, a: f32, b: f32) -> f32 {
        match self.breaks(site, false) {
            None => a + b,
            Some(_) => {
                let (sum, rest) = two_sum(a.into(), b.into());
                toward_zero(sum, rest)
            }
        }
    }

    pub(super) fn sub(&self, site: usize, a: f32, b: f32) -> f32 {
        self.add(site, a, -b)
    }

    pub(super) fn mul(&self, site: usize, a: f32, b: f32) -> f32 {
        match self.breaks(site, false) {
            None => a * b,
            Some(_) => toward_zero(f64::from(a) * f64::from(b), 0.0),
        }
    }

    pub(super) fn div(&self, site: usize, a: f32, b: f32) -> f32 {
        match self.breaks(site, false) {
            None => a / b,
            Some(_) => toward_zero(f64::from(a) / f64::from(b), 0.0),
        }
    }

    /// `a · b + c`
    pub(super) fn fma(&self, site: usize, a: f32, b: f32, c: f32) -> f32 {
        match self.breaks(site, true) {
            None => a.mul_add(b, c),
            Some(Break::Unfused) => a * b + c,
            Some(Break::TowardZero) => {
                let (sum, rest) = two_sum(f64::from(a) * f64::from(b), c.into());
                toward_zero(sum, rest)
            }
        }
    }
}

/// A mutant changes a result by so many units in the last place of f32 at most, or nearly so.
const NEAR: u32 = 8;
/// So many inputs tell of each mutant, if there are any.
const WANTED: usize = 2;

/// Of `trials` drawn inputs, those on which a mutant of an instruction of `compute` shows in its results as `dtype`, a few for each.
pub(super) fn search<T>(
    dtype: DType,
    trials: usize,
    mut draw: impl FnMut() -> T,
    compute: impl Fn(&Ops, &T) -> Vec<f32>,
) -> Vec<T> {
    let mut missing: Vec<((usize, Break), usize)> = Vec::new();
    let mut known = BTreeSet::new();
    let mut kept = Vec::new();
    for _ in 0..trials {
        let input = draw();
        let right = compute(&Ops::default(), &input);
        if !right.iter().any(|y| off_tie(dtype, *y) <= NEAR) {
            continue;
        }
        // Not every input meets every site.
        let ops = Ops {
            broken: None,
            met: Some(RefCell::default()),
        };
        compute(&ops, &input);
        for (site, fuses) in ops.met.unwrap_or_default().into_inner() {
            if known.insert(site) {
                missing.push(((site, Break::TowardZero), WANTED));
                if fuses {
                    missing.push(((site, Break::Unfused), WANTED));
                }
            }
        }
        let mut tells = false;
        for (broken, wanted) in &mut missing {
            let ops = Ops {
                broken: Some(*broken),
                met: None,
            };
            let wrong = compute(&ops, &input);
            let differ = |(a, b): (&f32, &f32)| {
                !a.is_nan() && rounded(dtype, *a).to_bits() != rounded(dtype, *b).to_bits()
            };
            if right.iter().zip(&wrong).any(differ) {
                *wanted -= 1;
                tells = true;
            }
        }
        if tells {
            kept.push(input);
            missing.retain(|(_, wanted)| *wanted > 0);
        }
    }
    kept
}

type Found = Arc<OnceLock<Vec<Vec<f32>>>>;

/// What [`search`] finds, once in a process for each name.
pub(super) fn telling(
    name: String,
    dtype: DType,
    trials: usize,
    draw: impl FnMut() -> Vec<f32>,
    compute: impl Fn(&Ops, &Vec<f32>) -> Vec<f32>,
) -> Vec<Vec<f32>> {
    static FOUND: Mutex<BTreeMap<String, Found>> = Mutex::new(BTreeMap::new());
    let found = {
        let mut all = FOUND
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        all.entry(name).or_default().clone()
    };
    found
        .get_or_init(|| search(dtype, trials, draw, compute))
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use whittle_tensor::random::Philox4x32;

    fn broken(how: Break) -> Ops {
        Ops {
            broken: Some((7, how)),
            met: None,
        }
    }

    #[test]
    fn a_broken_operation_rounds_as_the_mutant_does() {
        let (right, zero, split) = (
            Ops::default(),
            broken(Break::TowardZero),
            broken(Break::Unfused),
        );
        let tiny = 2f32.powi(-60);
        assert_eq!(zero.sub(7, 1.0, tiny), 1.0 - f32::EPSILON / 2.0);
        assert_eq!(zero.add(7, -1.0, tiny), f32::EPSILON / 2.0 - 1.0);
        assert_eq!(
            (zero.sub(8, 1.0, tiny), right.sub(7, 1.0, tiny)),
            (1.0, 1.0)
        );
        assert_eq!(
            zero.div(7, 2.0, 3.0),
            f32::from_bits((2f32 / 3.0).to_bits() - 1)
        );
        assert_eq!(
            zero.mul(7, 0.1, 3.0),
            f32::from_bits((0.1f32 * 3.0).to_bits() - 1)
        );
        let (a, b) = (1.0 + f32::EPSILON, 1.0 - f32::EPSILON);
        assert_ne!(right.fma(7, a, b, -1.0), 0.0);
        assert_eq!(split.fma(7, a, b, -1.0), 0.0);
        assert_eq!(zero.fma(7, a, b, 0.0), b.max(1.0 - f32::EPSILON / 2.0));
    }

    #[test]
    fn found_inputs_tell_and_others_are_left() {
        let mut random = Philox4x32::new(1, 2);
        let compute = |ops: &Ops, x: &f32| vec![ops.mul(3, *x, 1.1)];
        let found = search(DType::F16, 100_000, || random.next_uniform(), compute);
        assert_eq!(found.len(), WANTED);
        for x in found {
            let wrong = compute(
                &Ops {
                    broken: Some((3, Break::TowardZero)),
                    met: None,
                },
                &x,
            );
            let right = compute(&Ops::default(), &x);
            assert_ne!(rounded(DType::F16, right[0]), rounded(DType::F16, wrong[0]));
        }
        let exact = |ops: &Ops, x: &f32| vec![ops.mul(3, *x, 2.0)];
        assert!(search(DType::F16, 1000, || random.next_uniform(), exact).is_empty());
    }
}
