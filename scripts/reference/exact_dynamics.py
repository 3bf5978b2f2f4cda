"""The learning dynamics of a pair of samples (u, v) in f64, by torch's automatic differentiation. Nothing is rounded to f32, and the only step that is
taken is that of `torch.optim.AdamW`, on the f64 weights.

`jigsaw dynamics` measures the same numbers with f32 weights (docs/dynamics.md). Shared by record_dynamics.py and check_dynamics.py.
"""

import torch


class Exact:
    """A model of transformers in f64, whose gradients and directional derivatives are exact to about 1e-12."""

    def __init__(self, model, frozen=()):
        self.model = model.double().eval()
        self.parameters = {
            name: p.detach().clone() for name, p in model.named_parameters() if not any(part in name for part in frozen)
        }

    def rows(self, parameters, sample):
        """log softmax before every response token of `sample` (a dict of model inputs and `response_tokens`), [tokens, vocab]."""
        n = sample["response_tokens"]
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in sample["inputs"].items()}
        self.model.model.rope_deltas = None
        out = torch.func.functional_call(self.model, parameters, args=(), kwargs=inputs | {"use_cache": False})
        return out.logits[0, -n - 1 : -1].log_softmax(-1)

    def gradient(self, sample, weight):
        """Log-distributions, and the gradient of `weight` times the log-likelihood of the response, a tensor for each parameter."""
        parameters = {name: p.clone().requires_grad_() for name, p in self.parameters.items()}
        rows = self.rows(parameters, sample)
        likelihood = weight * rows.gather(1, targets(sample)).sum()
        found = torch.autograd.grad(likelihood, list(parameters.values()), allow_unused=True)
        grads = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(self.parameters.items(), found)}
        return rows.detach(), grads

    def slope(self, sample, direction):
        """Derivative of the log-distributions of `sample` along `direction`, by forward mode."""
        f = lambda parameters: self.rows(parameters, sample)
        return torch.func.jvp(f, (self.parameters,), (direction,))[1]

    def after_adam(self, gradient, rate):
        """The parameters after the first step of AdamW, up `gradient`, without weight decay."""
        parameters = {name: p.clone().requires_grad_() for name, p in self.parameters.items()}
        for name, p in parameters.items():
            p.grad = -gradient[name]
        torch.optim.AdamW(parameters.values(), lr=rate, weight_decay=0.0, foreach=False, fused=False).step()
        return {name: p.detach() for name, p in parameters.items()}

    def pair(self, u, v, loss="mean", rate=1e-5):
        """Every number of a line of `pairs.jsonl` that does not depend on how it is computed; `rate` is that of the step of Adam."""
        u_weight, v_weight = (1 / s["response_tokens"] if loss == "mean" else 1.0 for s in (u, v))
        u_rows, by_u = self.gradient(u, u_weight)
        v_rows, by_v = self.gradient(v, v_weight)
        slope, back = self.slope(v, by_u), self.slope(u, by_v)
        inner, u_norm, v_norm = dot(by_u, by_v), dot(by_u, by_u) ** 0.5, dot(by_v, by_v) ** 0.5
        moved = self.rows(self.after_adam(by_u, rate), v) - v_rows
        pi = v_rows.exp()
        a_squares = (pi.shape[1] - 2 + pi.shape[1] * pi.square().sum(1)).sum().item()
        g = u_rows.exp()
        others = g.scatter(1, targets(u), 0.0)
        g_squares = u_weight**2 * (others.sum(1).square() + others.square().sum(1)).sum().item()
        slope_squares = slope.square().sum().item()
        return {
            "u_tokens": u["response_tokens"],
            "v_tokens": v["response_tokens"],
            "slope_squares": slope_squares,
            "a_squares": a_squares,
            "g_squares": g_squares,
            "lbk": slope_squares / (a_squares * g_squares),
            "sgd_kl": 0.5 * (pi * slope.square()).sum().item() / v["response_tokens"],
            "adam_change": v_weight * moved.gather(1, targets(v)).sum().item(),
            "adam_squares": moved.square().sum().item(),
            "adam_kl": -(pi * moved).sum().item() / v["response_tokens"],
            "inner_product": inner,
            "v_slope": v_weight * slope.gather(1, targets(v)).sum().item(),
            "u_slope": u_weight * back.gather(1, targets(u)).sum().item(),
            "cosine": inner / (u_norm * v_norm),
            "u_gradient": u_norm,
            "v_gradient": v_norm,
            "u_nats": -u_rows.gather(1, targets(u)).sum().item(),
            "v_nats": -v_rows.gather(1, targets(v)).sum().item(),
        }


def targets(sample):
    """The response tokens, [tokens, 1]."""
    return sample["inputs"]["input_ids"][0, -sample["response_tokens"] :, None]


def dot(a, b):
    return sum((a[name] * b[name]).sum().item() for name in a)
