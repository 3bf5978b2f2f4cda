"""Record loss, logits and gradients of recorded models under torch's bf16 autocast into tests/fixtures/bf16/."""

import json

import torch
from safetensors.torch import load_file

import common
from common import FIXTURES, Seq, classes_of, write_json, write_tensors
from record_model import run_one_by_one

CASES = ["one_image_tied", "two_images_untied", "qwen2_untied"]

KEYS = {
    "loss": "f32 []: mean negative log-probability over all response tokens of the batch",
    "logprobs": "f32 [responses]: log-softmax of the logits before each response token, at that token, all sequences one after another",
    "grad.<published name>": "f32, shape of the weight: d loss / d weight",
}


def sequences_of(tensors, table):
    """The recorded inputs of a case."""
    out = []
    for i, row in enumerate(table):
        ids = tensors[f"seq{i}.input_ids"].tolist()
        images = []
        if row["images"]:
            sizes = [t * h * w for t, h, w in row["images"]]
            images = list(zip(row["images"], tensors[f"seq{i}.pixel_values"].split(sizes)))
        out.append(Seq(ids, row["response_start"], images))
    return out


def results(model, sequences):
    loss, logits, grads = run_one_by_one(model, sequences)
    logprobs = []
    for s, l in zip(sequences, logits):
        targets = torch.tensor(s.ids[s.response_start :])
        logprobs.append(l[s.response_start - 1 : -1].float().log_softmax(-1).gather(1, targets[:, None])[:, 0])
    return {"loss": loss.float(), "logprobs": torch.cat(logprobs)} | {f"grad.{n}": g.float() for n, g in grads.items()}


def main():
    common.deterministic()
    directory = common.fresh_dir(FIXTURES / "bf16")
    moved = {}
    for name in CASES:
        source = FIXTURES / "model" / name
        _, model_class = classes_of(json.loads((source / "config.json").read_text()))
        model = model_class.from_pretrained(source, attn_implementation="eager", dtype=torch.float32).eval()
        table = json.loads((source / "case.json").read_text())["sequences"]
        sequences = sequences_of(load_file(source / "expected.safetensors"), table)
        exact = results(model, sequences)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = results(model, sequences)
        write_tensors(directory / f"{name}.safetensors", rounded)
        moved[name] = {k: ((rounded[k] - exact[k]).norm() / exact[k].norm()).item() for k in exact}
        worst = max(moved[name], key=moved[name].get)
        print(f"{name}: loss {rounded['loss'].item():.6f}, moved {moved[name]['loss']:.1e}; most: {worst} {moved[name][worst]:.1e}")
    write_json(
        directory / "autocast.json",
        {
            "what": "the cases of model/ under torch.autocast(\"cpu\", torch.bfloat16)",
            "versions": common.versions(),
            "keys": KEYS,
            "moved": "|autocast - f32| / |f32|, Euclidean norms of each tensor: what bf16's rounding does",
            "cases": moved,
        },
    )


if __name__ == "__main__":
    main()
