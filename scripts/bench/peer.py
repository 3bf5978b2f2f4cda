"""The peers' side: one process does one job with given settings and prints one line of JSON.

    peer.py sft      a hand-written training loop over transformers' model: only the step is timed, batches are ready before
    peer.py rollout  transformers' `generate`, batched, with the key-value cache
    peer.py grpo     TRL's GRPOTrainer, from the end of one step to the end of the next
    peer.py matmul   torch's f32 matrix product
    peer.py opening  tokens that all prompts begin with
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch


def status_kb(field):
    """A memory figure of this process in kB, e.g. VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return None


def load(args):
    """The model as transformers loads it, f32, and its processor."""
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(args.model, attn_implementation=args.attn, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(args.model)


def records(args, count):
    """The first `count` training records, from the start again when there are fewer."""
    with open(Path(args.data) / "train" / "metadata.jsonl") as lines:
        found = []
        for line in lines:
            found.append(json.loads(line))
            if len(found) == count:
                break
    return [found[i % len(found)] for i in range(count)]


def image_of(args, record):
    from PIL import Image

    return Image.open(Path(args.data) / "train" / record["images"][0]).convert("RGB")


def conversation(record, answered):
    """The record's messages with its picture in its place."""
    question, answer = (m["content"] for m in record["messages"])
    content = [{"type": "image"}, {"type": "text", "text": question.removeprefix("<image>\n")}]
    # The newline after the picture belongs to the text.
    content[1]["text"] = "\n" + content[1]["text"]
    turns = [{"role": "user", "content": content}]
    return turns + [{"role": "assistant", "content": [{"type": "text", "text": answer}]}] if answered else turns


def encode(args, processor, chosen):
    """Prompts of `chosen` as one batch; padded on the left."""
    text = [processor.apply_chat_template(conversation(r, False), add_generation_prompt=True) for r in chosen]
    images = [[image_of(args, r)] for r in chosen]
    return processor(text=text, images=images, padding=True, padding_side="left", return_tensors="pt")


def training_batch(args, model, processor, chosen):
    """Everything a step needs that does not depend on the weights: ids, pixels, positions, and which rows predict what."""
    prompts = [processor.apply_chat_template(conversation(r, False), add_generation_prompt=True) for r in chosen]
    answers = [r["messages"][1]["content"] + "<|im_end|>" for r in chosen]
    images = [[image_of(args, r)] for r in chosen]
    both = [p + a for p, a in zip(prompts, answers)]
    batch = processor(text=both, images=images, padding=True, padding_side="right", return_tensors="pt")
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


def sft(args):
    model, processor = load(args)
    model.train()
    loaded = status_kb("VmRSS")
    chosen = records(args, args.batch * args.batches)
    chunks = [chosen[i : i + args.batch] for i in range(0, len(chosen), args.batch)]
    batches = [training_batch(args, model, processor, chunk) for chunk in chunks]
    kind = {"fused": True} if args.optimizer == "fused" else {"foreach": True}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, **kind)
    head = model.lm_head

    def loss_of(inputs, rows, targets):
        hidden = model.model(**inputs, use_cache=False).last_hidden_state
        return torch.nn.functional.cross_entropy(head(hidden.flatten(0, 1)[rows]), targets)

    if args.compile:
        loss_of = torch.compile(loss_of)
    seconds, losses, tokens, responses, began, finished = [], [], [], [], None, None
    for step in range(args.warmup + args.steps):
        inputs, rows, targets, length = batches[step % len(batches)]
        began = began or time.time()
        start = time.perf_counter()
        loss = loss_of(inputs, rows, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        took = time.perf_counter() - start
        finished = finished or time.time()
        if step >= args.warmup:
            seconds.append(took)
            tokens.append(length)
            responses.append(len(targets))
    return {
        "step_seconds": seconds, "tokens": tokens, "response_tokens": responses, "loss": losses, "first_step_began": began, "first_step_at": finished,
        "loaded_kb": loaded, "peak_kb": status_kb("VmHWM"),
    }


def rollout(args):
    model, processor = load(args)
    model.eval()
    inputs = encode(args, processor, records(args, args.batch))
    special = [i for t, i in processor.tokenizer.get_added_vocab().items() if "vision" in t or "pad" in t or "im_start" in t]
    sampling = dict(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=args.samples,
        min_new_tokens=args.new, max_new_tokens=args.new, suppress_tokens=special, use_cache=True,
    )
    if args.compile:
        model.forward = torch.compile(model.forward)
        sampling["cache_implementation"] = "static"
    seconds, tokens = [], []
    for repeat in range(args.warmup + args.steps):
        start = time.perf_counter()
        with torch.inference_mode():
            output = model.generate(**inputs, **sampling)
        took = time.perf_counter() - start
        made = output.shape[0] * (output.shape[1] - inputs["input_ids"].shape[1])
        assert made == args.batch * args.samples * args.new, f"{made} tokens"
        if repeat >= args.warmup:
            seconds.append(took)
            tokens.append(made)
    return {"step_seconds": seconds, "tokens": tokens, "peak_kb": status_kb("VmHWM")}


def grpo(args):
    import tempfile

    import datasets
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    model, processor = load(args)
    chosen = records(args, args.batch * (args.warmup + args.steps))
    rows = [{"prompt": [{"role": "user", "content": r["messages"][0]["content"].removeprefix("<image>")}]} for r in chosen]
    data = datasets.Dataset.from_list(rows).add_column("image", [str(Path(args.data) / "train" / r["images"][0]) for r in chosen])
    data = data.cast_column("image", datasets.Image())
    ends = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_args, **_kwargs):
            ends.append(("begin", time.perf_counter()))

        def on_step_end(self, *_args, **_kwargs):
            ends.append(("end", time.perf_counter()))

    lengths = []

    def short(completion_ids, **_kwargs):
        lengths.append(sum(len(ids) for ids in completion_ids))
        return [-float(sum(i % 7 for i in ids)) for ids in completion_ids]

    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, max_steps=args.warmup + args.steps, learning_rate=1e-6,
            per_device_train_batch_size=args.batch * args.samples, num_generations=args.samples,
            max_completion_length=args.new, temperature=1.0, top_p=1.0, top_k=0, loss_type="dapo", beta=0.0,
            num_iterations=1, max_grad_norm=1.0, optim="adamw_torch_fused" if args.optimizer == "fused" else "adamw_torch",
            generation_kwargs={"min_new_tokens": args.new}, dataloader_pin_memory=False, torch_compile=args.compile,
        )
        trainer = GRPOTrainer(model, reward_funcs=short, args=config, train_dataset=data, processing_class=processor)
        trainer.add_callback(Clock())
        trainer.train()
    # What is between the end of a step and the end of the next: data, generation, scoring, loss, update.
    end = [t for kind, t in ends if kind == "end"]
    begin = next(t for kind, t in ends if kind == "begin")
    seconds = [b - a for a, b in zip([begin] + end, end)][args.warmup :]
    return {"step_seconds": seconds, "tokens": lengths[args.warmup :], "peak_kb": status_kb("VmHWM")}


