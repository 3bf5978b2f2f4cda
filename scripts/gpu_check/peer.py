"""What gpu_check.sh measures of jigsaw, by transformers, PEFT and TRL: one job, one line RESULT {...}."""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor


def load(args, train):
    """Mixed precision, as jigsaw's bf16: weights that train in f32, products in bf16; frozen ones as they are stored."""
    kept = torch.float32 if train == "full" or args.dtype == "f32" else torch.bfloat16
    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=kept, attn_implementation="sdpa").to(args.device)
    if train == "lora":
        from peft import LoraConfig, get_peft_model

        maps = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=maps))
    return model, AutoProcessor.from_pretrained(args.model)


def records(args, count):
    found = [json.loads(line) for line in (Path(args.data) / "train/metadata.jsonl").read_text().splitlines()]
    return [found[i % len(found)] for i in range(count)]


def conversation(record, answered):
    question, answer = (message["content"] for message in record["messages"])
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.removeprefix("<image>")}]}]
    return turns + [{"role": "assistant", "content": [{"type": "text", "text": answer}]}] if answered else turns


def encode(args, processor, chosen, answered):
    text = [processor.apply_chat_template(conversation(r, answered), add_generation_prompt=not answered) for r in chosen]
    images = [[Image.open(Path(args.data) / "train" / r["images"][0]).convert("RGB")] for r in chosen]
    side = "right" if answered else "left"
    return processor(text=text, images=images, padding=True, padding_side=side, return_tensors="pt").to(args.device)


def autocast(args):
    return torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.dtype == "bf16")


def wait(args):
    if args.device.startswith("cuda"):
        torch.cuda.synchronize()


def peak(args):
    return torch.cuda.max_memory_allocated() if args.device.startswith("cuda") else None


def sft(args, train):
    model, processor = load(args, train)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if train == "lora":
        model.enable_input_require_grads()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    chosen = records(args, args.batch * args.steps)
    seconds, tokens, losses = [], [], []
    for step in range(args.steps):
        # As jigsaw's, a step contains the making of its batch on the device alone; images are read before.
        inputs = encode(args, processor, chosen[step * args.batch : (step + 1) * args.batch], True)
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        wait(args)
        begun = time.perf_counter()
        with autocast(args):
            loss = model(**inputs, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begun)
        tokens.append(int(inputs["attention_mask"].sum()))
    rest = list(zip(seconds, tokens))[1:]
    rates = sorted(t / s for s, t in rest)
    return {"step_seconds": seconds, "tokens_per_second": rates[len(rates) // 2], "loss": losses, "peak_bytes": peak(args)}


def decode(args):
    model, processor = load(args, "none")
    model.eval()
    inputs = encode(args, processor, records(args, args.batch), False)
    took = {}
    for new in [4, args.new, 4, args.new]:
        wait(args)
        begun = time.perf_counter()
        with torch.inference_mode(), autocast(args):
            model.generate(**inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=4, min_new_tokens=new, max_new_tokens=new)
        wait(args)
        took[new] = time.perf_counter() - begun
    rate = args.batch * 4 * (args.new - 4) / (took[args.new] - took[4])
    return {"new_tokens_per_second": rate, "seconds": took, "peak_bytes": peak(args)}


def grpo(args):
    import tempfile

    import datasets
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    model, processor = load(args, "lora")
    chosen = records(args, args.batch * args.steps)
    rows = [{"prompt": [{"role": "user", "content": r["messages"][0]["content"].removeprefix("<image>")}]} for r in chosen]
    data = datasets.Dataset.from_list(rows).add_column("image", [str(Path(args.data) / "train" / r["images"][0]) for r in chosen])
    ends = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_args, **_kwargs):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out, use_cpu=not args.device.startswith("cuda"), bf16=args.dtype == "bf16", gradient_checkpointing=True, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, max_steps=args.steps, per_device_train_batch_size=args.batch * 4,
            num_generations=4, max_completion_length=32, beta=0.0, seed=args.seed,
        )
        trainer = GRPOTrainer(
            model, reward_funcs=lambda completion_ids, **_: [-float(sum(i % 7 for i in ids)) for ids in completion_ids], args=config,
            train_dataset=data.cast_column("image", datasets.Image()), processing_class=processor, callbacks=[Clock()],
        )
        trainer.train()
    return {"step_seconds": [b - a for a, b in zip(ends, ends[1:])], "peak_bytes": peak(args)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=["sft-full", "sft-lora", "decode", "grpo-lora"])
    for name in ["model", "data", "device", "dtype"]:
        parser.add_argument(f"--{name}", required=True)
    for name in ["batch", "steps", "new", "rank", "seed"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    jobs = {"sft-full": lambda: sft(args, "full"), "sft-lora": lambda: sft(args, "lora"), "decode": lambda: decode(args), "grpo-lora": lambda: grpo(args)}
    print("\nRESULT " + json.dumps(jobs[args.job]()), flush=True)


if __name__ == "__main__":
    main()
