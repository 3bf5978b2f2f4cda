"""Record what transformers reads from tiny GGUF files (needs the package `gguf`, as transformers' own reader does).

Writes tests/fixtures/gguf/: `<case>.gguf` of random weights in every stored type, and expected.json with, for each, logits and greedy text
of transformers' own reading of the file, and token ids of some texts by the tokenizer that the file describes.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type, GGUFWriter, quants
from tokenizers import decoders, pre_tokenizers

import common
from checkpoint_files import ADDED, CHAT_TEMPLATE, build_tokenizer
from common import FIXTURES, fresh_dir, write_json

OUT = FIXTURES / "gguf"
TEXTS = ["Which tile comes first?", "12 apples, 3.14", "it's IT'S we'll", "naïve café\n\n x", "<|im_start|>user\nhi<|im_end|>\n"]

#: Bytes of a block of 256 numbers, and where its f16 factors lie: (type, bytes, factors).
K_BLOCKS = {
    Type.Q2_K: (84, [80, 82]), Type.Q3_K: (110, [108]), Type.Q4_K: (144, [0, 2]), Type.Q5_K: (176, [0, 2]), Type.Q6_K: (210, [208]),
}


def k_quantised(rng, rows, columns, kind):
    """Random blocks of a K type, whose numbers are of the size of weights."""
    size, factors = K_BLOCKS[kind]
    blocks = rng.integers(0, 256, (rows, columns // 256, size), dtype=np.uint8)
    for at in factors:
        largest = {Type.Q6_K: 127 * 32, Type.Q3_K: 32 * 4, Type.Q2_K: 15 * 3, Type.Q4_K: 63 * 15, Type.Q5_K: 63 * 31}[kind]
        factor = np.float16(0.3 / largest)
        blocks[:, :, at : at + 2] = np.frombuffer(factor.tobytes(), dtype=np.uint8)
    return blocks.reshape(rows, -1)


def write(path, arch, sizes, types, seed, tied, pre):
    """A GGUF file; `types` gives the stored type of a tensor by the end of its name."""
    rng = np.random.default_rng(seed)
    hidden, inner, layers, heads, kv, dim = sizes
    tokenizer = json.loads(build_tokenizer().to_str())
    vocab = tokenizer["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get) + [t for t, _ in ADDED]
    kinds = [1] * len(vocab) + [3 if special else 4 for _, special in ADDED]
    merges = [" ".join(m) if isinstance(m, list) else m for m in tokenizer["model"]["merges"]]
    pad = -len(tokens) % 16
    tokens += [f"[PAD{i}]" for i in range(pad)]
    kinds += [5] * pad
    w = GGUFWriter(str(path), arch)
    w.add_name(f"tiny {arch}")
    w.add_license("apache-2.0")
    w.add_context_length(512)
    w.add_embedding_length(hidden)
    w.add_feed_forward_length(inner)
    w.add_block_count(layers)
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_key_length(dim)
    w.add_value_length(dim)
    w.add_rope_dimension_count(dim)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(10000.0)
    w.add_vocab_size(len(tokens))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(kinds)
    w.add_token_merges(merges)
    w.add_bos_token_id(tokens.index("<|endoftext|>"))
    w.add_eos_token_id(tokens.index("<|im_end|>"))
    w.add_pad_token_id(tokens.index("<|endoftext|>"))
    w.add_chat_template(CHAT_TEMPLATE)

    def matrix(name, rows, columns):
        kind = next((kind for end, kind in types.items() if name.endswith(end)), types["default"])
        if kind in K_BLOCKS:
            w.add_tensor(name, k_quantised(rng, rows, columns, kind), raw_dtype=kind)
            return
        values = (rng.standard_normal((rows, columns)) * (1.2 / columns**0.5)).astype(np.float32)
        w.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)

    def vector(name, size, around):
        w.add_tensor(name, (around + 0.2 * rng.standard_normal(size)).astype(np.float32))

    matrix("token_embd.weight", len(tokens), hidden)
    for i in range(layers):
        vector(f"blk.{i}.attn_norm.weight", hidden, 1)
        for part, rows in (("q", heads * dim), ("k", kv * dim), ("v", kv * dim)):
            matrix(f"blk.{i}.attn_{part}.weight", rows, hidden)
            if arch == "qwen2":
                vector(f"blk.{i}.attn_{part}.bias", rows, 0)
            if arch == "qwen3" and part != "v":
                vector(f"blk.{i}.attn_{part}_norm.weight", dim, 1)
        matrix(f"blk.{i}.attn_output.weight", hidden, heads * dim)
        vector(f"blk.{i}.ffn_norm.weight", hidden, 1)
        matrix(f"blk.{i}.ffn_gate.weight", inner, hidden)
        matrix(f"blk.{i}.ffn_up.weight", inner, hidden)
        matrix(f"blk.{i}.ffn_down.weight", hidden, inner)
    vector("output_norm.weight", hidden, 1)
    if not tied:
        matrix("output.weight", len(tokens), hidden)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def tokenizer_of(pre):
    """The tokenizer that the files describe."""
    tokenizer = build_tokenizer()
    if pre == "smollm":
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        )
        tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def main():
    common.deterministic()
    fresh_dir(OUT)
    cases = []
    for name, arch, sizes, types, tied, pre in [
        (
            "llama", "llama", (32, 64, 2, 4, 2, 8),
            {"default": Type.Q8_0, "0.attn_q.weight": Type.Q4_0, "0.attn_k.weight": Type.Q4_1, "1.attn_q.weight": Type.F16,
             "1.attn_k.weight": Type.BF16, "0.ffn_gate.weight": Type.Q5_0, "0.ffn_up.weight": Type.Q5_1, "output.weight": Type.F32},
            False, "smollm",
        ),
        ("qwen2", "qwen2", (32, 64, 1, 4, 2, 8), {"default": Type.Q8_0}, True, "qwen2"),
        (
            "qwen3", "qwen3", (256, 256, 1, 2, 1, 128),
            {"default": Type.Q8_0, "attn_q.weight": Type.Q4_K, "attn_k.weight": Type.Q2_K, "attn_v.weight": Type.Q3_K,
             "ffn_gate.weight": Type.Q5_K, "ffn_up.weight": Type.Q4_K, "ffn_down.weight": Type.Q6_K},
            True, "qwen2",
        ),
    ]:
        path = OUT / f"{name}.gguf"
        write(path, arch, sizes, types, len(cases), tied, pre)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            OUT, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        ids = torch.tensor([[3, 17, 42, 9, 9, 100, 5, 300]])
        with torch.no_grad():
            logits = model(ids).logits[0]
            greedy = model.generate(ids, do_sample=False, max_new_tokens=12, eos_token_id=[], pad_token_id=0)[0, ids.shape[1] :]
        tokenizer = tokenizer_of(pre)
        cases.append(
            {
                "file": path.name,
                "ids": ids[0].tolist(),
                "last_logits": logits[-1].tolist(),
                "greedy": greedy.tolist(),
                "texts": [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in TEXTS],
            }
        )
        print(f"{name}: {path.stat().st_size // 1024} KiB, logits up to {logits.abs().max():.2f}")
    write_json(
        OUT / "expected.json",
        {
            "what": "logits after `ids`, greedy text and token ids of GGUF files, as transformers and tokenizers read them",
            "versions": common.versions(),
            "cases": cases,
        },
    )


if __name__ == "__main__":
    main()
