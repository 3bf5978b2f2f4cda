"""Record TRL's GRPO losses, their gradients, metrics and group advantages, computed by TRL's own GRPOTrainer methods.

The trainer is made without its constructor and given only the attributes that `_compute_loss` and
`_generate_and_score_completions` read; what would run a model returns recorded random numbers instead.
Writes tests/fixtures/grpo/{losses,advantages}.json. Per-token values are laid end to end without padding.
"""

import itertools
import json
import math
from collections import defaultdict, deque
from types import SimpleNamespace

import torch
import trl
from accelerate import Accelerator
from trl import GRPOTrainer

import common
from common import FIXTURES, fresh_dir

OUT = FIXTURES / "grpo"
MAX_COMPLETION_LENGTH = 9
METRICS = ("kl", "entropy", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "cispo_clip_ratio")


class ScriptedTrainer(GRPOTrainer):
    """A GRPOTrainer whose model outputs, generations and rewards are given."""

    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)
        self._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._logs = {
            "prompt": deque(), "completion": deque(), "advantages": deque(), "images": deque(),
            "rewards": defaultdict(deque), "extra": defaultdict(deque),
        }

    def _get_per_token_logps_and_entropies(self, *_args, **_kwargs):
        return self.scripted_logps, self.scripted_entropies, None

    def _generate(self, prompts):
        n = len(prompts)
        return [[1]] * n, [[2, 3]] * n, None, ["x"] * n, None, {}, None, None

    def _calculate_rewards(self, *_args, **_kwargs):
        return self.scripted_rewards


def common_attributes(accelerator):
    model = torch.nn.Linear(1, 1).train()
    model.is_gradient_checkpointing = False
    return {
        "accelerator": accelerator,
        "model": model,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
    }


