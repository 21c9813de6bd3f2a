"""Golden values of SmolLM2-135M-Instruct, computed with numpy in f32 from the GGUF file.

    python3 xtask/golden/smollm2.py data

reads   data/SmolLM2-135M-Instruct.Q4_1.gguf and data/wikitext2/test.txt,
writes  data/smollm2_golden/
          tokenizer.json                  the GGUF's vocabulary and merges in Hugging Face form
          france.npz                      ids i32 [5], logits_last f32 [vocab], logits_all_f16 f16 [5, vocab]
          golden.json                     greedy continuation; perplexity of eight chunks of 512 WikiText-2 tokens
          wikitext2_test_first8192.u16    the first 8,192 tokens of the WikiText-2 test split, little-endian u16

It shares no code with the Rust decoder: it has its own GGUF reader and is written from the definitions (RMSNorm, interleaved
RoPE, grouped-query attention, SwiGLU, tied embedding), so that the two check each other. Needs numpy and tokenizers;
`cargo xtask data --golden` installs them and runs this file. Two minutes on two cores.
"""

import json
import pathlib
import struct
import sys
import time

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

PROMPT = "The capital of France is"
NEW_TOKENS = 24
CHUNK = 512
CHUNKS = 8
TEXT_CHARACTERS = 60_000
TEXT_TOKENS = 8_192


class Gguf:
    """A GGUF file of version 3: metadata in `self.metadata`, tensors as f32 arrays by name."""

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, path):
        self.file = np.memmap(path, dtype=np.uint8, mode="r")
        self.at = 4
        if bytes(self.file[:4]) != b"GGUF" or self.number("I") != 3:
            sys.exit(f"{path}: expected a GGUF file of version 3")
        tensors, pairs = self.number("Q"), self.number("Q")
        self.metadata = {}
        for _ in range(pairs):
            name = self.string()
            self.metadata[name] = self.value(self.number("I"))
        self.tensors = {}
        for _ in range(tensors):
            name = self.string()
            # The file lists the innermost dimension first.
            shape = [self.number("Q") for _ in range(self.number("I"))][::-1]
            self.tensors[name] = (shape, self.number("I"), self.number("Q"))
        alignment = self.metadata.get("general.alignment", 32)
        self.data = -(-self.at // alignment) * alignment

    def number(self, kind):
        size = struct.calcsize(kind)
        (value,) = struct.unpack("<" + kind, bytes(self.file[self.at : self.at + size]))
        self.at += size
        return value

    def string(self):
        length = self.number("Q")
        self.at += length
        return bytes(self.file[self.at - length : self.at]).decode("utf-8")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            inner, length = self.number("I"), self.number("Q")
            return [self.value(inner) for _ in range(length)]
        return self.number(self.SCALARS[kind])

    def tensor(self, name):
        shape, kind, offset = self.tensors[name]
        count = int(np.prod(shape))
        start = self.data + offset

        def blocks(size):
            return self.file[start : start + count // 32 * size].reshape(-1, size)

        def halves(columns):
            return np.ascontiguousarray(columns).view("<f2").astype(np.float32)

        if kind == 0:  # F32
            values = self.file[start : start + 4 * count].view("<f4").astype(np.float32)
        elif kind == 1:  # F16
            values = self.file[start : start + 2 * count].view("<f2").astype(np.float32)
        elif kind == 3:  # Q4_1: scale, min, 16 bytes; element i in the low half of byte i, element 16 + i in the high half
            block = blocks(20)
            codes = np.concatenate([block[:, 4:] & 15, block[:, 4:] >> 4], axis=1).astype(np.float32)
            values = halves(block[:, 0:2]) * codes + halves(block[:, 2:4])
        elif kind == 8:  # Q8_0: scale, 32 signed bytes
            block = blocks(34)
            values = halves(block[:, 0:2]) * np.ascontiguousarray(block[:, 2:]).view(np.int8).astype(np.float32)
        else:
            sys.exit(f"{name}: expected the type F32, F16, Q4_1 or Q8_0, found {kind}")
        return values.reshape(shape)


class Decoder:
    """A Llama decoder in f32. `forward` reads all tokens of a sequence at once; there is no cache to be wrong."""

    def __init__(self, gguf):
        setting = lambda name: gguf.metadata["llama." + name]
        self.heads = setting("attention.head_count")
        self.kv_heads = setting("attention.head_count_kv")
        self.head_dim = setting("rope.dimension_count")
        self.base = setting("rope.freq_base")
        self.epsilon = np.float32(setting("attention.layer_norm_rms_epsilon"))
        self.embedding = gguf.tensor("token_embd.weight")
        self.output_norm = gguf.tensor("output_norm.weight")
        parts = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
        self.layers = [
            {part: gguf.tensor(f"blk.{layer}.{part}.weight") for part in parts} for layer in range(setting("block_count"))
        ]

    def norm(self, x, weight):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon) * weight

    def rope(self, x):
        """Turns the pair (2i, 2i+1) of each head by position · base^(-2i/head_dim). x: [tokens, heads, head_dim]."""
        exponent = np.arange(0, self.head_dim, 2, dtype=np.float64) / self.head_dim
        angle = np.arange(len(x), dtype=np.float64)[:, None] * self.base**-exponent
        cos, sin = (f(angle).astype(np.float32)[:, None, :] for f in (np.cos, np.sin))
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)

    def attention(self, q, k, v):
        """q: [tokens, heads, head_dim]; k, v: [tokens, kv_heads, head_dim]; query t sees the tokens 0 to t."""
        tokens, group = len(q), self.heads // self.kv_heads
        hidden = np.triu(np.full((tokens, tokens), -np.inf, dtype=np.float32), 1)
        out = np.empty_like(q)
        for head in range(self.heads):
            score = q[:, head] @ k[:, head // group].T / np.float32(np.sqrt(self.head_dim)) + hidden
            weight = np.exp(score - score.max(axis=1, keepdims=True))
            out[:, head] = weight / weight.sum(axis=1, keepdims=True) @ v[:, head // group]
        return out.reshape(tokens, -1)

    def forward(self, ids):
        """Logits at every position: [tokens, vocab]."""
        x = self.embedding[ids]
        tokens = len(ids)
        for layer in self.layers:
            h = self.norm(x, layer["attn_norm"])
            q = self.rope((h @ layer["attn_q"].T).reshape(tokens, self.heads, self.head_dim))
            k = self.rope((h @ layer["attn_k"].T).reshape(tokens, self.kv_heads, self.head_dim))
            v = (h @ layer["attn_v"].T).reshape(tokens, self.kv_heads, self.head_dim)
            x = x + self.attention(q, k, v) @ layer["attn_output"].T
            h = self.norm(x, layer["ffn_norm"])
            gate = h @ layer["ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["ffn_up"].T)) @ layer["ffn_down"].T
        return self.norm(x, self.output_norm) @ self.embedding.T


def tokenizer(metadata):
    """Byte-level BPE as the metadata says: single digits are split off, then GPT-2's pattern."""
    if (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]) != ("gpt2", "smollm"):
        sys.exit("expected the tokenizer gpt2/smollm")
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    kinds = metadata["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds) if kind == 3]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return made


def surprise(decoder, ids):
    """The sum of -ln p(next token) over a chunk, in f64."""
    logits = decoder.forward(ids)[:-1].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return float(np.sum(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids) - 1), ids[1:]]))


