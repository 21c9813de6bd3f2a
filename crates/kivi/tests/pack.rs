//! The planes of a block: where each bit lies, and that packing and unpacking agree with it.

use half::f16;
use proptest::prelude::*;
use whittle_kivi::pack::BlockLayout;
use whittle_kivi::simd::Isa;
use whittle_kivi::{Bits, Config, Error, GroupSize, HeadDim};

const BITS: [Bits; 3] = [Bits::Two, Bits::Three, Bits::Four];
const HEAD_DIMS: [usize; 8] = [16, 32, 48, 64, 80, 96, 128, 256];
const GROUPS: [GroupSize; 4] = [
    GroupSize::G16,
    GroupSize::G32,
    GroupSize::G64,
    GroupSize::G128,
];

fn layout(head_dim: usize, group: GroupSize, key_bits: Bits, value_bits: Bits) -> BlockLayout {
    BlockLayout::new(
        HeadDim::new(head_dim).expect("a valid head_dim"),
        group,
        key_bits,
        value_bits,
    )
}

fn layouts() -> impl Iterator<Item = BlockLayout> {
    HEAD_DIMS.into_iter().flat_map(|head_dim| {
        let groups = GROUPS.into_iter();
        groups.flat_map(move |group| {
            BITS.into_iter()
                .map(move |bits| layout(head_dim, group, bits, bits))
        })
    })
}

/// Codes that look random, `[tokens, head_dim]`.
fn codes(layout: &BlockLayout, bits: Bits, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..layout.group_size() * layout.head_dim())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as u8 & bits.max_code()
        })
        .collect()
}

#[test]
fn every_bit_of_every_code_has_a_place_of_its_own_inside_its_plane() {
    for layout in layouts() {
        let ranges = layout.ranges().clone();
        let mut taken = vec![false; 8 * layout.bytes()];
        for token in 0..layout.group_size() {
            for channel in 0..layout.head_dim() {
                let keys = (0..).map_while(|bit| Some((bit, layout.key_bit(token, channel, bit)?)));
                let keys = keys.map(|(bit, at)| {
                    (
                        at,
                        if bit < 2 {
                            &ranges.key_low
                        } else {
                            &ranges.key_high
                        },
                    )
                });
                let values =
                    (0..).map_while(|bit| Some((bit, layout.value_bit(token, channel, bit)?)));
                let values = values.map(|(bit, at)| {
                    (
                        at,
                        if bit < 2 {
                            &ranges.value_low
                        } else {
                            &ranges.value_high
                        },
                    )
                });
                for (at, plane) in keys.chain(values) {
                    assert!(
                        plane.contains(&(at / 8)),
                        "{layout:?} token {token} channel {channel}"
                    );
                    assert!(
                        !std::mem::replace(&mut taken[at], true),
                        "{layout:?} token {token} channel {channel}"
                    );
                }
            }
        }
        let planes = [
            ranges.key_low,
            ranges.key_high,
            ranges.value_low,
            ranges.value_high,
        ];
        let places: usize = planes.iter().map(|plane| 8 * plane.len()).sum();
        let used = taken.iter().filter(|taken| **taken).count();
        let whole_tiles =
            layout.head_dim().is_multiple_of(32) && layout.group_size().is_multiple_of(32);
        let three_bits = layout.key_bit(0, 0, 2).is_some() && layout.key_bit(0, 0, 3).is_none();
        assert_eq!(
            used == places,
            whole_tiles || !three_bits,
            "only a ragged 3-bit plane is padded: {layout:?}"
        );
    }
}

