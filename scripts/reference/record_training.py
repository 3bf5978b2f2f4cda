"""Record training numbers of torch and transformers: AdamW, schedules, clipping, and whole SFT runs.

Writes tests/fixtures/training/: `adamw.safetensors` + `adamw.json`, `schedules.json`, `clip.safetensors` + `clip.json`,
and for each SFT run `<run>.safetensors` (its sequences) + `<run>.json` (settings and one row a step).
The runs start from the weights of a fixture of tests/fixtures/model.
"""

import torch
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
    get_constant_schedule,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

import common
from common import FIXTURES, collate, fresh_dir, make_sequence, published_name, write_json, write_tensors

OUT = FIXTURES / "training"


def learning_rates(make, base, steps):
    """The rate in force at each of `steps` optimizer steps under a schedule built by `make(optimizer)`."""
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=base)
    schedule = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def record_schedules():
    rows = []
    for warmup, total in [(0, 10), (3, 20), (5, 5), (10, 12), (1, 1), (4, 37)]:
        for base in (1e-3, 2e-5):
            for kind, make in [
                ("constant", lambda o: get_constant_schedule_with_warmup(o, warmup) if warmup else get_constant_schedule(o)),
                ("linear", lambda o: get_linear_schedule_with_warmup(o, warmup, total)),
                ("cosine", lambda o: get_cosine_schedule_with_warmup(o, warmup, total)),
            ]:
                rows.append(
                    {"kind": kind, "lr": base, "warmup_steps": warmup, "total_steps": total,
                     "rates": learning_rates(make, base, total + 2)}
                )
    write_json(
        OUT / "schedules.json",
        {
            "keys": {
                "rows[].rates": "learning rate of optimizer step 0, 1, ...: with warmup the first step's rate is 0; two steps past the end are listed",
            },
            "versions": common.versions(),
            "rows": rows,
        },
    )


def record_adamw():
    generator = torch.Generator().manual_seed(1)
    configs = [
        {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1, "lr": 1e-3},
        {"betas": [0.9, 0.95], "eps": 1e-6, "weight_decay": 0.0, "lr": 3e-2},
    ]
    shapes = {"matrix": (3, 4), "bias": (5,), "conv": (2, 3, 2)}
    tensors, steps = {}, 10
    for c, config in enumerate(configs):
        rates = learning_rates(lambda o: get_cosine_schedule_with_warmup(o, 2, steps), config["lr"], steps)
        parameters = {n: torch.nn.Parameter(torch.randn(s, generator=generator)) for n, s in shapes.items()}
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": config["weight_decay"]},
                {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=config["lr"], betas=tuple(config["betas"]), eps=config["eps"], foreach=False, fused=False,
        )
        for n, p in parameters.items():
            tensors[f"{c}.{n}.initial"] = p.detach().clone()
        for step, rate in enumerate(rates):
            for group in optimizer.param_groups:
                group["lr"] = rate
            for n, p in parameters.items():
                g = torch.randn(p.shape, generator=generator)
                # Zeros, gradients below eps, and a huge one, besides ordinary ones.
                g.view(-1)[0] = 0.0
                g.view(-1)[1] = 1e-10 * (step - 4)
                g.view(-1)[2] *= 1e4
                p.grad = g
                tensors[f"{c}.{n}.grad{step}"] = g.clone()
            optimizer.step()
            for n, p in parameters.items():
                tensors[f"{c}.{n}.weight{step}"] = p.detach().clone()
        for n, p in parameters.items():
            tensors[f"{c}.{n}.exp_avg"] = optimizer.state[p]["exp_avg"].clone()
            tensors[f"{c}.{n}.exp_avg_sq"] = optimizer.state[p]["exp_avg_sq"].clone()
        config |= {"rates": rates, "steps": steps}
    write_tensors(OUT / "adamw.safetensors", tensors)
    write_json(
        OUT / "adamw.json",
        {
            "keys": {
                "configs[c]": "settings of run c; weight_decay applies to tensors of two or more dimensions, the others have none",
                "configs[c].rates": "learning rate of each step; the first is 0 (warmup)",
                "<c>.<tensor>.initial": "weights before step 0",
                "<c>.<tensor>.grad<k>": "gradient of step k",
                "<c>.<tensor>.weight<k>": "weights after step k",
                "<c>.<tensor>.exp_avg, exp_avg_sq": "moments after the last step",
            },
            "versions": common.versions(),
            "tensors": list(shapes),
            "configs": configs,
        },
    )


def record_clip():
    generator = torch.Generator().manual_seed(2)
    tensors, rows = {}, []
    for c, (scale, bound) in enumerate([(1.0, 1.0), (0.01, 1.0), (100.0, 0.5), (0.0, 1.0)]):
        parameters = [torch.nn.Parameter(torch.zeros(s)) for s in [(4, 3), (5,), (2, 2, 2)]]
        for i, p in enumerate(parameters):
            p.grad = torch.randn(p.shape, generator=generator) * scale
            tensors[f"{c}.grad{i}"] = p.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(parameters, bound)
        for i, p in enumerate(parameters):
            tensors[f"{c}.clipped{i}"] = p.grad.clone()
        rows.append({"max_norm": bound, "norm": norm.item()})
    write_tensors(OUT / "clip.safetensors", tensors)
    write_json(
        OUT / "clip.json",
        {
            "keys": {
                "cases[c]": "bound and global norm before clipping (torch.nn.utils.clip_grad_norm_)",
                "<c>.grad<i>, <c>.clipped<i>": "gradient i of case c before and after",
            },
            "versions": common.versions(),
            "cases": rows,
        },
    )


