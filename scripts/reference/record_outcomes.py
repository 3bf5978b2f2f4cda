"""Record the numbers that the outcomes of a comparison are checked with. Writes tests/fixtures/outcomes.json.

- singular_values: numpy.linalg.svd in f64 of matrices of f32 numbers; effective rank (Roy and Vetterli 2007) and stable rank of them
- weight_diff: norms, ranks and shares of changed weights (numpy; torch rounds to bf16)
- transitions: right to wrong and wrong to right, adjusted for guessing as the code of arXiv 2510.17776 does it (post-forget/post-forget,
  src/analyze/create_csv.py: 1->0 / n - (1 - acc_before)(1 - acc_after) / (choices - 1), not below 0), for each number of choices; intervals
  by statsmodels
"""

import json
from pathlib import Path

import numpy as np
import scipy.stats
import statsmodels
import statsmodels.api as sm
import torch
from statsmodels.stats.proportion import proportion_confint

OUT = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "outcomes.json"


def ranks(values):
    values = values[values > 0]
    if len(values) == 0:
        return 0.0, 0.0
    entropy = scipy.stats.entropy(values / values.sum())
    return float(np.exp(entropy)), float((values**2).sum() / values.max() ** 2)


def singular_values():
    rng = np.random.default_rng(1)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    low_rank = (normal(24, 3) @ normal(3, 40)).astype(np.float32)
    decaying = (normal(16, 16) * np.float32(2.0) ** -np.arange(16, dtype=np.float32)).astype(np.float32)
    cases = []
    for matrix in [normal(1, 1), normal(1, 7), normal(7, 1), normal(2, 2), normal(12, 30), normal(30, 12), low_rank, decaying]:
        values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
        effective, stable = ranks(values)
        cases.append({"rows": matrix.shape[0], "cols": matrix.shape[1], "matrix": matrix.ravel().tolist(),
                      "values": values.tolist(), "effective_rank": effective, "stable_rank": stable})
    return cases


def weight_diff():
    rng = np.random.default_rng(2)
    cases = []
    for shape, size in [((8, 20), 1e-2), ((6, 3, 2, 2), 1e-4), ((9,), 1e-3), ((5, 5), 0.0)]:
        old = (0.05 * rng.standard_normal(shape)).astype(np.float32)
        step = size * rng.standard_normal(shape)
        step[rng.random(shape) < 0.3] = 0.0
        new = (old.astype(np.float64) + step).astype(np.float32)
        bf16 = lambda x: torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy()
        change = new.astype(np.float64) - old.astype(np.float64)
        effective, stable = 0.0, 0.0
        if len(shape) > 1:
            # The change of a matrix is formed in f32, as its weights are.
            values = np.linalg.svd((new - old).reshape(shape[0], -1).astype(np.float64), compute_uv=False)
            effective, stable = ranks(values)
        cases.append({"shape": list(shape), "old": old.ravel().tolist(), "new": new.ravel().tolist(),
                      "norm": float(np.linalg.norm(change)), "base_norm": float(np.linalg.norm(old.astype(np.float64))),
                      "changed": int((old.view(np.int32) != new.view(np.int32)).sum()),
                      "changed_bf16": int((bf16(old) != bf16(new)).sum()),
                      "effective_rank": effective, "stable_rank": stable})
    return cases


def clustered(values, clusters):
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    low, high = fit.conf_int()[0]
    return float(fit.params[0]), float(low), float(high)


def transition(made, before, after, choices, clusters):
    n, count = len(made), int(made.sum())
    if len(set(clusters)) == n:
        low, high = proportion_confint(count, n, alpha=0.05, method="wilson")
        raw = count / n, low, high
    else:
        value, low, high = clustered(made.astype(float), clusters)
        raw = value, max(low, 0.0), min(high, 1.0)

    def adjusted(index):
        """The published formula, summed over the numbers of choices."""
        m, b, a, k = made[index], before[index], after[index], choices[index]
        found = m.mean()
        for each in set(k) - {0}:
            own = k == each
            found -= own.mean() * (1 - b[own].mean()) * (1 - a[own].mean()) / (each - 1)
        return found

    # The delta method by hand: derivatives of the formula with respect to each question's weight.
    linear = made.astype(float)
    for each in set(choices) - {0}:
        own = choices == each
        wrong_before, wrong_after = 1 - before[own].mean(), 1 - after[own].mean()
        linear[own] -= ((1 - before[own]) * wrong_after + (1 - after[own]) * wrong_before - wrong_before * wrong_after) / (each - 1)
    everything = np.arange(n)
    value, low, high = clustered(linear, clusters)
    assert abs(value - adjusted(everything)) < 1e-12
    # Its standard error against the bootstrap over clusters.
    rng = np.random.default_rng(3)
    members = [np.flatnonzero(clusters == c) for c in sorted(set(clusters))]
    draws = [adjusted(np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])) for _ in range(4000)]
    fit = sm.OLS(linear, np.ones(n)).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    assert abs(np.std(draws) / fit.bse[0] - 1) < 0.08, (np.std(draws), fit.bse[0])
    if not (set(choices) - {0}):
        value, low, high = raw
    cut = lambda x: max(x, 0.0)
    return {"count": count, "raw": raw[0], "raw_low": raw[1], "raw_high": raw[2],
            "adjusted": cut(value), "adjusted_low": cut(low), "adjusted_high": cut(min(high, 1.0))}


def transitions():
    rng = np.random.default_rng(4)
    cases = []
    for n, levels, per_cluster, known in [(200, [4], 1, 0.6), (150, [2], 3, 0.5), (240, [2, 4, 0], 2, 0.7), (120, [0], 1, 0.5), (200, [4], 1, 0.0)]:
        choices = rng.choice(levels, n)
        chance = np.where(choices > 0, 1 / np.maximum(choices, 1), 0.0)
        knows_before = rng.random(n) < known
        knows_after = np.where(knows_before, rng.random(n) < 0.7, rng.random(n) < 0.1)
        before = knows_before | (rng.random(n) < chance)
        after = knows_after | (rng.random(n) < chance)
        clusters = np.arange(n) // per_cluster
        one = lambda made: transition(made, before.astype(float), after.astype(float), choices, clusters)
        cases.append({"before": before.astype(int).tolist(), "after": after.astype(int).tolist(), "choices": choices.tolist(),
                      "clusters": clusters.tolist(), "right_to_wrong": one(before & ~after), "wrong_to_right": one(~before & after)})
    return cases


def main():
    record = {
        "about": __doc__.strip(),
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__, "torch": torch.__version__},
        "singular_values": singular_values(),
        "weight_diff": weight_diff(),
        "transitions": transitions(),
    }
    OUT.write_text(json.dumps(record) + "\n")


main()
