//! The reference's int32 words and f16 arithmetic against an oracle that follows the paper's description step by step.

use half::f16;
use proptest::prelude::*;
use whittle_kivi::compat::{
    Extent, Int32, WordBits, dequantize_keys_int32, dequantize_values_int32, keys_from_int32,
    keys_to_int32, quantize_keys_int32, quantize_values_int32, values_from_int32, values_to_int32,
};
use whittle_kivi::{Error, GroupSize, HeadDim};

/// Quantises and packs the last axis of `x`, rows of `len` numbers, in groups of `group`, rounding each step to f16.
fn oracle(x: &[f16], len: usize, group: usize, bits: usize) -> Int32 {
    let top = f16::from_f32(((1 << bits) - 1) as f32);
    let mut found = Int32 {
        codes: vec![],
        scale: vec![],
        min: vec![],
    };
    for row in x.chunks_exact(len) {
        let mut codes = vec![];
        for group in row.chunks_exact(group) {
            let min = group.iter().copied().fold(f16::MAX, f16::min) + f16::ZERO;
            let max = group.iter().copied().fold(f16::MIN, f16::max);
            let scale = (max - min).min(f16::MAX) / top + f16::ZERO;
            found.scale.push(scale);
            found.min.push(min);
            codes.extend(group.iter().map(|x| {
                let quotient = (*x - min).min(f16::MAX) / scale;
                let quotient = if quotient.is_nan() {
                    f16::ZERO
                } else {
                    quotient
                };
                quotient.clamp(f16::ZERO, top).to_f64().round_ties_even() as u32
            }));
        }
        for word in codes.chunks_exact(32 / bits) {
            let places = word.iter().enumerate();
            let word = places.map(|(i, code)| code << (i * bits)).sum::<u32>();
            found.codes.push(word as i32);
        }
    }
    found
}

/// Swaps the last two axes of `[heads, rows, columns]`.
fn swapped<T: Copy>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
    // An empty array has no matrices, whatever their size.
    let matrices = x.chunks_exact((rows * columns).max(1));
    matrices
        .flat_map(|x| (0..rows * columns).map(|i| x[i % rows * columns + i / rows]))
        .collect()
}

fn extents() -> impl Strategy<Value = Extent> {
    let group = prop::sample::select(vec![16, 32, 64]);
    let bits = prop::sample::select(vec![WordBits::Two, WordBits::Four]);
    (0..3usize, 0..4usize, 1..3usize, group, bits).prop_map(
        |(heads, tokens, channels, group, bits)| Extent {
            heads,
            tokens: tokens * group,
            head_dim: HeadDim::new(channels * group).expect("a valid head_dim"),
            group_size: GroupSize::new(group).expect("a valid group size"),
            bits,
        },
    )
}

fn len(extent: Extent) -> usize {
    extent.heads * extent.tokens * extent.head_dim.get()
}

/// Finite f16 of all sizes, many of them small halves so that quotients tie.
fn number() -> impl Strategy<Value = f16> {
    prop_oneof![
        4 => (-5.0..5.0f32).prop_map(f16::from_f32),
        4 => (-7..7i32).prop_map(|i| f16::from_f32(i as f32 / 2.0)),
        1 => (0..8u16).prop_map(f16::from_bits),
        1 => prop_oneof![Just(f16::MAX), Just(f16::MIN)],
    ]
}

