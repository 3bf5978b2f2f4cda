"""Score and generate with transformers what jigsaw scored and generated, and say how far apart they are and how fast it was.

    python true_size.py MODEL DATASET/test --scores SCORES.jsonl --dtype float32|bfloat16 [--new-tokens 32]

Prints one line of JSON. Log-probabilities are compared with those of `jigsaw score`, relative to the largest magnitude of each record.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

import common
from check_checkpoint import encode_prompt, score, scored


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--scores", required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--record", metavar="FILE", help="write the log-probabilities, for tests/true_size.rs")
    args = parser.parse_args()
    begun = time.monotonic()
    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=getattr(torch, args.dtype), attn_implementation="sdpa").eval()
    loaded = time.monotonic() - begun
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    processor = AutoProcessor.from_pretrained(args.model)
    processor.image_processor = AutoImageProcessor.from_pretrained(args.model, backend="pil")
    worst, seconds, tokens, first, recorded = 0.0, 0.0, 0, None, []
    for sequence in scored(args.data, args.scores, 20):
        images = [Image.open(Path(args.data) / f) for f in sequence["images"]]
        inputs = encode_prompt(processor, tokenizer, sequence["messages"][:-1], images)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        first = first or inputs
        ids = inputs["input_ids"][0].tolist() + sequence["ids"]
        begun = time.monotonic()
        mine = score(model, inputs, ids, len(sequence["logprobs"])).float()
        seconds += time.monotonic() - begun
        tokens += len(ids)
        recorded.append(mine.tolist())
        given = torch.tensor(sequence["logprobs"])
        worst = max(worst, ((mine - given).abs().max() / mine.abs().max()).item())
    if args.record:
        common.write_json(args.record, {"versions": common.versions(), "dtype": args.dtype, "logprobs": recorded})
    begun = time.monotonic()
    with torch.no_grad():
        model.model.rope_deltas = None
        made = model.generate(**first, max_new_tokens=args.new_tokens, min_new_tokens=args.new_tokens, do_sample=False)
    generating = time.monotonic() - begun
    begun = time.monotonic()
    with torch.no_grad():
        model.model.rope_deltas = None
        model.generate(**first, max_new_tokens=1, do_sample=False)
    prefill = time.monotonic() - begun
    new = made.shape[1] - first["input_ids"].shape[1]
    print(json.dumps({
        "dtype": args.dtype,
        "threads": torch.get_num_threads(),
        "load_seconds": round(loaded, 2),
        "largest_relative_difference": worst,
        "score_tokens_per_second": round(tokens / seconds, 2),
        "prompt_tokens": first["input_ids"].shape[1],
        "prefill_seconds": round(prefill, 2),
        "generate_seconds": round(generating, 2),
        "generate_tokens_per_second": round(new / generating, 3),
        "decode_tokens_per_second": round((new - 1) / (generating - prefill), 3),
    }))


if __name__ == "__main__":
    main()