def train(model, sequences, windows, settings):
    """Train `model` in place; returns one row a step. A window is a list of micro-batches of sequence indices."""
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": settings["weight_decay"]},
            {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings["lr"], betas=tuple(settings["betas"]), eps=settings["eps"], foreach=False, fused=False,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, settings["warmup_steps"], len(windows))
    rows = []
    for window in windows:
        optimizer.zero_grad(set_to_none=True)
        items = sum(len(sequences[i].ids) - sequences[i].response_start for micro in window for i in micro)
        total = 0.0
        for micro in window:
            model.model.rope_deltas = None
            batch = collate([sequences[i] for i in micro])
            if "pixel_values" in batch:
                batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
            loss = model(**batch, use_cache=False, num_items_in_batch=torch.tensor(items)).loss
            loss.backward()
            total += loss.item()
        missing = [n for n, p in named if p.grad is None]
        assert not missing, f"no gradient for {missing}: put an image into every window"
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings["max_grad_norm"])
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
        rows.append({"loss": total, "grad_norm": norm.item(), "lr": rate, "response_tokens": items})
    return rows


def record_sft(run, fixture, seed, parts, windows):
    settings = {
        "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1, "max_grad_norm": 1.0,
        "schedule": "cosine", "warmup_steps": 3, "total_steps": len(windows),
    }
    directory = FIXTURES / "model" / fixture

    def load(dtype):
        # `.to(dtype)` after loading: the file is f32 and the rotary tables stay as the model makes them.
        return Qwen2_5_VLForConditionalGeneration.from_pretrained(
            directory, attn_implementation="eager", dtype=torch.float32
        ).to(dtype).train()

    model = load(torch.float32)
    initial = {n: p.detach().clone() for n, p in model.named_parameters()}
    vision = model.config.vision_config
    generator = torch.Generator().manual_seed(seed)
    patch_dim = 3 * vision.temporal_patch_size * vision.patch_size**2
    sequences = [make_sequence(generator, patch_dim, vision.spatial_merge_size, p, r) for p, r in parts]
    rows = train(model, sequences, windows, settings)
    exact_model = load(torch.float64)
    exact = train(exact_model, sequences, windows, settings)
    rounding = {
        k: max(abs(a[k] - b[k]) / abs(b[k]) for a, b in zip(rows, exact)) for k in ("loss", "grad_norm")
    }
    assert rounding["loss"] < 3e-5, f"{run}: too badly conditioned: {rounding}"
    final, moved = {}, 0.0
    for (n, p), (_, q) in zip(model.named_parameters(), exact_model.named_parameters(), strict=True):
        change = (p - initial[n]).double().norm().item()
        moved = max(moved, (p.double() - q).norm().item() / change)
        final[published_name(n)] = {
            "norm": p.detach().double().norm().item(),
            "change": change,
            "first": p.detach().reshape(-1)[:4].tolist(),
            "last": p.detach().reshape(-1)[-4:].tolist(),
        }
    rounding["weights, of the distance travelled"] = moved
    tensors, table = {}, []
    for i, s in enumerate(sequences):
        tensors[f"seq{i}.input_ids"] = torch.tensor(s.ids)
        if s.images:
            tensors[f"seq{i}.pixel_values"] = torch.cat([p for _, p in s.images])
            tensors[f"seq{i}.image_grid_thw"] = torch.tensor([g for g, _ in s.images])
        table.append({"len": len(s.ids), "response_start": s.response_start, "images": [g for g, _ in s.images]})
    write_tensors(OUT / f"{run}.safetensors", tensors)
    write_json(
        OUT / f"{run}.json",
        {
            "keys": {
                "model": "directory under tests/fixtures/model whose weights the run starts from",
                "settings": "torch.optim.AdamW; weight_decay on parameters of two or more dimensions (embeddings included), none on norms and biases",
                "windows[k][m]": "sequences of micro-batch m of optimizer step k",
                "steps[].loss": "sum of negative log-probabilities over the window / its response tokens",
                "steps[].grad_norm": "global norm before clipping",
                "steps[].lr": "rate of this step",
                "final.<published name>": "after the last step: L2 norm, L2 norm of the change, first and last four values",
                "relative_difference_f64": "how far the same run in f64 lands: differences of this size are rounding",
                "seq<i>.*": "in the safetensors file, as in tests/fixtures/model/*/expected.safetensors",
            },
            "versions": common.versions(),
            "model": fixture,
            "settings": settings,
            "sequences": table,
            "windows": windows,
            "steps": rows,
            "relative_difference_f64": rounding,
            "final": final,
        },
    )
    print(f"{run}: loss {rows[0]['loss']:.4f} -> {rows[-1]['loss']:.4f}, norm {rows[0]['grad_norm']:.2f}, rounding {rounding}")


def main():
    common.deterministic()
    fresh_dir(OUT)
    record_schedules()
    record_adamw()
    record_clip()
    record_sft(
        "sft", "two_images_untied", 7,
        [([3, (6, 10), 4], 5), ([2, (8, 4), 3, (4, 6), 2], 8), ([6], 3), ([1, (10, 10), 2], 6)],
        [[[k % 4, (k + 1) % 4]] for k in range(20)],
    )
    # Micro-batches of unequal numbers of response tokens, so that a mean of means would differ.
    record_sft(
        "sft_accumulated", "one_image_nested", 8,
        [([3, (4, 6), 4], 2), ([2, (8, 4), 3], 9), ([6], 4), ([1, (6, 6), 2], 12), ([5], 3)],
        [[[k % 5, (k + 2) % 5], [(k + 1) % 5]] for k in range(12)],
    )
    for f in sorted(OUT.iterdir()):
        print(f"{f.name}: {f.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
