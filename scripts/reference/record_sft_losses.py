"""Record SFT losses and their gradients: TRL's nll and dft, computed by TRL's own SFTTrainer.compute_loss, and EAFT (arXiv 2601.02151) by its
formula, which TRL does not have; the gradients by torch autograd.

The trainer is made without its constructor and given only the attributes that `compute_loss` reads; in place of a model, a table of logits
gives the log-probabilities of the tokens. Writes tests/fixtures/training/sft_losses.json. Per-token values are laid end to end without
padding.
"""

import json
import math
from collections import defaultdict
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from trl import SFTTrainer

import common
from common import FIXTURES

LENGTHS = [3, 6, 1, 4]
VOCABULARY = 7


class ScriptedTrainer(SFTTrainer):
    """An SFTTrainer whose model outputs are given."""

    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)
        self._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._total_train_tokens = 0
        self._tp_size = 1

    def get_tp_size(self):
        return 1


def outputs(logits, labels, mask):
    """What TRL's fused head gives for a padded batch: 0 on padding."""
    logprobs = torch.log_softmax(logits, dim=-1)
    chosen = logprobs.gather(-1, labels.unsqueeze(-1)).squeeze(-1) * mask
    entropy = -(logprobs.exp() * logprobs).sum(-1) * mask
    return SimpleNamespace(log_probs=chosen, label_mask=mask, entropy=entropy, is_top1=torch.zeros_like(mask))


def case(loss_type, scale, accumulation):
    torch.manual_seed(int(scale * 10) + accumulation)
    rows, width = len(LENGTHS), max(LENGTHS)
    mask = torch.tensor([[float(t < n) for t in range(width)] for n in LENGTHS], dtype=torch.float64)
    logits = (torch.randn(rows, width, VOCABULARY, dtype=torch.float64) * scale).float().double()
    labels = torch.randint(VOCABULARY, (rows, width))
    out = outputs(logits, labels, mask)
    # The statistics as f32, which is what the loss is given.
    logprobs = out.log_probs.float().double().requires_grad_(True)
    model = SimpleNamespace(training=True)
    trainer = ScriptedTrainer(
        model=model, accelerator=Accelerator(cpu=True), aux_loss_enabled=False, compute_loss_func=None, label_smoother=None,
        args=SimpleNamespace(loss_type=loss_type, average_tokens_across_devices=False, max_length=None),
    )
    items = int(mask.sum()) * accumulation
    given = SimpleNamespace(**{**vars(out), "log_probs": logprobs})
    loss = trainer.compute_loss(
        lambda **_: given, {"attention_mask": mask, "labels": labels}, num_items_in_batch=torch.tensor(items)
    )
    loss.backward()
    flat = lambda t: [float(t[i, j]) for i, n in enumerate(LENGTHS) for j in range(n)]
    return {
        "loss_type": loss_type, "num_items_in_batch": items, "logprobs": flat(logprobs.detach()), "loss": float(loss.detach()),
        "grad_logprobs": flat(logprobs.grad), "entropy": float(trainer._metrics["train"]["entropy"][0]),
        "entropies": flat(out.entropy.float()),
    }


def eaft(case):
    """The same inputs under EAFT: each token's loss is weighted by its entropy over ln 20, at most 1, which carries no gradient."""
    logprobs = torch.tensor(case["logprobs"], dtype=torch.float64, requires_grad=True)
    weights = (torch.tensor(case["entropies"], dtype=torch.float64) / math.log(20)).clamp(max=1.0)
    loss = -(weights.detach() * logprobs).sum() / case["num_items_in_batch"]
    loss.backward()
    return {**case, "loss_type": "eaft", "loss": float(loss.detach()), "grad_logprobs": logprobs.grad.tolist()}


def main():
    common.deterministic()
    cases = [case(t, scale, n) for t in ("nll", "dft") for scale in (0.3, 1.0, 4.0) for n in (1, 3)]
    cases += [eaft(case) for case in cases if case["loss_type"] == "nll"]
    path = FIXTURES / "training" / "sft_losses.json"
    path.write_text(json.dumps({"versions": common.versions(), "lengths": LENGTHS, "cases": cases}) + "\n")
    print(f"{len(cases)} cases in {path}")


if __name__ == "__main__":
    main()
