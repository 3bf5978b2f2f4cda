"""The peers' side: one process does one job with given settings.

    peer.py sft      a hand-written training loop over transformers' model: only the step is timed, batches are ready before;
                     with --adapter, of a PEFT adapter
    peer.py rollout  transformers' `generate`, batched, with the key-value cache
    peer.py grpo     TRL's GRPOTrainer, from the end of one step to the end of the next
    peer.py machine  what the machine can do: torch's matrix product in f32 and bf16, and reading memory

After --warmup steps it prints READY. Then it answers every line N of its input with N more steps, and a line RESULT of JSON: so that
the processes of several settings stay, and are measured in turns. The end of its input ends it. Some jobs are done at once and end:

    peer.py adapter  write a fresh PEFT adapter to --adapter, which both sides then train
    peer.py qwen     write a random checkpoint of Qwen2.5-0.5B's architecture to --model, with the tokenizer of --tokenizer
    peer.py prompts  write the token ids of prompts, of the first answer and of what ends a response to --out, for peer_llama.py
    peer.py opening  print the number of tokens before a prompt's picture
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def status_kb(field):
    """A memory figure of this process in kB, e.g. VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return None


def tell(word, result):
    # What libraries print goes to stderr (see `main`): stdout is the caller's.
    ANSWERS.write(f"{word} {json.dumps(result)}\n")
    ANSWERS.flush()


def asked():
    """Steps that are asked for next; none at the end."""
    line = sys.stdin.readline()
    return int(line) if line.strip() else None


def serve(args, step, **about):
    """Warm up, then answer. `step` does one step and returns its numbers."""
    began = time.time()
    first = [step()]
    finished = time.time()
    first += [step() for _ in range(args.warmup - 1)]
    tell("READY", {**about, "first_step_began": began, "first_step_at": finished, "warmup": first, "peak_kb": status_kb("VmHWM")})
    while (count := asked()) is not None:
        found = []
        for _ in range(count):
            start = time.perf_counter()
            numbers = step()
            found.append({"seconds": time.perf_counter() - start, **numbers})
        tell("RESULT", {"steps": found, "peak_kb": status_kb("VmHWM")})


def load(args, dtype):
    """The model as transformers loads it, and what makes its inputs: a processor, or a tokenizer for text alone."""
    from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    seeing = (Path(args.model) / "preprocessor_config.json").exists()
    kind, inputs = (Qwen2_5_VLForConditionalGeneration, AutoProcessor) if seeing else (AutoModelForCausalLM, AutoTokenizer)
    return kind.from_pretrained(args.model, attn_implementation=args.attn, dtype=dtype), inputs.from_pretrained(args.model)


def records(args, count):
    """The first `count` training records, from the start again when there are fewer."""
    with open(Path(args.data) / "train" / "metadata.jsonl") as lines:
        found = [json.loads(line) for line, _ in zip(lines, range(count))]
    return [found[i % len(found)] for i in range(count)]


def image_of(args, record):
    from PIL import Image

    return Image.open(Path(args.data) / "train" / record["images"][0]).convert("RGB")


def prompt(processor, record):
    """The text of the record's question, up to where the answer begins."""
    question = record["messages"][0]["content"]
    content = question
    if "images" in record:
        # The newline after the picture belongs to the text.
        content = [{"type": "image"}, {"type": "text", "text": "\n" + question.removeprefix("<image>\n")}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)


def encode(args, processor, texts, chosen, side):
    """`texts` with the pictures of `chosen` as one batch."""
    images = {"images": [[image_of(args, r)] for r in chosen]} if "images" in chosen[0] else {}
    return processor(text=texts, padding=True, padding_side=side, return_tensors="pt", **images)


def training_batch(args, model, processor, chosen):
    """Everything a step needs that does not depend on the weights: ids, pixels, positions, and which rows predict what."""
    answers = [r["messages"][1]["content"] + "<|im_end|>" for r in chosen]
    batch = encode(args, processor, [prompt(processor, r) + a for r, a in zip(chosen, answers)], chosen, "right")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    lengths = mask.sum(1)
    answer_lengths = torch.tensor([len(processor.tokenizer(a)["input_ids"]) for a in answers])
    column = torch.arange(ids.shape[1])[None]
    response = (column >= (lengths - answer_lengths)[:, None]) & (column < lengths[:, None])
    # Row t predicts token t + 1; logits are computed for those rows only.
    predicting = (response[:, 1:].reshape(-1)).nonzero().squeeze(1)
    rows = predicting // (ids.shape[1] - 1) * ids.shape[1] + predicting % (ids.shape[1] - 1)
    positions, _ = model.model.get_rope_index(
        ids, mm_token_type_ids=batch["mm_token_type_ids"], image_grid_thw=batch["image_grid_thw"], attention_mask=mask
    )
    inputs = {
        "input_ids": ids,
        "pixel_values": batch["pixel_values"],
        "image_grid_thw": batch["image_grid_thw"],
        "position_ids": positions,
        # Without padding no mask: scaled_dot_product_attention then runs its causal kernel.
        "attention_mask": None if bool((mask == 1).all()) else mask,
    }
    return inputs, rows, ids[response], int(lengths.sum())