def main(data):
    start = time.monotonic()

    def say(text):
        print(f"  {time.monotonic() - start:6.1f} s  {text}", flush=True)

    out = data / "smollm2_golden"
    out.mkdir(parents=True, exist_ok=True)

    def write(name, contents):
        """Whole or not at all: beside its place, then renamed."""
        partial = out / (name + ".partial")
        partial.write_bytes(contents)
        partial.replace(out / name)
        say(f"wrote {name}, {len(contents)} bytes")

    gguf = Gguf(data / "SmolLM2-135M-Instruct.Q4_1.gguf")
    text = (data / "wikitext2" / "test.txt").read_bytes().decode("utf-8")[:TEXT_CHARACTERS]
    say("model read")
    bpe = tokenizer(gguf.metadata)
    form = json.loads(bpe.to_str())
    # Merges as "a b", the older of the two forms that readers know, and the shorter.
    form["model"]["merges"] = [" ".join(merge) for merge in form["model"]["merges"]]
    write("tokenizer.json", json.dumps(form, indent=2, ensure_ascii=False).encode("utf-8"))
    stream = np.array(bpe.encode(text).ids)
    write("wikitext2_test_first8192.u16", stream[:TEXT_TOKENS].astype("<u2").tobytes())

    decoder = Decoder(gguf)
    say("weights widened to f32")
    ids = np.array(bpe.encode(PROMPT).ids)
    logits = decoder.forward(ids)
    partial = out / "france.partial.npz"
    np.savez_compressed(
        partial, ids=ids.astype(np.int32), logits_last=logits[-1], logits_all_f16=logits.astype(np.float16)
    )
    partial.replace(out / "france.npz")
    say("wrote france.npz")

    greedy = list(ids)
    for _ in range(NEW_TOKENS):
        greedy.append(int(decoder.forward(np.array(greedy))[-1].argmax()))
    greedy = [int(token) for token in greedy]
    say(f"greedy: {bpe.decode(greedy)!r}")

    surprises = []
    for chunk in range(CHUNKS):
        surprises.append(surprise(decoder, stream[chunk * CHUNK : (chunk + 1) * CHUNK]))
        say(f"chunk {chunk + 1} of {CHUNKS}: perplexity {np.exp(surprises[-1] / (CHUNK - 1)):.3f}")
    golden = {
        "prompt": PROMPT,
        "ids": [int(token) for token in ids],
        "greedy_ids": greedy,
        "greedy_text": bpe.decode(greedy),
        "ppl_ctx512_first8_chunks_f32_dequant": [round(float(np.exp(s / (CHUNK - 1))), 3) for s in surprises],
        "running_ppl_8x512": round(float(np.exp(sum(surprises) / (CHUNKS * (CHUNK - 1)))), 3),
        "note": f"chunk i = tokens[i*{CHUNK}:(i+1)*{CHUNK}] of the WikiText-2 test split (first {TEXT_CHARACTERS} characters "
        f"tokenised, no BOS), next-token NLL over {CHUNK - 1} positions; f32 dequantised weights, interleaved RoPE",
    }
    write("golden.json", (json.dumps(golden, indent=1) + "\n").encode("utf-8"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