#[test]
fn bits_lie_where_the_formula_of_their_plane_says() {
    let (head_dim, group) = (96, 64);
    for bits in BITS {
        let layout = layout(head_dim, GroupSize::G64, bits, bits);
        let ranges = layout.ranges();
        for token in 0..group {
            for channel in 0..head_dim {
                for bit in 0..bits.get() {
                    // Low planes and the high plane of 4-bit codes: chunks of 16 by 16, bits 2p and 2p+1 of byte 4·lane+j.
                    let square = |start: usize, lane: usize, depth: usize, depths: usize| {
                        let chunk = lane / 16 * (depths / 16) + depth / 16;
                        let (p, j) = (depth % 16 / 4, depth % 4);
                        8 * (start + 64 * chunk + 4 * (lane % 16) + j) + 2 * p + bit % 2
                    };
                    // The high plane of 3-bit codes: chunks of 16 lanes by 32, bit p of byte 4·lane+j.
                    let long = |start: usize, lane: usize, depth: usize, depths: usize| {
                        let chunk = lane / 16 * (depths / 32) + depth / 32;
                        let (p, j) = (depth % 32 / 4, depth % 4);
                        8 * (start + 64 * chunk + 4 * (lane % 16) + j) + p
                    };
                    let (key, value) = match (bit, bits) {
                        (0 | 1, _) => (
                            square(ranges.key_low.start, token, channel, head_dim),
                            square(ranges.value_low.start, channel, token, group),
                        ),
                        (_, Bits::Three) => (
                            long(ranges.key_high.start, token, channel, head_dim),
                            long(ranges.value_high.start, channel, token, group),
                        ),
                        _ => (
                            square(ranges.key_high.start, token, channel, head_dim),
                            square(ranges.value_high.start, channel, token, group),
                        ),
                    };
                    assert_eq!(layout.key_bit(token, channel, bit), Some(key));
                    assert_eq!(layout.value_bit(token, channel, bit), Some(value));
                }
            }
        }
        assert_eq!(layout.key_bit(group, 0, 0), None);
        assert_eq!(layout.key_bit(0, head_dim, 0), None);
        assert_eq!(layout.value_bit(0, 0, bits.get()), None);
    }
}

