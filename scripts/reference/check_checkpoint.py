"""Check that transformers reads a checkpoint directory written by jigsaw, and gets the same numbers out of it.

    python check_checkpoint.py DIR --expected FILE.json [--tolerance 1e-4]
    python check_checkpoint.py DIR --data DATASET/test --scores SCORES.jsonl [--limit N]      (or --data FILE.jsonl)

    python check_checkpoint.py BASE --adapter ADAPTER --data DATASET/test --scores SCORES.jsonl   (of `jigsaw score --model ADAPTER`)

The second form takes a dataset split and what `jigsaw score --model DIR --data DATASET --split test --out SCORES.jsonl` said of it
(the prompt's ids are then transformers' own; that the log-probabilities agree shows that jigsaw's are the same).

FILE.json, written by jigsaw (image paths are relative to it):

    {"sequences": [{
        "messages": [{"role": "user", "content": "<image>Which order?"}, {"role": "assistant", "content": "2 1"}],
        "images": ["a.png"],
        "ids": [...],
        "logprobs": [...]
    }]}

- `messages`: the turns; each `<image>` in a content stands for the next of `images`. A closing assistant turn is the
  response; without one the response is whatever follows the prompt in `ids`.
- `ids`: the whole sequence, prompt (ending in the generation prompt) and response, image placeholders expanded.
- `logprobs`: log-probability of each response token, natural logarithm, temperature 1: as many as there are response
  tokens, which are the last of `ids`.

Checked, in this order; the first failure of each kind is reported and the exit status is 1:
1. the weights load with no missing, unexpected or mismatched key, under AutoModelForImageTextToText (of a text-only model,
   AutoModelForCausalLM);
2. AutoTokenizer and AutoProcessor (of a text-only model, AutoTokenizer alone) load; the chat template renders; tokenizer, processor and jigsaw agree on the ids;
3. the response's ids are the tokenizer's for its text and the token that ends a turn (`<|im_end|>`, or `eos_token` without it);
4. transformers' log-probabilities (f32, eager attention, PIL image processor) agree with `logprobs`, relative to the
   largest magnitude of each sequence, or to 0.05 if all are smaller.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer,
)

import common


def parts_of(content):
    """A content string with `<image>` placeholders -> transformers' list of parts (empty text left out)."""
    parts = []
    for i, piece in enumerate(content.split("<image>")):
        if i:
            parts.append({"type": "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def encode_prompt(processor, tokenizer, messages, images):
    """Processor outputs of the prompt turns with the generation prompt; tokenizer and processor must render alike."""
    if processor is None:
        assert not images, "images for a text-only model"
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return tokenizer([rendered], add_special_tokens=False, return_tensors="pt")
    turns = [{"role": m["role"], "content": parts_of(m["content"])} for m in messages]
    rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    by_processor = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert rendered == by_processor, f"tokenizer and processor render differently: {rendered!r} / {by_processor!r}"
    return processor(text=[rendered], images=images or None, return_tensors="pt")


def end_of_turn(tokenizer):
    """The token that ends a turn."""
    return "<|im_end|>" if "<|im_end|>" in tokenizer.get_vocab() else tokenizer.eos_token


def load(directory, adapter=None):
    """(model, tokenizer, processor) of a checkpoint directory, in f32 with eager attention and the PIL processor; with an adapter, peft's.
    A text-only model has no processor."""
    text_only = not hasattr(AutoConfig.from_pretrained(directory), "vision_config")
    model_class = AutoModelForCausalLM if text_only else AutoModelForImageTextToText
    model, info = model_class.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(kind), f"{kind}: {sorted(info[kind])[:5]} (of {len(info[kind])})"
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    if text_only:
        return model.eval(), tokenizer, None
    processor = AutoProcessor.from_pretrained(directory)
    # The default image processor resizes with torchvision, which differs from PIL by a level here and there.
    processor.image_processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    return model.eval(), tokenizer, processor


def score(model, inputs, ids, response_tokens):
    """Log-probabilities of the last `response_tokens` of `ids`, given `inputs` (the processor's, for the images)."""
    batch = {"input_ids": torch.tensor([ids])}
    if "pixel_values" in inputs:
        batch |= {k: inputs[k] for k in ("pixel_values", "image_grid_thw")}
        batch["mm_token_type_ids"] = (batch["input_ids"] == model.config.image_token_id).int()
    with torch.no_grad():
        model.model.rope_deltas = None
        logits = model(**batch, use_cache=False).logits[0, -response_tokens - 1 : -1]
    targets = batch["input_ids"][0, -response_tokens:]
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]


def scored(data, scores, limit):
    """Sequences from a dataset split and the output of `jigsaw score` on it: as in FILE.json, but `ids` of the response only."""
    lines = lambda path: [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    # A JSONL of conversations has no ids; `jigsaw score` calls them by their lines.
    path = Path(data) if Path(data).is_file() else Path(data) / "metadata.jsonl"
    records = {record.get("id", f"line-{n}"): record for n, record in enumerate(lines(path), 1)}
    for line in lines(scores)[:limit]:
        record = records[line["id"]]
        yield {
            "messages": record["messages"],
            "images": record.get("images", []),
            "ids": line["token_ids"],
            "logprobs": line["logprobs"],
            "response_only": True,
        }


def check(directory, sequences, base, tolerance, adapter=None):
    """Run every check; returns a line that says what was checked. Raises AssertionError with what is wrong."""
    assert sequences, "no sequences"
    model, tokenizer, processor = load(directory, adapter)
    worst, tokens = 0.0, 0
    for n, sequence in enumerate(sequences):
        where = f"sequence {n}"
        messages = list(sequence["messages"])
        response = messages.pop()["content"] if messages[-1]["role"] == "assistant" else None
        images = [Image.open(base / f) for f in sequence.get("images", [])]
        ids, logprobs = sequence["ids"], sequence["logprobs"]
        inputs = encode_prompt(processor, tokenizer, messages, images)
        prompt = inputs["input_ids"][0].tolist()
        if sequence.get("response_only"):
            ids = prompt + ids
        assert 0 < len(logprobs) < len(ids), f"{where}: {len(logprobs)} logprobs for {len(ids)} ids"
        assert prompt == ids[: -len(logprobs)], (
            f"{where}: prompt ids differ: transformers {len(prompt)} ids {prompt[:40]}..., "
            f"jigsaw {len(ids) - len(logprobs)} ids {ids[:40]}..."
        )
        if response is not None:
            theirs = tokenizer(response + end_of_turn(tokenizer), add_special_tokens=False)["input_ids"]
            assert theirs == ids[-len(logprobs) :], f"{where}: response ids differ: {theirs} / {ids[-len(logprobs):]}"
        mine = score(model, inputs, ids, len(logprobs))
        given = torch.tensor(logprobs)
        # A log-probability is the difference of numbers as large as logits (here up to 40): in f32 its last digit is about
        # 4e-6 however small it is itself, so that of a sequence which the model is sure of only the absolute error tells.
        difference = ((mine - given).abs().max() / mine.abs().max().clamp(min=0.05)).item()
        assert difference <= tolerance, f"{where}: log-probabilities differ by {difference:.2e}: {mine.tolist()} / {logprobs}"
        worst, tokens = max(worst, difference), tokens + len(logprobs)
    return f"{Path(directory).name}: {len(sequences)} sequences, {tokens} response tokens, largest relative difference {worst:.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR", help="checkpoint directory")
    parser.add_argument("--expected", metavar="FILE", help="JSON written by jigsaw")
    parser.add_argument("--data", metavar="DIR", help="dataset split, or JSONL of conversations, that was scored")
    parser.add_argument("--scores", metavar="FILE", help="output of `jigsaw score` on it")
    parser.add_argument("--adapter", metavar="DIR", help="adapter (LoRA) that jigsaw trained for DIR: peft loads it")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="scores checked (default 20)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative (default 1e-4)")
    args = parser.parse_args()
    if bool(args.expected) == bool(args.data and args.scores):
        parser.error("give --expected, or --data and --scores")
    common.deterministic()
    try:
        if args.expected:
            sequences = json.loads(Path(args.expected).read_text(encoding="utf-8"))["sequences"]
            base = Path(args.expected).parent
        else:
            sequences, base = list(scored(args.data, args.scores, args.limit)), Path(args.data)
            base = base if base.is_dir() else base.parent
        print(check(args.directory, sequences, base, args.tolerance, args.adapter))
    except AssertionError as error:
        print(f"check_checkpoint: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
