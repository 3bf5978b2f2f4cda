"""Compare what `jigsaw dynamics` measured with exact derivatives in f64, pair by pair.

    python check_dynamics.py OUT --model MODEL --train NAME=DIR ... --prior NAME=DIR ... [--checkpoint 0] [--limit 10] [--freeze vision]

OUT is the output directory of `jigsaw dynamics`; the data are dataset directories (the splits `train` and `test`), whose prompts
transformers encodes itself. A pair is wrong if a number differs by more than --tolerance (default 0.05): LBK and the divergence after the step
of Adam relative to themselves, changes relative to the product of the norms of both gradients, which is the largest that they can be. Prints a row a pair; the exit status
is 1 if one is wrong.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from PIL import Image

import common
from check_checkpoint import encode_prompt, load
from exact_dynamics import Exact


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def named(texts):
    return dict(text.split("=", 1) for text in texts)


class Samples:
    """Samples by set and id, as inputs of the model."""

    def __init__(self, out, sets, model, tokenizer, processor):
        self.responses = {(s["set"], s["id"]): s["token_ids"] for s in lines(Path(out) / "samples.jsonl")}
        self.records = {
            (name, record["id"]): (split, record) for name, split in sets.items() for record in lines(split / "metadata.jsonl")
        }
        self.model, self.tokenizer, self.processor = model, tokenizer, processor

    def get(self, name, sample_id):
        split, record = self.records[name, sample_id]
        images = [Image.open(split / file) for file in record["images"]]
        prompt = [m for m in record["messages"] if m["role"] != "assistant"]
        encoded = encode_prompt(self.processor, self.tokenizer, prompt, images)
        response = self.responses[name, sample_id]
        inputs = {"input_ids": torch.cat([encoded["input_ids"], torch.tensor([response])], 1)}
        if images:
            inputs |= {k: encoded[k] for k in ("pixel_values", "image_grid_thw")}
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.model.config.image_token_id).int()
        return {"inputs": inputs, "response_tokens": len(response)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--model", required=True, metavar="DIR", help="the checkpoint")
    parser.add_argument("--train", required=True, nargs="+", metavar="NAME=DIR")
    parser.add_argument("--prior", required=True, nargs="+", metavar="NAME=DIR")
    parser.add_argument("--checkpoint", type=int, default=0, metavar="N", help="its number in pairs.jsonl (0)")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="pairs checked (10)")
    parser.add_argument("--freeze", nargs="*", default=[], metavar="TEXT", help="parameters with this in their names take no step")
    parser.add_argument("--tolerance", type=float, default=0.05)
    args = parser.parse_args()
    common.deterministic()
    model, tokenizer, processor = load(args.model)
    sets = {name: Path(path) / "train" for name, path in named(args.train).items()}
    sets |= {name: Path(path) / "test" for name, path in named(args.prior).items()}
    samples = Samples(args.out, sets, model, tokenizer, processor)
    config = json.loads((Path(args.out) / "dynamics.json").read_text())["config"]
    exact = Exact(model, args.freeze)
    pairs = [pair for pair in lines(Path(args.out) / "pairs.jsonl") if pair["checkpoint"] == args.checkpoint][: args.limit]
    print("| u | v | LBK | f64 | error | <grad, grad> | f64 | v_slope | u_slope | error / norms | KL by Adam | f64 | error | rounding | curvature | u_eta | v_eta |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    worst = {"LBK": 0.0, "changes": 0.0, "norms": 0.0, "KL by Adam": 0.0}
    for pair in pairs:
        want = exact.pair(samples.get(pair["regime"], pair["u"]), samples.get(pair["prior"], pair["v"]), config["loss"], config["learning_rate"])
        lbk = abs(pair["lbk"] / want["lbk"] - 1)
        most = want["u_gradient"] * want["v_gradient"]
        changes = max(abs(pair[k] - want["inner_product"]) / most for k in ("inner_product", "v_slope", "u_slope"))
        norms = max(abs(pair[k] / want[k] - 1) for k in ("a_squares", "g_squares", "u_gradient", "v_gradient"))
        adam = abs(pair["adam_kl"] / want["adam_kl"] - 1)
        worst = {k: max(worst[k], x) for k, x in {"LBK": lbk, "changes": changes, "norms": norms, "KL by Adam": adam}.items()}
        print(
            f"| {pair['u']} | {pair['v']} | {pair['lbk']:.5g} | {want['lbk']:.5g} | {100 * lbk:.2g} % | {pair['inner_product']:.4g} | "
            f"{want['inner_product']:.4g} | {pair['v_slope']:.4g} | {pair['u_slope']:.4g} | {changes:.1e} | {pair['adam_kl']:.4g} | {want['adam_kl']:.4g} | "
            f"{100 * adam:.2g} % | {pair['rounding']:.1e} | "
            f"{pair['curvature']:.1e} | {pair['u_eta']:.2g} | {pair['v_eta']:.2g} |"
        )
    print(f"\nlargest errors over {len(pairs)} pairs: " + ", ".join(f"{k} {100 * x:.2g} %" for k, x in worst.items()))
    sys.exit(int(max(worst.values()) > args.tolerance))


if __name__ == "__main__":
    main()
