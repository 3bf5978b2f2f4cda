"""Record forward and backward numbers of transformers on tiny random checkpoints of every family.

Writes tests/fixtures/model/<case>/{config.json, model.safetensors, expected.safetensors, case.json}; case.json says
what every key of expected.safetensors is. f32, eager attention, one thread. Each case is computed twice, as one
right-padded batch and sequence by sequence, and both must agree; and once more in f64, whose distance from the f32
numbers is written into case.json as a measure of how much of a disagreement is rounding.
"""

import copy
import sys

import torch

import common
from common import FIXTURES, Seq, build_checkpoint, collate, make_sequence, published_name, write_json, write_tensors

FAMILIES = {"qwen2_5_vl": "Qwen2.5-VL", "qwen2_vl": "Qwen2-VL", "qwen3_vl": "Qwen3-VL", "qwen2": "Qwen2.5", "qwen3": "Qwen3", "llama": "Llama"}

KEYS = {
    "seq<i>.input_ids": "i64 [len]: prompt and response; one image token per merged patch",
    "seq<i>.pixel_values": "f32 [patches, 3 * temporal_patch * patch * patch]: all images of the sequence, one after another; absent without images",
    "seq<i>.image_grid_thw": "i64 [images, 3]: patch grid of each image before merging; absent without images",
    "seq<i>.position_ids": "i64 [3, len]: temporal, height, width",
    "seq<i>.logits": "f32 [len, vocab]: at every position, padding removed",
    "seq<i>.logprobs": "f32 [response]: log-softmax of the logits before each response token, at that token",
    "loss": "f32 []: mean negative log-probability over all response tokens of the batch",
    "grad.<published name>": "f32, shape of the weight: d loss / d weight; absent for the names in `no_gradient`",
    "greedy": "i64 [tokens]: greedy text after the first sequence's prompt (some cases only)",
    "vision.output": "f32 [merged patches of all images of the batch, hidden]: the vision tower's output in reading order (debug cases only)",
    "vision.block<b>": "f32 [patches, vision hidden]: after vision block b, sequence 0's images only, in WINDOW order (debug cases only)",
    "seq<i>.hidden<l>": "f32 [len, hidden]: input of decoder layer l; the last one is after the final norm (debug cases only)",
}


def relative(a, b):
    """Largest difference relative to the largest magnitude of the reference."""
    scale = b.abs().max().item()
    return (a.double() - b.double()).abs().max().item() / (scale if scale > 0 else 1.0)


def positions_of(model, sequence):
    """[3, len] position ids of one sequence, as the model computes them."""
    batch = collate([sequence])
    n = len(sequence.ids)
    if not sequence.images:
        return torch.arange(n).expand(3, n).clone()
    ids, _ = model.model.get_rope_index(
        batch["input_ids"], mm_token_type_ids=batch["mm_token_type_ids"], image_grid_thw=batch["image_grid_thw"]
    )
    return ids[:, 0]


def run_batch(model, sequences):
    """One padded batch: (loss, list of unpadded logits, gradients by published name)."""
    model.zero_grad(set_to_none=True)
    model.model.rope_deltas = None
    batch = collate(sequences)
    if "pixel_values" in batch:
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    out = model(**batch, use_cache=False)
    out.loss.backward()
    logits = [out.logits[i, : len(s.ids)].detach() for i, s in enumerate(sequences)]
    return out.loss.detach(), logits, gradients(model)


def run_one_by_one(model, sequences):
    """Each sequence alone without padding; same returns as `run_batch`."""
    model.zero_grad(set_to_none=True)
    total = sum(len(s.ids) - s.response_start for s in sequences)
    loss, all_logits = 0.0, []
    for s in sequences:
        model.model.rope_deltas = None
        batch = collate([s])
        labels = batch.pop("labels")
        batch.pop("attention_mask")
        if "pixel_values" in batch:
            batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
        logits = model(**batch, use_cache=False).logits[0]
        part = torch.nn.functional.cross_entropy(logits[:-1], labels[0, 1:], ignore_index=-100, reduction="sum") / total
        part.backward()
        loss = loss + part.detach()
        all_logits.append(logits.detach())
    return loss, all_logits, gradients(model)


def gradients(model):
    return {published_name(n, model.config.model_type): p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}


def debug_tensors(model, sequences):
    """Vision tower and decoder intermediates."""
    out = {}
    with torch.no_grad():
        batch = collate(sequences)
        if "pixel_values" in batch:
            vision = model.model.visual(batch["pixel_values"], grid_thw=batch["image_grid_thw"])
            out["vision.output"] = vision.pooler_output
        for i, s in enumerate(sequences):
            model.model.rope_deltas = None
            batch = collate([s])
            batch.pop("labels")
            kept, hooks = [], []
            if s.images and i == 0:
                for block in model.model.visual.blocks:
                    hooks.append(block.register_forward_hook(lambda _m, _i, o: kept.append(o)))
            hidden = model(**batch, use_cache=False, output_hidden_states=True).hidden_states
            for hook in hooks:
                hook.remove()
            for b, value in enumerate(kept):
                out[f"vision.block{b}"] = value
            for l, value in enumerate(hidden):
                out[f"seq{i}.hidden{l}"] = value[0]
    return out