fn arrays() -> impl Strategy<Value = (Extent, Vec<f16>)> {
    extents().prop_flat_map(|extent| (Just(extent), prop::collection::vec(number(), len(extent))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn keys_equal_the_reference_words_included((extent, keys) in arrays()) {
        let by_channel = swapped(&keys, extent.tokens, extent.head_dim.get());
        let found = quantize_keys_int32(extent, &keys)?;
        let expected = oracle(&by_channel, extent.tokens.max(1), extent.group_size.get(), extent.bits.get());
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn values_equal_the_reference_words_included((extent, values) in arrays()) {
        let found = quantize_values_int32(extent, &values)?;
        prop_assert_eq!(found, oracle(&values, extent.head_dim.get(), extent.group_size.get(), extent.bits.get()));
    }

    #[test]
    fn codes_of_2_4_and_8_bits_survive_their_words(extent in extents(), eight in any::<bool>(), seed in any::<u8>()) {
        let extent = Extent { bits: if eight { WordBits::Eight } else { extent.bits }, ..extent };
        let mask = ((1u32 << extent.bits.get()) - 1) as u8;
        let codes: Vec<u8> = (0..len(extent)).map(|i| (i as u8).wrapping_mul(151).wrapping_add(seed) & mask).collect();
        let words = keys_to_int32(extent, &codes)?;
        prop_assert_eq!(words.len(), codes.len() * extent.bits.get() / 32);
        prop_assert_eq!(&keys_from_int32(extent, &words)?, &codes);
        let by_channel = swapped(&codes, extent.tokens, extent.head_dim.get());
        let elements = by_channel.iter().enumerate();
        for (i, code) in elements {
            let (word, place) = (i / extent.bits.codes(), i % extent.bits.codes());
            prop_assert_eq!((words[word] as u32 >> (place * extent.bits.get())) as u8 & mask, *code);
        }
        let words = values_to_int32(extent, &codes)?;
        prop_assert_eq!(&values_from_int32(extent, &words)?, &codes);
        for (i, code) in codes.iter().enumerate() {
            let (word, place) = (i / extent.bits.codes(), i % extent.bits.codes());
            prop_assert_eq!((words[word] as u32 >> (place * extent.bits.get())) as u8 & mask, *code);
        }
    }

    #[test]
    fn dequantised_numbers_are_rounded_to_f16_after_the_product_and_after_the_sum((extent, x) in arrays()) {
        let eight = Extent { bits: WordBits::Eight, ..extent };
        let codes: Vec<u8> = (0..x.len()).map(|i| (i * 89 % 256) as u8).collect();
        let groups = x.len() / extent.group_size.get();
        let (scale, min) = (x[..groups].to_vec(), x[x.len() - groups..].to_vec());
        let expected = |code: u8, at: usize| (f16::from_f32(f32::from(code)) * scale[at] + min[at]).to_bits();
        let (tokens, head_dim, group) = (extent.tokens, extent.head_dim.get(), extent.group_size.get());
        let int32 = |codes| Int32 { codes, scale: scale.clone(), min: min.clone() };
        let values = dequantize_values_int32(eight, &int32(values_to_int32(eight, &codes)?))?;
        let keys = dequantize_keys_int32(eight, &int32(keys_to_int32(eight, &codes)?))?;
        for i in 0..x.len() {
            let (head, token, channel) = (i / head_dim / tokens, i / head_dim % tokens, i % head_dim);
            prop_assert_eq!(values[i].to_bits(), expected(codes[i], i / group));
            let at = (head * head_dim + channel) * (tokens / group) + token / group;
            prop_assert_eq!(keys[i].to_bits(), expected(codes[i], at));
        }
    }
}

#[test]
fn a_known_group_has_the_known_word() -> Result<(), Error> {
    // Codes 0, 1, 2, 3 four times over: 0b11_10_01_00 in each byte of the word.
    let extent = Extent {
        heads: 1,
        tokens: 1,
        head_dim: HeadDim::new(16)?,
        group_size: GroupSize::G16,
        bits: WordBits::Two,
    };
    let values: Vec<f16> = (0..16)
        .map(|i| f16::from_f32((i % 4) as f32 * 0.5 - 1.0))
        .collect();
    let found = quantize_values_int32(extent, &values)?;
    assert_eq!(found.codes, [0xe4e4_e4e4_u32 as i32]);
    assert_eq!(
        (found.scale[0], found.min[0]),
        (f16::from_f32(0.5), f16::NEG_ONE)
    );
    assert_eq!(dequantize_values_int32(extent, &found)?, values);
    Ok(())
}

#[test]
fn bad_extents_lengths_and_codes_are_errors() -> Result<(), Error> {
    let extent = Extent {
        heads: 1,
        tokens: 32,
        head_dim: HeadDim::new(48)?,
        group_size: GroupSize::G16,
        bits: WordBits::Two,
    };
    let keys = vec![f16::ONE; 32 * 48];
    assert!(quantize_keys_int32(extent, &keys).is_ok());
    let argument = |result: Result<(), Error>, name: &str| match result {
        Err(Error::Argument { argument, .. }) => assert_eq!(argument, name),
        other => panic!("{name}: {other:?}"),
    };
    let short = Extent {
        tokens: 31,
        ..extent
    };
    argument(
        quantize_keys_int32(short, &keys[48..]).map(|_| ()),
        "tokens",
    );
    let wide = Extent {
        group_size: GroupSize::G32,
        ..extent
    };
    argument(quantize_values_int32(wide, &keys).map(|_| ()), "head_dim");
    argument(
        keys_to_int32(extent, &vec![4; 32 * 48]).map(|_| ()),
        "codes",
    );
    argument(
        values_to_int32(extent, &vec![4; 32 * 48]).map(|_| ()),
        "codes",
    );
    let eight = Extent {
        bits: WordBits::Eight,
        ..extent
    };
    for result in [
        quantize_keys_int32(eight, &keys),
        quantize_values_int32(eight, &keys),
    ] {
        assert!(matches!(result, Err(Error::Unsupported { .. })));
    }
    let shape = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}")
    };
    shape(quantize_keys_int32(extent, &keys[1..]).map(|_| ()));
    shape(quantize_values_int32(extent, &keys[1..]).map(|_| ()));
    shape(keys_from_int32(extent, &[0; 5]).map(|_| ()));
    shape(values_from_int32(extent, &[0; 5]).map(|_| ()));
    let huge = Extent {
        heads: usize::MAX,
        ..extent
    };
    shape(values_from_int32(huge, &[0; 5]).map(|_| ()));
    let mut found = quantize_keys_int32(extent, &keys)?;
    found.scale.pop();
    shape(dequantize_keys_int32(extent, &found).map(|_| ()));
    shape(dequantize_values_int32(extent, &found).map(|_| ()));
    Ok(())
}
