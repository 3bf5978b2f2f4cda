"""The ridge regression of `jigsaw eval --solver colour`, by numpy: tests/fixtures/solvers.json.

Statistics are standardised (population standard deviation), targets are centred, the penalty is 1.
"""

import json
import pathlib

import numpy as np

RIDGE = 1.0
OUT = pathlib.Path(__file__).parents[2] / "tests/fixtures/solvers.json"


def main():
    rng = np.random.default_rng(7)
    x = rng.normal(0.4, [0.3, 0.2, 0.1, 0.05, 0.3, 0.02, 0.2, 0.1, 0.4], (60, 9))
    x[:, 1] = 0.9 * x[:, 0] + 0.1 * x[:, 1]  # colours go together
    weights = rng.normal(0, 1, (9, 2))
    y = np.round(x @ weights + rng.normal(0, 0.5, (60, 2))) + 0.5
    mean, sd = x.mean(0), x.std(0)
    z = (x - mean) / sd
    fitted = np.linalg.solve(z.T @ z + RIDGE * np.eye(9), z.T @ (y - y.mean(0)))
    test = rng.normal(0.4, 0.3, (8, 9))
    predicted = (test - mean) / sd @ fitted + y.mean(0)
    OUT.write_text(json.dumps({k: v.tolist() for k, v in dict(x=x, y=y, test=test, predicted=predicted).items()}) + "\n")


if __name__ == "__main__":
    main()
