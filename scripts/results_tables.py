#!/usr/bin/env python3
"""Put the tables of a study's report into its page of docs, under "## The numbers".

    scripts/results_tables.py docs/results/DIR/report.md docs/results.md

What stands above is written by hand and left as it is.
"""

import re
import sys
from pathlib import Path

TABLES = [
    "Learning rates",
    "Learned and lost",
    "Points lost by family",
    "Data, learning rate or method",
    "Points lost against KL(base || tuned)",
    "Prior knowledge by other measures",
    "Form of the answers and distance from the base",
    "Recovery after a few prior examples",
    "Change of the weights",
]
NUMBERS = "## The numbers\n"


def section(report, title):
    """The section with this title, without the line of provenance at its end."""
    begin = report.index("### " + title + "\n")
    end = re.search(r"\n##", report[begin + 4 :])
    lines = (report[begin : begin + 4 + end.start()] if end else report[begin:]).rstrip().split("\n")
    return "\n".join(line for line in lines if not line.startswith("Seeds:")).rstrip()


def main():
    report, page = Path(sys.argv[1]).read_text(), Path(sys.argv[2])
    missing = [title for title in TABLES if f"### {title}\n" not in report]
    if missing:
        sys.exit(f"{sys.argv[1]} has no section {missing}")
    head = page.read_text().split(NUMBERS)[0]
    page.write_text(head + NUMBERS + "\n" + "\n\n".join(section(report, title) for title in TABLES) + "\n")


if __name__ == "__main__":
    main()
