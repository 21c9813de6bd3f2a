"""Random blocks of every tensor format, with what the PyPI package `gguf` makes of them.

    pip install gguf==0.19.0
    python3 crates/llama/tests/golden/blocks.py            # writes blocks.gguf beside this file
    python3 crates/llama/tests/golden/blocks.py --check    # fails where blocks.gguf is not what would be written

The file, 64 KB, is itself a GGUF file that the package's writer wrote, so the reader is tested on it too. For each format `K`:

    blocks.K     [2, ROW] of type K    random bits, all scales finite
    expected.K   [2, ROW] of type F32  `gguf.quants.dequantize` of them

and for the formats that the package quantises to:

    weights.K    [2, QUANTIZED] of type F32  random weights, among them a row's block of zeros and one of equal weights
    quantized.K  [2, QUANTIZED] of type K    `gguf.quants.quantize` of them

It shares no code with the Rust reader: the two check each other.
"""

import pathlib
import sys
import tempfile

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, quants

SEED = 20_250_407
ROW = 512
QUANTIZED = 256
FILE = pathlib.Path(__file__).with_name("blocks.gguf")

# Where the f16 numbers of a block lie: every one has to be finite, all other bits are free.
HALVES = {
    Type.F16: [0],
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
}
BLOCK = {  # weights, bytes
    Type.F32: (1, 4),
    Type.F16: (1, 2),
    Type.BF16: (1, 2),
    Type.Q4_0: (32, 18),
    Type.Q4_1: (32, 20),
    Type.Q8_0: (32, 34),
    Type.Q4_K: (256, 144),
    Type.Q5_K: (256, 176),
    Type.Q6_K: (256, 210),
}
QUANTIZES = [Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q8_0]


def random_blocks(rng, kind):
    """Bytes [2, bytes of a row]."""
    weights, size = BLOCK[kind]
    blocks = rng.integers(0, 256, (2 * ROW // weights, size), dtype=np.uint8)
    # The exponent of an f16 is bits 2 to 6 of its upper byte, that of a bf16 reaches from there into the lower byte's top bit:
    # one zero among them keeps the number finite.
    for at in HALVES.get(kind, []):
        blocks[:, at + 1] &= rng.choice(np.array([0xBF, 0xDF, 0xEF, 0xF7, 0xFB], dtype=np.uint8), len(blocks))
    if kind == Type.BF16:
        blocks[:, 1] &= rng.choice(np.array([0xBF, 0xDF, 0xEF, 0xF7, 0xFB, 0xFD], dtype=np.uint8), len(blocks))
    if kind == Type.F32:
        blocks[:, 3] &= 0xBF
    return blocks.reshape(2, -1)


def random_weights(rng):
    weights = rng.normal(0.0, 1.0, (2, QUANTIZED)).astype(np.float32)
    weights[0, 32:64] = 0.0
    weights[1, 64:96] = -1.375
    weights[1, 96:128] *= 1e-3
    return weights


def write(path):
    writer = GGUFWriter(path, "blocks")
    writer.add_uint32("seed", SEED)
    for kind in BLOCK:
        rng = np.random.default_rng([SEED, int(kind)])
        blocks = random_blocks(rng, kind)
        writer.add_tensor(f"blocks.{kind.name}", blocks, raw_dtype=kind)
        expected = quants.dequantize(blocks, kind) if kind != Type.F32 else blocks.view(np.float32)
        assert np.isfinite(expected).all(), kind
        writer.add_tensor(f"expected.{kind.name}", expected.astype(np.float32))
        if kind in QUANTIZES:
            weights = random_weights(rng)
            writer.add_tensor(f"weights.{kind.name}", weights)
            quantized = np.ascontiguousarray(quants.quantize(weights, kind)).view(np.uint8)
            writer.add_tensor(f"quantized.{kind.name}", quantized, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    if "--check" in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            again = pathlib.Path(folder) / "blocks.gguf"
            write(again)
            if again.read_bytes() != FILE.read_bytes():
                sys.exit(f"{FILE}: expected what this script writes, found other bytes")
    else:
        write(FILE)
        print(f"{FILE}: {FILE.stat().st_size} bytes")


main()
