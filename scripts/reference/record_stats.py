"""Record scipy's and statsmodels' numbers for the statistics of src/stats/. Writes tests/fixtures/stats.json.

What neither library has (Tango's interval) is computed here from its definition, by other means than the Rust code: the nuisance
parameter as a root of the derivative of the likelihood, the ends as roots of the score statistic.
"""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import scipy.optimize
import scipy.special
import scipy.stats
import statsmodels
import statsmodels.api as sm
import statsmodels.formula.api as smf
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests

OUT = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "stats.json"
Z = scipy.stats.norm.ppf(0.975)

KEYS = {
    "normal": "scipy.stats.norm.cdf(x), .ppf(p)",
    "mcnemar": "statsmodels mcnemar([[0, lost], [gained, 0]], exact=True).pvalue",
    "tango": "Tango's (1998) score interval of (gained - lost) / n, by numerical inversion",
    "clustered": "statsmodels OLS(values, 1).fit(cov_type='cluster', use_t=True)",
    "bca": "scipy.stats.bootstrap(..., method='BCa'): its resampled values and its interval",
    "holm": "statsmodels multipletests(p, method='holm')",
    "line": "statsmodels OLS(y, [1, x]).fit(cov_type='cluster', use_t=True), 'HC1' for clusters of one; scipy.stats.spearmanr(x, y)",
    "factorial": "statsmodels ols('y ~ C(data, Sum) + C(method, Sum) + rate + C(data, Sum):rate + C(method, Sum):rate') by cluster of seed",
    "seeds": "statsmodels anova_lm('value ~ C(seed) + C(question)'); numpy bootstrap of seeds and questions, 200,000 resamples",
    "welch": "scipy.stats.ttest_ind(first, second, equal_var=False)",
}


def normal():
    pairs = [(-8.0, 1e-9), (-3.5, 1e-4), (-1.0, 0.025), (0.0, 0.3), (0.3, 0.5), (1.959963984540054, 0.975), (6.0, 1 - 1e-7)]
    norm = scipy.stats.norm
    return [{"x": x, "cdf": norm.cdf(x), "p": p, "quantile": norm.ppf(p)} for x, p in pairs]


def mcnemar():
    counts = [(0, 0), (1, 0), (0, 5), (3, 3), (2, 9), (14, 31), (60, 41), (0, 40), (480, 520), (1200, 1001)]
    p = [sm_mcnemar([[0, lost], [gained, 0]], exact=True).pvalue for gained, lost in counts]
    return [{"gained": g, "lost": l, "p": float(p)} for (g, l), p in zip(counts, p)]


def tango_statistic(n, gained, lost, delta):
    """(gained - lost - n delta) / sqrt(its variance at the most likely probability of a loss)."""
    low, high = max(0.0, -delta), (1.0 - delta) / 2.0

    def slope(q):
        total = 0.0
        if gained:
            total += gained / (q + delta)
        if lost:
            total += lost / q
        if n - gained - lost:
            total -= 2.0 * (n - gained - lost) / (1.0 - 2.0 * q - delta)
        return total

    edge = (high - low) * 1e-12
    inside = (low + edge, high - edge)
    if slope(inside[0]) <= 0.0:
        q = low
    elif slope(inside[1]) >= 0.0:
        q = high
    else:
        q = scipy.optimize.brentq(slope, *inside, xtol=1e-16, rtol=1e-15, maxiter=500)
    return (gained - lost - n * delta) / math.sqrt(n * (2.0 * q + delta * (1.0 - delta)))


def tango():
    cases = []
    for n, gained, lost in [(50, 12, 2), (100, 0, 7), (44, 5, 5), (200, 3, 20), (30, 1, 0), (1000, 40, 61), (5000, 10, 900)]:
        value = (gained - lost) / n

        def end(sign):
            f = lambda delta: tango_statistic(n, gained, lost, delta) + sign * Z
            far = 0.99 if sign > 0 else -0.99
            return scipy.optimize.brentq(f, *sorted((value, far)), xtol=1e-15, rtol=1e-14, maxiter=500)

        cases.append({"n": n, "gained": gained, "lost": lost, "low": end(-1), "high": end(+1)})
    return cases