def greedy_text(model, sequence, count):
    """Ids that `generate` chooses after the sequence's prompt; none ends it."""
    batch = collate([Seq(sequence.ids[: sequence.response_start], sequence.response_start, sequence.images)])
    batch.pop("labels")
    model.model.rope_deltas = None
    with torch.no_grad():
        ids = model.generate(**batch, do_sample=False, max_new_tokens=count, eos_token_id=[], pad_token_id=0)
    return ids[0, sequence.response_start :]


def record(name, config, seed, parts, layout="published", debug=False, greedy=0):
    """Record one case; `parts` is a list of (prompt parts, response length). With `greedy`, so many tokens of greedy text after the first
    prompt are recorded too. With `--new` on the command line, what is recorded already stays."""
    if "--new" in sys.argv and (FIXTURES / "model" / name / "case.json").exists():
        return
    directory = common.fresh_dir(FIXTURES / "model" / name)
    model = build_checkpoint(directory, config, seed, layout)
    patch_dim, merge = 0, 1
    if vision := getattr(model.config, "vision_config", None):
        patch_dim, merge = 3 * vision.temporal_patch_size * vision.patch_size**2, vision.spatial_merge_size
    generator = torch.Generator().manual_seed(seed + 1)
    sequences = [make_sequence(generator, patch_dim, merge, p, r) for p, r in parts]

    loss, logits, grads = run_one_by_one(model, sequences)
    other = run_batch(model, sequences)
    padding = max([relative(a, b) for a, b in zip(other[1], logits)] + [relative(other[2][n], g) for n, g in grads.items()])
    assert padding < 1e-5 and set(other[2]) == set(grads), f"{name}: padding changes a result by {padding}"
    exact = run_one_by_one(copy.deepcopy(model).double(), sequences)
    rounding = {
        "logits": max(relative(a, b) for a, b in zip(logits, exact[1])),
        "gradients": max(relative(g, exact[2][n]) for n, g in grads.items()),
    }
    assert max(rounding.values()) < 5e-5, f"{name}: too badly conditioned to be a reference: {rounding}"

    expected = {"loss": loss}
    table = []
    for i, s in enumerate(sequences):
        targets = torch.tensor(s.ids[s.response_start :])
        logprobs = logits[i][s.response_start - 1 : -1].log_softmax(-1).gather(1, targets[:, None])[:, 0]
        expected |= {
            f"seq{i}.input_ids": torch.tensor(s.ids),
            f"seq{i}.position_ids": positions_of(model, s),
            f"seq{i}.logits": logits[i],
            f"seq{i}.logprobs": logprobs,
        }
        if s.images:
            expected[f"seq{i}.pixel_values"] = torch.cat([p for _, p in s.images])
            expected[f"seq{i}.image_grid_thw"] = torch.tensor([g for g, _ in s.images])
        table.append({"len": len(s.ids), "response_start": s.response_start, "images": [g for g, _ in s.images]})
    named = [published_name(n, config["model_type"]) for n, _ in model.named_parameters()]
    expected |= {f"grad.{n}": g for n, g in grads.items()}
    zero = [n for n, g in grads.items() if not g.any()]
    assert not zero, f"{name}: zero gradients for {zero}"
    if debug:
        expected |= debug_tensors(model, sequences)
    if greedy:
        expected["greedy"] = greedy_text(model, sequences[0], greedy)
    write_tensors(directory / "expected.safetensors", expected)
    write_json(
        directory / "case.json",
        {
            "what": f"{FAMILIES[config['model_type']]} forward, loss and gradients on a random checkpoint: {name}",
            "versions": common.versions(),
            "layout": layout,
            "seed": seed,
            "sequences": table,
            "response_tokens": sum(t["len"] - t["response_start"] for t in table),
            "loss": loss.item(),
            "no_gradient": [n for n in named if n not in grads],
            "keys": KEYS,
            "compare": "relative to the largest magnitude of each tensor: |a - b| <= 1e-4 * max|b|",
            "relative_difference_padded_batch": padding,
            "relative_difference_f64": rounding,
        },
    )
    size = sum(f.stat().st_size for f in directory.iterdir())
    print(f"{name}: loss {loss.item():.6f}, padding {padding:.1e}, rounding {rounding}, {size // 1024} KiB")


