#!/usr/bin/env python3
"""Put the tables of a study's kept results into its page of docs: those of report.md under "The numbers", and those of dynamics-base.md at its end.

    scripts/results_tables.py docs/results/DIR docs/results.md

What stands between them is written by hand and left as it is.
"""

import re
import sys
from pathlib import Path

TABLES = [
    "Regimes at their best learning rate",
    "Learning rates",
    "New task by category",
    "Change by family",
    "Data, learning rate or method",
    "At equal accuracy on the new task",
    "Points lost against KL(base || tuned)",
]
NUMBERS, FINDINGS, DYNAMICS = "## The numbers\n", "## The paper's findings", "## Learning dynamics under the base\n"


def tables(report):
    """The wanted sections, and the line of sources of the first, which is that of all but the ladder's."""
    parts, source = [], ""
    for title in TABLES:
        if "### " + title not in report:
            continue
        begin = report.index("### " + title)
        end = re.search(r"\n##", report[begin + 4 :])
        lines = report[begin : begin + 4 + end.start()].rstrip().split("\n") if end else report[begin:].rstrip().split("\n")
        if lines[-1].startswith("Seeds:"):
            source = source or lines[-1]
            lines = lines[:-1]
        parts.append("\n".join(lines).rstrip())
    return "\n\n".join(parts) + "\n\n" + source


def dynamics(text):
    begin, end = text.index("Base:"), text.index("## KL to the base")
    pairs = re.sub(r"^## \S+\n", "### Pairs\n", text[begin:end].rstrip(), flags=re.M)
    kl = [line for line in text.split("\n") if line.startswith("- loss against KL")]
    return pairs + "\n\n## KL to the base and forgetting\n\n" + "\n".join(kl)


def main():
    kept, page = Path(sys.argv[1]), Path(sys.argv[2])
    old = page.read_text()
    head, rest = old.split(NUMBERS)
    findings = rest[rest.index(FINDINGS) : rest.index(DYNAMICS)]
    numbers = tables((kept / "report.md").read_text())
    why = dynamics((kept / "dynamics-base.md").read_text())
    last = "\n\nEach model's KL is in `dynamics-base.md` beside the raw numbers.\n"
    page.write_text(head + NUMBERS + "\n" + numbers + "\n\n" + findings + DYNAMICS + "\n" + why + last)


if __name__ == "__main__":
    main()