def matmul(args):
    a, b = torch.randn(args.size, args.size), torch.randn(args.size, args.size)
    out = torch.empty(args.size, args.size)
    seconds = []
    for repeat in range(args.warmup + args.steps):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        if repeat >= args.warmup:
            seconds.append(time.perf_counter() - start)
    return {"step_seconds": seconds, "gflops": [2e-9 * args.size**3 / s for s in seconds]}


def opening(args):
    """Tokens before the first image: the same in every prompt of these datasets."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(args.model)
    ids = encode(args, processor, records(args, 1))["input_ids"][0].tolist()
    return {"opening": ids.index(processor.tokenizer.convert_tokens_to_ids("<|image_pad|>"))}


def main():
    jobs = {"opening": opening, "sft": sft, "rollout": rollout, "grpo": grpo, "matmul": matmul}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=jobs)
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--batch-size", type=int, help="examples of a step, or prompts")
    parser.add_argument("--batches", type=int, default=2, help="different batches to go round")
    parser.add_argument("--num-generations", type=int, default=8, help="responses to a prompt")
    parser.add_argument("--new", type=int, default=32, help="tokens of a response")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--attn", default="sdpa")
    parser.add_argument("--optimizer", choices=["fused", "foreach"], default="fused")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    result = jobs[args.job](args)
    sys.stdout.write("\nRESULT " + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
