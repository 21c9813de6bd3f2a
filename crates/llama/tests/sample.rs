//! What a sampler draws, against the softmax that it states.

use std::collections::BTreeSet;
use whittle_llama::Error;
use whittle_llama::sample::Sampler;

const DRAWS: u64 = 40_000;

/// How often each token comes, as shares of all draws.
fn shares(sampler: &Sampler, logits: &[f32]) -> Vec<f64> {
    let mut shares = vec![0.0; logits.len()];
    for draw in 0..DRAWS {
        shares[sampler.choose(logits, draw).unwrap() as usize] += 1.0 / DRAWS as f64;
    }
    shares
}

/// The tokens that come at all.
fn support(sampler: &Sampler, logits: &[f32]) -> BTreeSet<u32> {
    (0..2_000)
        .map(|draw| sampler.choose(logits, draw).unwrap())
        .collect()
}

fn sampler(top_k: Option<usize>, top_p: Option<f32>) -> Sampler {
    Sampler::new(1.0, top_k, top_p, 11).unwrap()
}

/// Logits of tokens with these probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

/// Five standard deviations of a share of [`DRAWS`] independent draws; a right sampler leaves this bound with one token in two
/// million, and the seeds are fixed.
#[track_caller]
fn assert_shares(found: &[f64], expected: &[f64]) {
    for (token, (found, p)) in found.iter().zip(expected).enumerate() {
        let bound = 5.0 * (p * (1.0 - p) / DRAWS as f64).sqrt() + 1e-9;
        assert!(
            (found - p).abs() <= bound,
            "token {token}: {found}, not {p} within {bound}"
        );
    }
}

#[test]
fn frequencies_are_the_softmax_at_the_temperature() {
    let logits = [1.0f32, -0.5, 2.25, 0.0, 2.25, -3.0, f32::NEG_INFINITY];
    for temperature in [0.4f32, 1.0, 2.5] {
        let weights = logits.map(|x| (f64::from(x) / f64::from(temperature)).exp());
        let total: f64 = weights.iter().sum();
        for seed in [0, 1, u64::MAX] {
            let sampler = Sampler::new(temperature, None, None, seed).unwrap();
            assert_shares(&shares(&sampler, &logits), &weights.map(|w| w / total));
        }
    }
}

#[test]
fn frequencies_after_a_cut_are_the_softmax_of_what_is_left() {
    let logits = logits(&[0.15, 0.5, 0.05, 0.3]);
    let found = shares(&sampler(Some(3), None), &logits);
    assert_shares(&found, &[0.15 / 0.95, 0.5 / 0.95, 0.0, 0.3 / 0.95]);
    let found = shares(&sampler(None, Some(0.7)), &logits);
    assert_shares(&found, &[0.0, 0.625, 0.0, 0.375]);
}

#[test]
fn top_k_and_top_p_leave_exactly_the_likeliest_tokens() {
    let logits = logits(&[0.15, 0.5, 0.05, 0.3]);
    let cases: [(Option<usize>, Option<f32>, &[u32]); 13] = [
        (None, None, &[0, 1, 2, 3]),
        (Some(1), None, &[1]),
        (Some(2), None, &[1, 3]),
        (Some(3), None, &[0, 1, 3]),
        (Some(4), None, &[0, 1, 2, 3]),
        (Some(usize::MAX), None, &[0, 1, 2, 3]),
        (None, Some(f32::MIN_POSITIVE), &[1]),
        (None, Some(0.49), &[1]),
        (None, Some(0.51), &[1, 3]),
        (None, Some(0.81), &[0, 1, 3]),
        (None, Some(1.0), &[0, 1, 2, 3]),
        // After the cut to two tokens their shares are 0.625 and 0.375: the share is one of what is left.
        (Some(2), Some(0.62), &[1]),
        (Some(2), Some(0.63), &[1, 3]),
    ];
    for (top_k, top_p, expected) in cases {
        let found = support(&sampler(top_k, top_p), &logits);
        assert!(
            found.iter().eq(expected),
            "{top_k:?}, {top_p:?}: {found:?}, not {expected:?}"
        );
    }
}

#[test]
fn ties_go_to_the_lowest_numbers() {
    let logits = [0.0, 1.0, 1.0, -1.0, 1.0];
    assert_eq!(Sampler::greedy().choose(&logits, 9).unwrap(), 1);
    assert!(support(&sampler(Some(1), None), &logits).iter().eq(&[1]));
    assert!(support(&sampler(Some(2), None), &logits).iter().eq(&[1, 2]));
    assert!(
        support(&sampler(None, Some(0.5)), &logits)
            .iter()
            .eq(&[1, 2])
    );
    // Where no token is possible, all are tied.
    let none = [f32::NEG_INFINITY; 3];
    assert_eq!(sampler(None, None).choose(&none, 0).unwrap(), 0);
}

#[test]
fn greedy_is_the_largest_logit_whatever_the_draw() {
    let logits = [-2.0, f32::NEG_INFINITY, 3.0, 2.999];
    for sampler in [
        Sampler::greedy(),
        Sampler::new(0.0, Some(3), Some(0.9), 5).unwrap(),
    ] {
        assert!(support(&sampler, &logits).iter().eq(&[2]));
    }
    assert_eq!(Sampler::greedy().choose(&[-7.0], 0).unwrap(), 0);
}

#[test]
fn a_draw_is_a_function_of_its_number() {
    let (sampler, logits) = (sampler(None, None), [0.0; 1000]);
    let forwards: Vec<u32> = (0..50)
        .map(|draw| sampler.choose(&logits, draw).unwrap())
        .collect();
    let backwards = (0..50)
        .rev()
        .map(|draw| sampler.choose(&logits, draw).unwrap());
    assert!(backwards.eq(forwards.iter().rev().copied()));
    let distinct: BTreeSet<u32> = forwards.iter().copied().collect();
    assert!(distinct.len() > 40, "{} of 50", distinct.len());
}

#[test]
fn logits_that_are_no_distribution_are_errors_that_name_the_token() {
    for sampler in [
        Sampler::greedy(),
        sampler(None, None),
        sampler(Some(2), Some(0.5)),
    ] {
        for (logits, expected, found) in [
            (&[][..], "at least one", "none"),
            (
                &[0.0, f32::NAN, 1.0],
                "numbers below infinity",
                "NaN of token 1",
            ),
            (&[f32::NAN], "numbers below infinity", "NaN of token 0"),
            (
                &[0.0, 1.0, f32::INFINITY],
                "numbers below infinity",
                "inf of token 2",
            ),
        ] {
            let error = sampler.choose(logits, 0).unwrap_err().to_string();
            let whole = format!("Sampler::choose: logits: expected {expected}, found {found}");
            assert_eq!(error, whole);
        }
    }
}

#[test]
fn samplers_out_of_their_domain_are_errors_that_name_the_argument() {
    let bad = [
        (-1.0, None, None, "temperature"),
        (f32::NAN, None, None, "temperature"),
        (f32::INFINITY, None, None, "temperature"),
        (1.0, Some(0), None, "top_k"),
        (1.0, None, Some(0.0), "top_p"),
        (1.0, None, Some(1.1), "top_p"),
        (1.0, None, Some(f32::NAN), "top_p"),
    ];
    for (temperature, top_k, top_p, name) in bad {
        match Sampler::new(temperature, top_k, top_p, 0) {
            Err(Error::Argument { argument, .. }) => assert_eq!(argument, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}