def clustered():
    rng = np.random.default_rng(1)
    cases = []
    for groups, most in [(6, 4), (25, 2), (14, 9)]:
        clusters = np.repeat(np.arange(groups), rng.integers(1, most + 1, groups))
        values = np.round(rng.normal(0.1, 0.4, len(clusters)) + rng.normal(0.0, 0.3, groups)[clusters], 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
        low, high = fit.conf_int()[0]
        cases.append({
            "values": values.tolist(), "clusters": clusters.tolist(), "mean": fit.params[0], "error": fit.bse[0],
            "low": low, "high": high, "p": fit.pvalues[0],
        })
    return cases


def bca():
    rng = np.random.default_rng(2)
    statistics = {
        "difference": lambda tuned, base, axis: np.mean(tuned - base, axis=axis),
        "ratio": lambda tuned, base, axis: np.sum(tuned, axis=axis) / np.sum(base, axis=axis),
    }
    cases = []
    for n, name in [(12, "difference"), (30, "difference"), (25, "ratio"), (40, "ratio")]:
        base = np.round(rng.random(n) ** 0.5, 2)
        tuned = np.round(base * rng.random(n) ** 0.3, 2)
        found = scipy.stats.bootstrap(
            (tuned, base), statistics[name], paired=True, vectorized=True, n_resamples=400, method="BCa", random_state=n
        )
        cases.append({
            "statistic": name, "base": base.tolist(), "tuned": tuned.tolist(),
            "distribution": found.bootstrap_distribution.tolist(), "estimate": float(statistics[name](tuned, base, 0)),
            "low": float(found.confidence_interval.low), "high": float(found.confidence_interval.high),
        })
    return cases


def holm():
    lists = [[0.01, 0.04, 0.03, 0.005], [0.2], [0.5, 0.9, 1.0], [1e-8, 1e-8, 0.049, 0.02, 0.6, 0.05]]
    return [{"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()} for p in lists]


def welch():
    rng = np.random.default_rng(3)
    cases = []
    for n, m, shift in [(8, 30, 0.5), (50, 12, 0.0), (5, 5, 2.0)]:
        first, second = np.round(rng.normal(0, 1, n), 3), np.round(rng.normal(shift, 3, m), 3)
        p = scipy.stats.ttest_ind(first, second, equal_var=False).pvalue
        cases.append({"first": first.tolist(), "second": second.tolist(), "p": float(p)})
    return cases


def line():
    rng = np.random.default_rng(4)
    cases = []
    for groups, most, slope in [(12, 5, 3.0), (4, 20, 0.5), (30, 1, -2.0)]:
        clusters = np.repeat(np.arange(groups), rng.integers(1, most + 1, groups))
        n = len(clusters)
        x = np.round(rng.gamma(1.0, 0.5, n) + rng.gamma(1.0, 0.3, groups)[clusters], 2)
        y = np.round(slope * x + rng.normal(0.0, 0.5, groups)[clusters] + rng.normal(0.0, 0.3, n), 3)
        # Clusters of one observation each: the same errors, on the degrees of freedom of the residuals.
        robust = {"cov_type": "HC1"} if groups == n else {"cov_type": "cluster", "cov_kwds": {"groups": clusters}}
        fit = sm.OLS(y, sm.add_constant(x)).fit(use_t=True, **robust)
        low, high = fit.conf_int()[1]
        cases.append({
            "x": x.tolist(), "y": y.tolist(), "clusters": clusters.tolist(), "intercept": fit.params[0], "slope": fit.params[1],
            "low": low, "high": high, "p": fit.pvalues[1], "r2": fit.rsquared, "spearman": scipy.stats.spearmanr(x, y).statistic,
        })
    return cases


def factorial():
    """Data and method that share one cell each, as in a study: responses of three kinds learnt by SFT, own samples by SFT, GRPO and one more."""
    rng = np.random.default_rng(5)
    cells = [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]
    cases = []
    for seeds, noise in [(5, 2.0), (3, 0.5)]:
        rows = [(d, m, r, s) for d, m in cells for r in (-1.5, -0.5, 0.5, 1.5) for s in range(seeds)]
        frame = pd.DataFrame(rows, columns=["data", "method", "rate", "seed"])
        frame = frame.drop(index=[3, 11, 17]).reset_index(drop=True)
        of_seed = rng.normal(0.0, 1.0, seeds)[frame["seed"]]
        frame["y"] = np.round(10 + 3 * frame["data"] - 2 * frame["method"] + (4 + frame["data"]) * frame["rate"] + of_seed + rng.normal(0.0, noise, len(frame)), 3)
        terms = "y ~ C(data, Sum) + C(method, Sum) + rate + C(data, Sum):rate + C(method, Sum):rate"
        fit = smf.ols(terms, frame).fit(cov_type="cluster", cov_kwds={"groups": frame["seed"]}, use_t=True)
        ends = fit.conf_int()
        # The order of columns here: intercept, factors, rate, factors by rate.
        by_rate = [name for name in fit.params.index if name.endswith(":rate")]
        names = ["Intercept"] + [n for n in fit.params.index if n.startswith("C(") and n not in by_rate] + ["rate"] + by_rate
        weights = [-1.0 if name.startswith("C(data") and name not in by_rate else 0.0 for name in fit.params.index]
        last = fit.t_test(np.array(weights))
        last_low, last_high = last.conf_int()[0]
        cases.append({
            "data": frame["data"].tolist(), "method": frame["method"].tolist(), "rate": frame["rate"].tolist(), "seed": frame["seed"].tolist(),
            "y": frame["y"].tolist(), "values": fit.params[names].tolist(), "low": ends.loc[names, 0].tolist(), "high": ends.loc[names, 1].tolist(),
            "p": fit.pvalues[names].tolist(), "r2": fit.rsquared, "last": float(np.squeeze(last.effect)), "last_low": float(last_low), "last_high": float(last_high),
        })
    return cases


def seeds():
    rng = np.random.default_rng(6)
    cases = []
    for n, m, spread in [(3, 40, 0.3), (5, 25, 0.6), (4, 60, 0.0)]:
        chance = rng.normal(-1.0, 0.8, m)[None] + rng.normal(0.0, spread, n)[:, None] + rng.normal(0.0, 1.0, (n, m))
        values = -(chance > 0).astype(float)
        frame = pd.DataFrame([(s, q, values[s, q]) for s in range(n) for q in range(m)], columns=["seed", "question", "value"])
        table = sm.stats.anova_lm(smf.ols("value ~ C(seed) + C(question)", frame).fit())
        squares = table["sum_sq"] / table["df"]
        drawn = []
        for _ in range(20):
            of_seed, of_question = rng.multinomial(n, [1 / n] * n, 10_000), rng.multinomial(m, [1 / m] * m, 10_000)
            drawn.append(np.einsum("bs,sq,bq->b", of_seed, values, of_question, optimize=True) / (n * m))
        cases.append({
            "values": values.tolist(), "mean": values.mean(), "ms_seed": squares["C(seed)"], "ms_question": squares["C(question)"],
            "ms_residual": squares["Residual"], "bootstrap_variance": np.concatenate(drawn).var(),
        })
    return cases


def main():
    recorded = {"versions": {"numpy": np.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__}, "keys": KEYS}
    for make in (normal, mcnemar, tango, clustered, bca, holm, welch, line, factorial, seeds):
        recorded[make.__name__] = make()
    for name, cases in recorded.items():
        if isinstance(cases, list):
            cases = [{k: float(v) if isinstance(v, np.floating) else v for k, v in case.items()} for case in cases]
            recorded[name] = cases
    rows = []
    for name, value in recorded.items():
        if isinstance(value, list):
            text = "[\n  " + ",\n  ".join(json.dumps(case, allow_nan=False) for case in value) + "\n ]"
        else:
            text = json.dumps(value)
        rows.append(f" {json.dumps(name)}: {text}")
    OUT.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    print(OUT)


if __name__ == "__main__":
    main()
