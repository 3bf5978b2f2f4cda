"""Record the learning dynamics of ten pairs of samples under a small tuned model, in f64.

Writes tests/fixtures/dynamics/: `model/` (a model of tests/fixtures/model, tuned until it is certain of its training samples),
`pairs.safetensors` (the samples) and `pairs.json` (what torch's automatic differentiation gives for each pair, exact_dynamics.py).
Certain samples have small gradients: single steps of a fixed size, in f32, measure their rounding. How far off they are is printed.
"""

import copy
import shutil

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

import common
from common import FIXTURES, collate, fresh_dir, make_sequence, published_name, write_json, write_tensors
from exact_dynamics import Exact, targets

START, OUT = FIXTURES / "model" / "one_image_nested", FIXTURES / "dynamics"
#: (prompt parts, response length): training samples, then prior samples, each with and without images.
TRAIN = [([3, (4, 6), 4], 6), ([2, (8, 4), 3], 9), ([6], 4), ([1, (6, 6), 2], 12), ([5], 7)]
PRIOR = [([4, (4, 4), 2], 3), ([7], 8), ([3, (6, 4), 3], 5), ([5], 2), ([2, (4, 8), 2], 10)]

#: Learning rates of the step of Adam: each for a third of the pairs.
RATES = [1e-5, 1e-4, 1e-3]


def load(directory):
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, attn_implementation="eager", dtype=torch.float32)


def train(model, sequences, steps, rate):
    """AdamW on all sequences at once."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, foreach=False, fused=False)
    for _ in range(steps):
        optimizer.zero_grad()
        model.model.rope_deltas = None
        loss = model(**collate(sequences), use_cache=False).loss
        loss.backward()
        optimizer.step()
    return loss.item()


def sample(sequence):
    inputs = {k: v for k, v in collate([sequence]).items() if k not in ("labels", "attention_mask")}
    return {"inputs": inputs, "response_tokens": len(sequence.ids) - sequence.response_start}


def one_step(model, u, v, eta):
    """LBK's numerator by one step of a fixed size in f32, as a check that the fixture is hard: ||log pi' - log pi||^2 / eta^2."""
    model = copy.deepcopy(model).float()

    def rows(s):
        model.model.rope_deltas = None
        n = s["response_tokens"]
        return model(**s["inputs"], use_cache=False).logits[0, -n - 1 : -1].double().log_softmax(-1)

    (rows(u).gather(1, targets(u)).mean()).backward()
    with torch.no_grad():
        before = rows(v)
        for p in model.parameters():
            if p.grad is not None:
                p += eta * p.grad
        return ((rows(v) - before) / eta).square().sum().item()


def main():
    common.deterministic()
    fresh_dir(OUT)
    model = load(START)
    vision = model.config.vision_config
    generator = torch.Generator().manual_seed(21)
    patch_dim = 3 * vision.temporal_patch_size * vision.patch_size**2
    sequences = [make_sequence(generator, patch_dim, vision.spatial_merge_size, p, r) for p, r in TRAIN + PRIOR]
    prior = train(model, sequences[len(TRAIN) :], 300, 2e-3)
    # Two of the prior samples are trained further, so that the model stays certain of them.
    tuned = train(model, sequences[: len(TRAIN) + 2], 200, 1e-3)
    print(f"loss {prior:.4f} on prior knowledge, then {tuned:.4f} on the training data")
    directory = fresh_dir(OUT / "model")
    shutil.copy(START / "config.json", directory / "config.json")
    write_tensors(directory / "model.safetensors", {published_name(k): v for k, v in model.named_parameters()})
    model = load(directory)

    tensors, table = {}, []
    for i, s in enumerate(sequences):
        tensors[f"seq{i}.input_ids"] = torch.tensor(s.ids)
        if s.images:
            tensors[f"seq{i}.pixel_values"] = torch.cat([p for _, p in s.images])
            tensors[f"seq{i}.image_grid_thw"] = torch.tensor([g for g, _ in s.images])
        table.append({"len": len(s.ids), "response_start": s.response_start, "images": [g for g, _ in s.images]})
    write_tensors(OUT / "pairs.safetensors", tensors)

    exact, pairs = Exact(copy.deepcopy(model)), []
    for i in range(10):
        u, v = i % len(TRAIN), len(TRAIN) + (i + i // len(TRAIN)) % len(PRIOR)
        loss = "mean" if i % 3 else "sum"
        of_u, of_v = sample(sequences[u]), sample(sequences[v])
        rate = RATES[i * len(RATES) // 10]
        numbers = exact.pair(of_u, of_v, loss, rate)
        pairs.append({"u": u, "v": v, "loss": loss, "learning_rate": rate, **numbers})
        wrong = one_step(model, of_u, of_v, 1e-5) if loss == "mean" else float("nan")
        print(f"{u} {v} {loss}: LBK {numbers['lbk']:.4g}, cosine {numbers['cosine']:.3g}, nats {numbers['u_nats']:.3g} {numbers['v_nats']:.3g}, "
              f"one f32 step of 1e-5: {wrong / numbers['slope_squares']:.3g} times the squares")
    write_json(
        OUT / "pairs.json",
        {
            "keys": {
                "seq<i>.*": "in pairs.safetensors, as in tests/fixtures/model/*/expected.safetensors: the training samples, then the prior samples",
                "pairs[].u, .v": "numbers of the training sample and of the prior sample",
                "pairs[].loss": "l is the mean of the response's token log-probabilities, or their sum",
                "pairs[].learning_rate": "of the step of Adam, taken by torch.optim.AdamW in f64",
                "pairs[].*": "docs/dynamics.md, in f64: gradients by autograd, slopes by forward-mode derivatives",
            },
            "versions": common.versions(),
            "sequences": table,
            "pairs": pairs,
        },
    )
    for f in sorted(OUT.rglob("*.*")):
        print(f"{f.relative_to(OUT)}: {f.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
