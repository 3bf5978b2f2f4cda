"""Record SFT losses and their gradients: TRL's nll and dft, computed by TRL's own SFTTrainer.compute_loss; the two of TRL's SDFTTrainer (arXiv
2601.19897), by its loss functions; and EAFT (arXiv 2601.02151), PSFT (2508.17784), PriFT-prob (2606.09396) and L2-SP (1802.01483) by their
formulas, which TRL does not have. The gradients are torch autograd's.

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
from trl.experimental.sdft import loss_utils as sdft_losses

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


def compared(case, seed):
    """The same inputs with the log-probabilities of an old policy and of a reference, which differ from them at random."""
    torch.manual_seed(seed)
    logprobs = torch.tensor(case["logprobs"], dtype=torch.float64)
    near = lambda scale: (logprobs + scale * torch.randn_like(logprobs)).clamp(max=-1e-3).float().double()
    return {**case, "old": near(0.4).tolist(), "reference": near(0.7).tolist()}


def by_autograd(case, loss_type, token_loss):
    """`token_loss` of log-probabilities, old and reference ones, summed and divided by the tokens of the batch."""
    logprobs = torch.tensor(case["logprobs"], dtype=torch.float64, requires_grad=True)
    old, reference = (torch.tensor(case[name], dtype=torch.float64) for name in ("old", "reference"))
    loss = token_loss(logprobs, old, reference).sum() / case["num_items_in_batch"]
    loss.backward()
    return {**case, "loss_type": loss_type, "loss": float(loss.detach()), "grad_logprobs": logprobs.grad.tolist()}


def psft(logprobs, old, _reference):
    ratio = (logprobs - old).exp()
    return -torch.min(ratio, ratio.clamp(1 - 0.2, 1 + 0.28))


def prift(logprobs, _old, reference):
    return -reference.exp().detach() * logprobs


def sdft_reverse(logprobs, _old, teacher):
    """TRL's loss of sampled tokens, which is given logits: here, the log-probabilities that it would read from them."""
    sdft_losses.selective_log_softmax = lambda given, _ids: given
    return sdft_losses.compute_sampled_token_self_distillation_loss(logprobs, teacher, None, distillation_alpha=1.0)


def sdft():
    """TRL's loss of whole distributions, KL(teacher || student), with its gradient with respect to the student's output matrix."""
    torch.manual_seed(7)
    tokens, width, teacher_width = sum(LENGTHS), 6, 5
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64).float().double()
    states, teacher_states, teacher_weight = make(tokens, width), make(tokens, teacher_width), make(VOCABULARY, teacher_width)
    weight = make(VOCABULARY, width).requires_grad_(True)
    nats = sdft_losses.compute_full_logit_self_distillation_loss(
        states @ weight.T, teacher_states @ teacher_weight.T, distillation_alpha=0.0
    )
    loss = nats.mean()
    loss.backward()
    given = {"states": states, "teacher_states": teacher_states, "teacher_weight": teacher_weight, "weight": weight.detach()}
    return {**{k: v.tolist() for k, v in given.items()}, "loss": float(loss.detach()), "grad_weight": weight.grad.tolist()}


def l2_sp():
    """A weight that has moved, the gradient of another loss, and both with the penalty added."""
    torch.manual_seed(11)
    coef, start = 0.3, torch.randn(4, 5)
    weight = (start + 0.1 * torch.randn(4, 5)).requires_grad_(True)
    factors = torch.randn(4, 5)
    penalty = 0.5 * coef * ((weight - start) ** 2).sum()
    ((weight * factors).sum() + penalty).backward()
    tensors = {"start": start, "weight": weight.detach(), "other_grad": factors, "grad": weight.grad}
    return {"coef": coef, "penalty": float(penalty.detach()), **{k: v.tolist() for k, v in tensors.items()}}


def main():
    common.deterministic()
    cases = [case(t, scale, n) for t in ("nll", "dft") for scale in (0.3, 1.0, 4.0) for n in (1, 3)]
    plain = [case for case in cases if case["loss_type"] == "nll"]
    cases += [eaft(case) for case in plain]
    plain = [compared(case, seed) for seed, case in enumerate(plain)]
    losses = [("psft", psft), ("prift", prift), ("sdft_reverse", sdft_reverse)]
    cases += [by_autograd(case, name, loss) for name, loss in losses for case in plain]
    path = FIXTURES / "training" / "sft_losses.json"
    path.write_text(json.dumps({"versions": common.versions(), "lengths": LENGTHS, "cases": cases, "sdft": sdft(), "l2_sp": l2_sp()}) + "\n")
    print(f"{len(cases)} cases in {path}")


if __name__ == "__main__":
    main()