def main():
    common.deterministic()
    text = {
        "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "vocab_size": 160,
    }
    # One image smaller than a window, the published patch size.
    record(
        "one_image_tied",
        common.flat_config(
            text,
            {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 14, "window_size": 112,
             "fullatt_block_indexes": [1]},
            [2, 1, 1], tied=True,
        ),
        11, [([4, (4, 6), 5], 6)], debug=True,
    )
    # Windows of 4 x 4 merged patches over grids of 3 x 5, 5 x 7 and 9 x 2 merged patches: none divides evenly.
    record(
        "two_images_untied",
        common.flat_config(
            text | {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 10000.0},
            {"depth": 4, "hidden_size": 16, "intermediate_size": 20, "num_heads": 2, "patch_size": 2, "window_size": 16,
             "fullatt_block_indexes": [1, 3]},
            [2, 3, 3], tied=False,
        ),
        22, [([3, (6, 10), 2, (10, 14), 4], 5), ([2, (18, 4), 3], 9), ([7], 4)],
    )
    record(
        "text_only_tied",
        common.flat_config(
            text | {"num_hidden_layers": 3, "num_key_value_heads": 4, "intermediate_size": 24},
            {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4, "window_size": 32,
             "fullatt_block_indexes": [0]},
            [1, 1, 2], tied=True,
        ),
        33, [([9], 6), ([3], 4)],
    )
    record(
        "one_image_nested",
        common.flat_config(
            text | {"num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 5000.0},
            {"depth": 2, "hidden_size": 16, "intermediate_size": 28, "num_heads": 1, "patch_size": 4, "window_size": 16,
             "fullatt_block_indexes": [0]},
            [4, 2, 2], tied=True,
        ),
        44, [([3, (6, 10), 4], 7)], layout="nested",
    )
    # Qwen2.5 reads text alone.
    record(
        "qwen2_tied",
        common.qwen2_config(text | {"num_hidden_layers": 3}, tied=True),
        55, [([9], 6), ([3], 4)],
    )
    # Six heads of width 6 on one; config.json as transformers 5 writes it.
    record(
        "qwen2_untied",
        common.qwen2_config(
            text | {"hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 1, "intermediate_size": 28,
                    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "vocab_size": 168},
            tied=False,
        ),
        66, [([12], 5), ([2], 9), ([7], 3)], layout="nested",
    )
    # SmolLM2: an odd number of heads, no scaling.
    record(
        "llama_tied",
        common.causal_config(
            "llama", text | {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3, "rope_theta": 100000.0}, tied=True
        ),
        77, [([9], 6), ([3], 4)], greedy=12,
    )
    # Llama 3: stretched frequencies (here over sequences that are long for them), heads of their own width; as transformers 5 writes it.
    stretched = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                 "original_max_position_embeddings": 64}
    record(
        "llama_stretched",
        common.causal_config(
            "llama",
            text | {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-5, "rope_theta": 500.0,
                    "rope_scaling": stretched},
            tied=False,
        ),
        88, [([40], 5), ([2], 9), ([7], 3)], layout="nested", greedy=12,
    )
    # Qwen3: norms of queries and keys; heads whose widths do not sum to the hidden size.
    record(
        "qwen3_tied",
        common.causal_config("qwen3", text | {"head_dim": 12, "num_hidden_layers": 3}, tied=True),
        99, [([9], 6), ([3], 4)], greedy=12,
    )
    record(
        "qwen3_untied",
        common.causal_config(
            "qwen3",
            text | {"hidden_size": 28, "num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 8, "rms_norm_eps": 1e-5,
                    "rope_theta": 10000.0},
            tied=False,
        ),
        111, [([12], 5), ([2], 9), ([7], 3)], layout="nested", greedy=12,
    )
    # Qwen2-VL: LayerNorms, quick GELU, attention over whole images.
    record(
        "qwen2_vl_tied",
        common.flat_config(
            text,
            {"depth": 2, "embed_dim": 16, "mlp_ratio": 2, "num_heads": 2, "patch_size": 4},
            [2, 1, 1], tied=True, model_type="qwen2_vl",
        ),
        122, [([4, (4, 6), 5], 6)], greedy=12,
    )
    record(
        "qwen2_vl_untied",
        common.flat_config(
            text | {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 10000.0, "rms_norm_eps": 1e-5},
            {"depth": 3, "embed_dim": 24, "mlp_ratio": 4, "num_heads": 3, "patch_size": 2},
            [2, 3, 3], tied=False, model_type="qwen2_vl",
        ),
        133, [([3, (6, 10), 2, (10, 14), 4], 5), ([2, (18, 4), 3], 9), ([7], 4)], layout="nested", greedy=12,
    )
    # Qwen3-VL: learned positions between those of a 4 x 4 and a 6 x 6 grid, DeepStack, axes that take turns; heads of their own width.
    record(
        "qwen3_vl_tied",
        common.qwen3_vl_config(
            text | {"head_dim": 12, "num_hidden_layers": 3},
            {"depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
             "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
            [2, 2, 2], tied=True,
        ),
        144, [([4, (4, 6), 5], 6)], greedy=12,
    )
    record(
        "qwen3_vl_untied",
        common.qwen3_vl_config(
            text | {"hidden_size": 28, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 16, "rope_theta": 10000.0,
                    "rms_norm_eps": 1e-5},
            {"depth": 3, "hidden_size": 24, "intermediate_size": 40, "num_heads": 3, "patch_size": 2,
             "num_position_embeddings": 36, "deepstack_visual_indexes": [1]},
            [4, 3, 1], tied=False,
        ),
        155, [([3, (6, 10), 2, (10, 14), 4], 5), ([2, (18, 4), 3], 9), ([7], 4)], layout="nested", greedy=12,
    )


if __name__ == "__main__":
    main()