def adapted(args, model):
    """The model with the adapter of --adapter in training."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, args.adapter, is_trainable=True)


def sft(args):
    # Frozen weights are held in bf16 where products are: no copy of them is made in every step.
    frozen_bf16 = args.adapter and args.dtype == "bf16"
    model, processor = load(args, DTYPES[args.dtype] if frozen_bf16 else torch.float32)
    inputs, rows, targets, length = training_batch(args, model, processor, records(args, args.batch))
    if args.adapter:
        adapted(args, model)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)
    head = model.lm_head

    def loss_of(inputs, rows, targets):
        hidden = model.model(**inputs, use_cache=False).last_hidden_state
        return torch.nn.functional.cross_entropy(head(hidden.flatten(0, 1)[rows]).float(), targets)

    if args.compile:
        loss_of = torch.compile(loss_of, mode=args.compile)

    def step():
        with autocast(args):
            loss = loss_of(inputs, rows, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item(), "tokens": length, "response_tokens": len(targets)}

    opening = inputs["input_ids"][0].tolist().index(model.config.image_token_id)
    serve(args, step, opening=opening, trained=sum(p.numel() for p in trained))


def autocast(args):
    return torch.autocast("cpu", torch.bfloat16) if args.dtype == "bf16" else contextlib.nullcontext()


def special(processor):
    """Tokens that a response must not hold: pictures that are not there."""
    return [i for t, i in processor.tokenizer.get_added_vocab().items() if "vision" in t or "pad" in t or "im_start" in t]


def rollout(args):
    model, processor = load(args, DTYPES[args.dtype])
    model.eval()
    chosen = records(args, args.batch)
    inputs = encode(args, processor, [prompt(processor, r) for r in chosen], chosen, "left")
    sampling = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=args.samples, max_new_tokens=args.new, use_cache=True)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        sampling["suppress_tokens"] = special(processor)
    if args.compile:
        sampling.update(cache_implementation="static", compile_config=compiling(args.compile))
    ends = torch.tensor(model.generation_config.eos_token_id).flatten()
    prompt_length = inputs["input_ids"].shape[1]
    # The log-probability of each token of the first record's own response, to be compared.
    answer = chosen[0]["messages"][1]["content"] + "<|im_end|>"
    whole = encode(args, processor, [prompt(processor, chosen[0]) + answer], chosen[:1], "right")
    if "pixel_values" in whole:
        whole["pixel_values"] = whole["pixel_values"].to(model.dtype)
    ids = getattr(processor, "tokenizer", processor)(answer, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = model(**whole).logits[:, -ids.shape[1] - 1 : -1].float().log_softmax(-1)
    logprobs = logits.gather(2, ids[..., None]).flatten().tolist()

    def step():
        with torch.inference_mode():
            made = model.generate(**inputs, **sampling)[:, prompt_length:]
        ended = torch.isin(made, ends).int()
        # Tokens after the first end are filling; the end itself is sampled.
        return {"tokens": int((ended.cumsum(1) - ended == 0).sum()), "prompt_tokens": int(inputs["attention_mask"].sum())}

    serve(args, step, logprobs=logprobs)


def compiling(mode):
    from transformers import CompileConfig

    config = CompileConfig(mode=mode)
    config._compile_all_devices = True
    return config


def grpo(args):
    import tempfile

    import datasets
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    model, processor = load(args, torch.float32)
    chosen = records(args, args.batch)
    rows = [{"prompt": [{"role": "user", "content": r["messages"][0]["content"].removeprefix("<image>")}]} for r in chosen]
    data = datasets.Dataset.from_list(rows).add_column("image", [str(Path(args.data) / "train" / r["images"][0]) for r in chosen])
    data = data.cast_column("image", datasets.Image())

    class Turns(TrainerCallback):
        """Does the steps that are asked for: each begins where the one before it ended."""

        steps, made, seen, left, word = [], [], 0, args.warmup, "READY"

        def on_train_begin(self, *_args, **_kwargs):
            self.mark = time.perf_counter()

        def on_step_end(self, _args, state, control, **_kwargs):
            seconds, tokens = time.perf_counter() - self.mark, state.num_input_tokens_seen - self.seen
            self.steps.append({"seconds": seconds, "tokens": self.made.pop(), "all_tokens": tokens})
            self.seen = state.num_input_tokens_seen
            if len(self.steps) == self.left:
                tell(self.word, {"warmup" if self.word == "READY" else "steps": self.steps, "peak_kb": status_kb("VmHWM")})
                self.steps, self.left, self.word = [], asked(), "RESULT"
                control.should_training_stop = self.left is None
            self.mark = time.perf_counter()

    turns = Turns()

    def reward(completion_ids, **_kwargs):
        turns.made.append(sum(len(ids) for ids in completion_ids))
        return [-float(sum(i % 7 for i in ids)) for ids in completion_ids]

    generation = {"suppress_tokens": special(processor)}
    if args.compile:
        generation.update(cache_implementation="static", compile_config=compiling(args.compile))
    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out, use_cpu=True, bf16=args.dtype == "bf16", gradient_checkpointing=False, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, max_steps=1_000_000, learning_rate=1e-6, lr_scheduler_type="constant",
            per_device_train_batch_size=args.batch * args.samples // args.micro_batches, gradient_accumulation_steps=args.micro_batches, num_generations=args.samples,
            max_completion_length=args.new, temperature=1.0, top_p=1.0, top_k=0, loss_type="dapo", beta=0.0,
            num_iterations=1, max_grad_norm=1.0, optim="adamw_torch_fused", generation_kwargs=generation,
            dataloader_pin_memory=False, torch_compile=bool(args.compile), torch_compile_mode=args.compile or None,
        )
        trainer = GRPOTrainer(model, reward_funcs=reward, args=config, train_dataset=data, processing_class=processor)
        trainer.add_callback(turns)
        trainer.train()


def machine(args):
    """Products of 2048 x 2048 in f32 and bf16, and the sum of a gigabyte."""
    best, size = {}, args.size
    for name, dtype in DTYPES.items():
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        out = torch.empty(size, size, dtype=dtype)
        best[f"gflops_{name}"] = 2e-9 * size**3, lambda a=a, b=b, out=out: torch.mm(a, b, out=out)
    memory = torch.ones(size << 16, dtype=torch.int64)
    best["gigabytes"] = 8e-9 * len(memory), memory.sum

    def step():
        rates = {}
        for name, (amount, work) in best.items():
            start = time.perf_counter()
            work()
            rates[name] = amount / (time.perf_counter() - start)
        return rates

    serve(args, step)


def adapter(args):
    from peft import LoraConfig, get_peft_model

    model, _ = load(args, torch.float32)
    decoder = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    peft = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=decoder, task_type="CAUSAL_LM"))
    peft.save_pretrained(args.adapter)


def qwen(args):
    """Qwen2.5-0.5B's architecture (its config.json on the Hub), random weights in bf16, as the published ones are stored."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    out = Path(args.model)
    # Ends, so that both sides know the same: those of the tokenizer's own checkpoint.
    ends = {k: v for k, v in json.loads((Path(args.tokenizer) / "config.json").read_text()).items() if k in ("bos_token_id", "eos_token_id")}
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        max_position_embeddings=32_768, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, rms_norm_eps=1e-6, tie_word_embeddings=True, **ends,
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(out)
    for name in ("tokenizer_config.json", "chat_template.json", "generation_config.json"):
        shutil.copy(Path(args.tokenizer) / name, out)
    # Every row of the head is a token of the vocabulary, so that both sides may sample the same.
    tokens = json.loads((Path(args.tokenizer) / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    # The special ones among them, or transformers gives them new numbers at the end.
    vocabulary.update({t["content"]: t["id"] for t in tokens["added_tokens"]})
    taken = set(vocabulary.values())
    vocabulary.update({f"<{i}>": i for i in range(config.vocab_size) if i not in taken})
    (out / "tokenizer.json").write_text(json.dumps(tokens))


def prompts(args):
    from transformers import AutoTokenizer

    tokenizer, chosen = AutoTokenizer.from_pretrained(args.model), records(args, args.batch)
    ids = lambda text: tokenizer(text)["input_ids"]
    ends = json.loads((Path(args.model) / "generation_config.json").read_text())["eos_token_id"]
    found = {"prompts": [ids(prompt(tokenizer, r)) for r in chosen], "answer": ids(chosen[0]["messages"][1]["content"] + "<|im_end|>"), "ends": ends}
    Path(args.out).write_text(json.dumps(found))


def opening(args):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(args.model)
    text = prompt(processor, {"images": [], "messages": [{"content": ""}]})
    print(len(processor.tokenizer(text.split("<|image_pad|>")[0])["input_ids"]), file=ANSWERS, flush=True)


def main():
    jobs = {"sft": sft, "rollout": rollout, "grpo": grpo, "machine": machine, "adapter": adapter, "qwen": qwen, "prompts": prompts, "opening": opening}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=jobs)
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--adapter")
    parser.add_argument("--tokenizer")
    parser.add_argument("--out")
    parser.add_argument("--batch", type=int, help="examples of a step, or prompts")
    parser.add_argument("--samples", type=int, default=8, help="responses to a prompt")
    parser.add_argument("--micro-batches", type=int, default=1, help="backward passes of a GRPO step")
    parser.add_argument("--new", type=int, default=32, help="tokens of a response")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--attn", default="sdpa")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--compile", metavar="MODE", help="torch.compile in this mode")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    jobs[args.job](args)


if __name__ == "__main__":
    ANSWERS = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main()
