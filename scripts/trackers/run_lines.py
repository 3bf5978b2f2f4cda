"""What the trackers share: the run that jigsaw reports to its metrics command, and its lines.

`jigsaw train --metrics-command 'python3 scripts/trackers/to_wandb.py'` starts a script once, with the run's directory in JIGSAW_RUN_DIR, and
writes each line of metrics.jsonl to its standard input. A resumed run starts it again, and reports the steps after its last checkpoint again.
"""

import hashlib
import json
import math
import os
import sys
import tomllib
from pathlib import Path


class Run:
    """A run: its name, settings, and an identifier that is the same when it is resumed, and another for every other run."""

    def __init__(self):
        self.dir = Path(os.environ["JIGSAW_RUN_DIR"])
        self.name = self.dir.name
        about = json.loads((self.dir / "run.json").read_text())
        self.config = tomllib.loads((self.dir / "config.toml").read_text())
        self.config["run"] = {key: about[key] for key in ("model", "data", "seed", "model_hash", "data_hash", "jigsaw")}
        made_of = [self.name, *(about[key] for key in ("started", "seed", "model_hash", "data_hash"))]
        self.id = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
        # The runs of a study lie in STUDY/runs.
        self.group = self.dir.parent.parent.name if self.dir.parent.name == "runs" else None
        self.project = sys.argv[1] if len(sys.argv) > 1 else "jigsaw"

    def flat_config(self):
        """The settings as `section.key`."""
        return {f"{section}.{key}": value for section, values in self.config.items() for key, value in values.items()}


def lines(first=0):
    """Step and numbers of each line from step `first` on. What was not finite is left out."""
    for text in sys.stdin:
        line = json.loads(text)
        step = line.pop("step")
        del line["run"]
        numbers = {name: value for name, value in line.items() if isinstance(value, (int, float)) and math.isfinite(value)}
        if step >= first and numbers:
            yield step, numbers
