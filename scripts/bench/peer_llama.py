"""llama.cpp (llama-cpp-python) as a peer of rollouts: all responses of all prompts in one batch, a prompt read once for all of its responses.

Answers as peer.py does. Needs llama-cpp-python, gguf and numpy, nothing of torch; prompts come as token ids (`peer.py prompts`).
"""

import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import llama_cpp as llama
import numpy as np

PLAIN = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    """llama.cpp's name of a tensor of Qwen2."""
    if name.startswith("model.layers."):
        layer, rest = name.removeprefix("model.layers.").split(".", 1)
        module, kind = rest.rsplit(".", 1)
        return f"blk.{layer}.{PLAIN[module]}.{kind}"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


def write_gguf(model, out, dtype):
    """The checkpoint (Qwen2, bf16, tied head) as a GGUF file without a vocabulary."""
    import gguf

    config = json.loads((model / "config.json").read_text())
    raw = np.memmap(model / "model.safetensors", np.uint8, "r")
    size = int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8 : 8 + size].tobytes())
    header.pop("__metadata__", None)
    part = out.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "qwen2")
    heads = config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config["vocab_size"])
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        bits = raw[8 + size + begin : 8 + size + end].view(np.uint16).reshape(entry["shape"])
        if dtype == "bf16" and bits.ndim == 2:
            writer.add_tensor(gguf_name(name), bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(gguf_name(name), (bits.astype(np.uint32) << 16).view(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(out)


class Model:
    """A model with a context for `sequences` of up to `length` tokens each."""

    def __init__(self, file, threads, sequences, length):
        llama.llama_backend_init()
        settings = llama.llama_model_default_params()
        settings.use_mmap = True
        self.model = llama.llama_model_load_from_file(str(file).encode(), settings)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot read {file}")
        self.vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        context = llama.llama_context_default_params()
        # A cache of its own for each sequence: with one for all, a token would be compared with those of all sequences.
        context.n_ctx, context.n_seq_max, context.kv_unified = sequences * length, sequences, False
        context.n_batch = context.n_ubatch = 512
        context.n_threads = context.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, context)
        self.batch = llama.llama_batch_init(512, 0, 1)
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_dist(0))
        self.sampler = chain

    def forget(self):
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def share(self, source, target):
        llama.llama_memory_seq_cp(llama.llama_get_memory(self.context), source, target, -1, -1)

    def decode(self, tokens):
        """Rows (token, position, sequence, whether its logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, position, 1, sequence, wanted
        if status := llama.llama_decode(self.context, batch):
            raise SystemExit(f"llama_decode: {status}")

    def sample(self, row):
        return llama.llama_sampler_sample(self.sampler, self.context, row)

    def logits(self, row):
        pointer = llama.llama_get_logits_ith(self.context, row)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self.vocab,))


def peak_kb():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["gguf", "rollout"])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--prompts", type=Path, help="JSON of peer.py prompts")
    parser.add_argument("--dtype", choices=["f32", "bf16"])
    for name, usual in (("samples", 8), ("new", 32), ("warmup", 1), ("threads", os.cpu_count())):
        parser.add_argument(f"--{name}", type=int, default=usual)
    args = parser.parse_args()
    if args.job == "gguf":
        return write_gguf(args.model, args.gguf, args.dtype)
    if not args.gguf.exists():
        # A process of its own, whose memory is not counted here.
        subprocess.run([sys.executable, __file__, "gguf", "--model", args.model, "--gguf", args.gguf, "--dtype", args.dtype], check=True)
    given = json.loads(args.prompts.read_text())
    prompts, ends = given["prompts"], set(given["ends"])
    longest = max(map(len, prompts)) + max(args.new, len(given["answer"])) + 1
    model = Model(args.gguf, args.threads, len(prompts) * args.samples, longest)

    def logprobs():
        whole, found = prompts[0] + given["answer"], []
        model.forget()
        model.decode([(token, i, 0, True) for i, token in enumerate(whole)])
        for i, token in enumerate(given["answer"]):
            row = model.logits(len(prompts[0]) - 1 + i).astype(np.float64)
            found.append(row[token] - row.max() - math.log(np.exp(row - row.max()).sum()))
        return found

    def step():
        model.forget()
        active, made = [], 0
        for p, prompt in enumerate(prompts):
            first = p * args.samples
            model.decode([(token, i, first, i == len(prompt) - 1) for i, token in enumerate(prompt)])
            for sample in range(args.samples):
                if sample:
                    model.share(first, first + sample)
                active.append((model.sample(len(prompt) - 1), len(prompt), first + sample))
        for _ in range(args.new - 1):
            made += len(active)
            active = [row for row in active if row[0] not in ends]
            if not active:
                break
            model.decode([(token, position, sequence, True) for token, position, sequence in active])
            active = [(model.sample(i), position + 1, sequence) for i, (_, position, sequence) in enumerate(active)]
        else:
            made += len(active)
        return {"tokens": made, "prompt_tokens": sum(map(len, prompts))}

    def tell(word, result):
        answers.write(f"{word} {json.dumps(result)}\n")
        answers.flush()

    about = {"logprobs": logprobs()}
    tell("READY", {**about, "warmup": [step() for _ in range(args.warmup)], "peak_kb": peak_kb()})
    while line := sys.stdin.readline().strip():
        found = []
        for _ in range(int(line)):
            start = time.perf_counter()
            numbers = step()
            found.append({"seconds": time.perf_counter() - start, **numbers})
        tell("RESULT", {"steps": found, "peak_kb": peak_kb()})


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.exit(main())