def make_data(lengths, seed):
    """Random per-token log-probabilities [B, T] in f64 with values that f32 holds exactly."""
    g = torch.Generator().manual_seed(seed)
    b, t = len(lengths), max(lengths)
    old = -torch.rand(b, t, generator=g) * 4 - 0.01
    policy = (old + 0.35 * torch.randn(b, t, generator=g)).clamp(max=-0.001)
    policy[0, 0] = old[0, 0] - 1.5
    policy[-1, 0] = min(old[-1, 0] + 1.2, torch.tensor(-0.002))
    reference = (policy + 0.5 * torch.randn(b, t, generator=g)).clamp(max=-0.001)
    entropies = torch.rand(b, t, generator=g) * 3
    advantages = torch.randn(b, generator=g)
    advantages[b // 2] = 0.0
    mask = (torch.arange(t)[None, :] < torch.tensor(lengths)[:, None]).long()
    return {
        "lengths": lengths,
        "mask": mask,
        **{k: v.double() for k, v in dict(policy=policy, old=old, reference=reference, entropies=entropies, advantages=advantages).items()},
    }


def flat(tensor, mask):
    """[B, T] -> unpadded values laid end to end, 9 significant digits (enough for f32)."""
    return [float(f"{v:.9g}") for v in tensor[mask.bool()].tolist()]


def loss_case(accelerator, data, on_policy, settings):
    logps = data["policy"].clone().requires_grad_(True)
    entropies = data["entropies"].clone().requires_grad_(True)
    trainer = ScriptedTrainer(
        **common_attributes(accelerator),
        scripted_logps=logps,
        scripted_entropies=entropies,
        args=SimpleNamespace(
            delta=settings["delta"], use_bias_correction_kl=False, steps_per_generation=settings["steps_per_generation"], report_to=[]
        ),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=settings["importance_sampling_level"],
        beta=settings["beta"],
        loss_type=settings["loss_type"],
        epsilon_low=settings["epsilon_low"],
        epsilon_high=settings["epsilon_high"],
        max_completion_length=MAX_COMPLETION_LENGTH,
        current_gradient_accumulation_steps=settings["gradient_accumulation_steps"],
        entropy_coef=settings["entropy_coef"],
        use_adaptive_entropy=False,
        _entropy_bonus_enabled=settings["entropy_coef"] != 0.0,
    )
    b = len(data["lengths"])
    inputs = {
        "prompt_ids": torch.ones(b, 1, dtype=torch.long),
        "prompt_mask": torch.ones(b, 1, dtype=torch.long),
        "completion_ids": torch.ones_like(data["mask"]),
        "completion_mask": data["mask"],
        "advantages": data["advantages"],
        "num_items_in_batch": torch.tensor(settings["num_items_in_batch"]),
        "ref_per_token_logps": data["reference"],
    }
    if not on_policy:
        inputs["old_per_token_logps"] = data["old"]
    loss = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    loss.backward()
    pad = ~data["mask"].bool()
    assert logps.grad is not None and not logps.grad[pad].any(), "padding has a gradient"
    metrics = {k: v[0] for k, v in trainer._metrics["train"].items() if k in METRICS and not math.isnan(v[0])}
    row = settings | {
        "on_policy": on_policy,
        "loss": loss.item(),
        "grad_logps": flat(logps.grad, data["mask"]),
        "grad_entropies": flat(entropies.grad, data["mask"]) if entropies.grad is not None else None,
        "metrics": metrics,
    }
    return row


def record_losses(accelerator):
    batches = {"unequal": make_data([7, 1, 4, 5, 2, 6], 1), "one_fully_masked": make_data([3, 0, 5, 2], 2)}
    variants = [
        {"beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2, "delta": None, "entropy_coef": 0.0,
         "gradient_accumulation_steps": 1, "steps_per_generation": 1},
        {"beta": 0.04, "epsilon_low": 0.2, "epsilon_high": 0.28, "delta": None, "entropy_coef": 0.0,
         "gradient_accumulation_steps": 1, "steps_per_generation": 1},
        {"beta": 0.0, "epsilon_low": 0.1, "epsilon_high": 0.2, "delta": 1.25, "entropy_coef": 0.0,
         "gradient_accumulation_steps": 2, "steps_per_generation": 2},
        {"beta": 0.1, "epsilon_low": 0.2, "epsilon_high": 0.2, "delta": None, "entropy_coef": 0.01,
         "gradient_accumulation_steps": 2, "steps_per_generation": 4},
    ]
    rows = []
    for (name, data), on_policy, loss_type, level, variant in itertools.product(
        batches.items(), (False, True), ("grpo", "bnpo", "dr_grpo", "dapo", "cispo"), ("token", "sequence"), variants
    ):
        if on_policy and (name != "unequal" or level == "sequence"):
            continue
        tokens = int(data["mask"].sum())
        # The generation batch holds this micro-batch and, when it is not alone, 11 tokens in each of the others.
        items = tokens + 11 * (variant["steps_per_generation"] - 1)
        settings = {"batch": name, "loss_type": loss_type, "importance_sampling_level": level, "num_items_in_batch": items} | variant
        if loss_type == "cispo":
            # An upper bound of the ratio itself, not of its distance from 1.
            settings |= {"epsilon_high": 1.0 + settings["epsilon_high"], "delta": None}
        rows.append(loss_case(accelerator, data, on_policy, settings))
    header = {
        "keys": {
            "max_completion_length": "for dr_grpo",
            "batches.<name>.lengths": "tokens of each completion (0: a completion that is masked out entirely; it still counts as a sequence)",
            "batches.<name>.{policy,old,reference,entropies}": "per token, completion after completion, no padding",
            "batches.<name>.advantages": "one per completion",
            "cases[].on_policy": "true: old is the policy itself, detached",
            "cases[].epsilon_low, epsilon_high, delta, beta": "as TRL's configuration; for cispo epsilon_high bounds the ratio itself",
            "cases[].num_items_in_batch": "tokens of the whole generation batch of steps_per_generation micro-batches; the denominator of dapo and cispo is this * gradient_accumulation_steps / steps_per_generation",
            "cases[].gradient_accumulation_steps": "the other losses are divided by it, and so is the entropy bonus",
            "cases[].entropy_coef": "loss -= coef * (mean entropy over the micro-batch's tokens) / gradient_accumulation_steps",
            "cases[].loss, grad_logps, grad_entropies": "computed in f64 from the f32 inputs; grad_entropies null without a bonus",
            "cases[].metrics": "TRL's own logged values; kl and clip ratios are token means over the micro-batch (at sequence level the ratios are means over sequences)",
        },
        "versions": common.versions() | {"trl": trl.__version__},
        "max_completion_length": MAX_COMPLETION_LENGTH,
        "batches": {
            name: {
                "lengths": d["lengths"],
                "advantages": [float(f"{v:.9g}") for v in d["advantages"].tolist()],
                **{k: flat(d[k], d["mask"]) for k in ("policy", "old", "reference", "entropies")},
            }
            for name, d in batches.items()
        },
    }
    write_rows(OUT / "losses.json", header, "cases", rows)
    print(f"losses: {len(rows)} cases")


def record_advantages(accelerator):
    g = torch.Generator().manual_seed(3)
    tables = []
    for generations, prompts, weights in [(4, 3, [1.0, 1.0, 1.0]), (2, 4, [1.0, 0.5]), (8, 1, [2.0])]:
        rewards = torch.randint(0, 10, (prompts * generations, len(weights)), generator=g).float() / 9
        rewards[:generations] = rewards[0]  # one group without variance
        tables.append((generations, weights, rewards))
    # The same value everywhere, in a table of its own and as a sum that rounding could spread.
    tables.append((4, [1.0, 1.0], torch.full((8, 2), 0.1)))
    tables.append((4, [1.0], torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0], [0.5], [1.0]])))
    rows = []
    for (generations, weights, rewards), scale in itertools.product(tables, ("group", "batch", "none")):
        trainer = ScriptedTrainer(
            **common_attributes(accelerator),
            scripted_rewards=rewards.clone(),
            scripted_logps=None,
            scripted_entropies=None,
            args=SimpleNamespace(
                steps_per_generation=1, gradient_accumulation_steps=1, gradient_checkpointing_kwargs=None,
                per_device_train_batch_size=len(rewards), report_to=[],
            ),
            num_iterations=1,
            num_generations=generations,
            num_generations_eval=generations,
            environment_factories=None,
            environments=None,
            tools=None,
            _tokenizer=SimpleNamespace(pad_token_id=0),
            pad_to_multiple_of=None,
            mask_truncated_completions=False,
            beta=0.0,
            multi_objective_aggregation="sum_then_normalize",
            reward_weights=torch.tensor(weights),
            scale_rewards=scale,
            reward_func_names=[f"r{i}" for i in range(len(weights))],
            _pending_extra_logs={},
            _pending_metrics={},
            log_multimodal=False,
            processing_class=None,
        )
        out = GRPOTrainer._generate_and_score_completions(trainer, [{"prompt": "p"}] * len(rewards))
        metrics = trainer._metrics["train"]
        rows.append(
            {
                "num_generations": generations,
                "scale_rewards": scale,
                "weights": weights,
                "rewards": rewards.tolist(),
                "advantages": out["advantages"].tolist(),
                "metrics": {k: metrics[k][0] for k in ("reward", "reward_std", "frac_reward_zero_std")},
            }
        )
    header = {
        "keys": {
            "cases[].rewards": "[completions, reward functions]; completions of one prompt are consecutive groups of num_generations",
            "cases[].advantages": "one per completion (f32)",
            "cases[].metrics": "TRL's log: mean and standard deviation (Bessel) of the weighted sums over the batch, share of groups whose standard deviation is 0",
        },
        "versions": common.versions() | {"trl": trl.__version__},
    }
    write_rows(OUT / "advantages.json", header, "cases", rows)
    print(f"advantages: {len(rows)} cases")


def write_rows(path, header, name, rows):
    """JSON with one row a line."""
    path.write_text(
        json.dumps(header, indent=1)[:-2] + f',\n "{name}": [\n' + ",\n".join(json.dumps(r) for r in rows) + "\n ]\n}\n"
    )
    json.loads(path.read_text())


def main():
    common.deterministic()
    fresh_dir(OUT)
    accelerator = Accelerator(cpu=True)
    record_losses(accelerator)
    record_advantages(accelerator)
    for f in sorted(OUT.iterdir()):
        print(f"{f.name}: {f.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