#[test]
fn packed_codes_come_back_bit_by_bit_and_as_f32_on_every_instruction_set() -> Result<(), Error> {
    for (seed, layout) in layouts().enumerate() {
        let bits = BITS[seed % 3];
        let (keys, values) = (
            codes(&layout, bits, seed as u64),
            codes(&layout, bits, 1000 + seed as u64),
        );
        // Whatever stood in the planes before must not matter.
        let mut block = vec![0xff; layout.bytes()];
        layout.pack_keys(&keys, &mut block)?;
        for (token, row) in values.chunks_exact(layout.head_dim()).enumerate() {
            layout.pack_value(token, row, &mut block)?;
        }
        let (tokens, channels) = (layout.group_size(), layout.head_dim());
        for token in 0..tokens {
            for channel in 0..channels {
                let at = token * channels + channel;
                assert_eq!(
                    layout.key_code(&block, token, channel),
                    Some(keys[at]),
                    "{layout:?}"
                );
                assert_eq!(
                    layout.value_code(&block, token, channel),
                    Some(values[at]),
                    "{layout:?}"
                );
            }
        }
        for isa in Isa::available() {
            let (mut by_channel, mut by_token) = (vec![-1.0; keys.len()], vec![-1.0; keys.len()]);
            layout.unpack_keys_on(isa, &block, &mut by_channel)?;
            layout.unpack_values_on(isa, &block, &mut by_token)?;
            for token in 0..tokens {
                for channel in 0..channels {
                    let at = token * channels + channel;
                    assert_eq!(
                        by_channel[channel * tokens + token],
                        f32::from(keys[at]),
                        "{} {layout:?}",
                        isa.name()
                    );
                    assert_eq!(
                        by_token[at],
                        f32::from(values[at]),
                        "{} {layout:?}",
                        isa.name()
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn packing_keys_leaves_the_rest_of_the_block_alone_and_zeroes_what_is_not_written()
-> Result<(), Error> {
    for bits in BITS {
        let layout = layout(80, GroupSize::G32, bits, bits);
        let mut block = vec![0xa5; layout.bytes()];
        let tokens = 19;
        layout.pack_keys(&vec![bits.max_code(); tokens * 80], &mut block)?;
        let ranges = layout.ranges();
        let planes = ranges.key_low.start..ranges.key_high.end;
        let ones: u32 = block[planes.clone()]
            .iter()
            .map(|byte| byte.count_ones())
            .sum();
        assert_eq!(ones as usize, tokens * 80 * bits.get());
        assert!(block[planes.end..].iter().all(|byte| *byte == 0xa5));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn packing_one_value_changes_that_token_alone(
        head_dim in prop::sample::select(&HEAD_DIMS[..]),
        group in prop::sample::select(&GROUPS[..]),
        bits in prop::sample::select(&BITS[..]),
        at in any::<prop::sample::Index>(),
        before in any::<u8>(),
    ) {
        let layout = layout(head_dim, group, Bits::Two, bits);
        let token = at.index(layout.group_size());
        let mut block = vec![before; layout.bytes()];
        layout.pack_value(token, &vec![bits.max_code() & !before; head_dim], &mut block)?;
        let mut expected = vec![before; layout.bytes()];
        for channel in 0..head_dim {
            for bit in 0..bits.get() {
                let place = layout.value_bit(token, channel, bit).expect("a place");
                expected[place / 8] &= !(1 << (place % 8));
                expected[place / 8] |= (!before >> bit & 1) << (place % 8);
            }
        }
        prop_assert_eq!(block, expected);
    }
}

#[test]
fn a_block_has_the_size_that_the_bits_say() {
    assert_eq!(
        layout(64, GroupSize::G32, Bits::Two, Bits::Two).bytes(),
        1536
    );
    for layout in layouts() {
        let ranges = layout.ranges();
        let parts = [
            &ranges.key_low,
            &ranges.key_high,
            &ranges.key_scale,
            &ranges.key_min,
            &ranges.value_low,
            &ranges.value_high,
            &ranges.value_scale,
            &ranges.value_min,
        ];
        let mut end = 0;
        for part in parts {
            assert_eq!(part.start, end, "{layout:?}");
            end = part.end;
        }
        assert_eq!(end, layout.bytes());
        assert_eq!(layout.bytes() % 64, 0);
        for plane in [
            &ranges.key_low,
            &ranges.key_high,
            &ranges.value_low,
            &ranges.value_high,
        ] {
            assert_eq!((plane.start % 64, plane.len() % 64), (0, 0), "{layout:?}");
        }
    }
}

#[test]
fn metadata_have_the_shapes_of_the_block_and_keep_what_is_written() -> Result<(), Error> {
    let layout = Config::balanced().block_layout(HeadDim::new(80)?);
    assert_eq!(
        (
            layout.head_dim(),
            layout.group_size(),
            layout.value_groups()
        ),
        (80, 32, 5)
    );
    // Two bytes of alignment are what f16 needs.
    let mut memory = vec![0u16; layout.bytes() / 2];
    let block: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
    let number = |i: usize| f16::from_f32(i as f32);
    let (scale, min) = layout.key_metadata_mut(block)?;
    assert_eq!((scale.len(), min.len()), (80, 80));
    (0..80).for_each(|i| (scale[i], min[i]) = (number(i), number(100 + i)));
    let (scale, min) = layout.value_metadata_mut(block)?;
    assert_eq!((scale.len(), min.len()), (160, 160));
    (0..160).for_each(|i| (scale[i], min[i]) = (number(200 + i), number(400 + i)));
    let (scale, min) = layout.key_metadata(block)?;
    (0..80).for_each(|i| assert_eq!((scale[i], min[i]), (number(i), number(100 + i))));
    let (scale, min) = layout.value_metadata(block)?;
    (0..160).for_each(|i| assert_eq!((scale[i], min[i]), (number(200 + i), number(400 + i))));
    Ok(())
}

#[test]
fn wrong_lengths_tokens_and_alignment_are_errors() {
    let layout = layout(64, GroupSize::G32, Bits::Two, Bits::Two);
    let mut memory = vec![0u16; layout.bytes() / 2 + 1];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
    let (block, misaligned) = (0..layout.bytes(), 1..layout.bytes() + 1);
    let shape = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}")
    };
    shape(layout.pack_keys(&[0; 64 * 32], &mut bytes[1..block.end]));
    shape(layout.pack_keys(&[0; 64 * 33], &mut bytes[block.clone()]));
    shape(layout.pack_keys(&[0; 63], &mut bytes[block.clone()]));
    shape(layout.pack_value(0, &[0; 63], &mut bytes[block.clone()]));
    shape(layout.unpack_keys(&bytes[block.clone()], &mut [0.0; 5]));
    shape(layout.unpack_values(&bytes[1..block.end], &mut [0.0; 64 * 32]));
    shape(layout.key_metadata(&bytes[1..block.end]).map(|_| ()));
    let argument = |result: Result<(), Error>, name| match result {
        Err(Error::Argument { argument, .. }) => assert_eq!(argument, name),
        other => panic!("{other:?}"),
    };
    argument(
        layout.pack_value(32, &[0; 64], &mut bytes[block.clone()]),
        "token",
    );
    argument(
        layout.key_metadata(&bytes[misaligned.clone()]).map(|_| ()),
        "block",
    );
    argument(
        layout
            .value_metadata_mut(&mut bytes[misaligned])
            .map(|_| ()),
        "block",
    );
    assert_eq!(layout.key_code(&bytes[block.clone()], 32, 0), None);
    assert_eq!(layout.value_code(&bytes[block], 0, 64), None);
}
