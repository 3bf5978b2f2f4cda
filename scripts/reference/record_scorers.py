"""Record what the published formulas of four benchmark scores give on random answers.

ANLS (arXiv 2007.00398), VQA accuracy with its evaluation's normal form of an answer (arXiv 1505.00468), relaxed accuracy
(arXiv 2203.10244) and intersection over union, written down from their descriptions in the plainest way, without regard to speed.
Writes tests/fixtures/scorers/reference.json. Needs nothing but the standard library.
"""

import json
import random
import re
from fractions import Fraction
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "scorers" / "reference.json"
CASES = 250


# Formulas


def edits(a, b):
    """Levenshtein distance by its recurrence, over the whole table."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (x != y))
    return table[-1][-1]


def anls(golds, response, collapsed):
    """With `collapsed`, white space does not count in the length that the distance is divided by."""

    def tidy(text):
        return " ".join(text.lower().split())

    if not tidy(response):
        return 0.0
    similarities = []
    for gold in golds:
        a, b = tidy(gold), tidy(response)
        length = max(len(a), len(b)) if collapsed else max(len(a), len(b), len(gold.upper()), len(response.upper()))
        similarities.append(1 - edits(a, b) / length)
    best = max(similarities)
    return best if best >= 0.5 else 0.0


MARKS = ";/[]\"{}()=+\\_-><@`,?!"
DIGITS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}
# Those that the random answers draw from, with the spelling that the evaluation gives them.
CONTRACTIONS = {
    "dont": "don't", "isnt": "isn't", "oclock": "o'clock", "couldnt've": "couldn't've", "couldn'tve": "couldn't've",
    "whats": "what's", "yall": "y'all", "theyre": "they're", "somebody'd": "somebodyd", "twas": "'twas",
}


def vqa_normal(text):
    text = text.replace("\n", " ").replace("\t", " ").strip()
    out = text
    for mark in MARKS:
        beside_space = mark + " " in text or " " + mark in text
        thousands = re.search("[0-9],[0-9]", text) is not None
        out = out.replace(mark, "" if beside_space or thousands else " ")
    out = re.sub(r"\.(?![0-9])", "", out)
    words = [DIGITS.get(word, word) for word in out.lower().split()]
    words = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(CONTRACTIONS.get(word, word) for word in words)


def vqa(golds, response):
    said = vqa_normal(response)
    if not response.strip():
        return 0.0
    golds = [vqa_normal(gold) for gold in golds]
    shares = []
    for left_out in range(len(golds)):
        others = golds[:left_out] + golds[left_out + 1 :]
        shares.append(min(Fraction(1), Fraction(others.count(said), 3)))
    return float(sum(shares) / len(shares))


def number(text):
    match = re.fullmatch(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(%?)\s*", text)
    if match is None:
        return None
    return float(match[1]) / 100 if match[2] else float(match[1])


def relaxed(golds, response):
    if not response.strip():
        return 0.0
    for gold in golds:
        said, right = number(response), number(gold)
        if said is None or right is None:
            if response.strip().lower() == gold.strip().lower():
                return 1.0
        elif said == right or right != 0 and abs(said - right) / abs(right) <= 0.05:
            return 1.0
    return 0.0


def iou(gold, said):
    """Exactly, in fractions."""
    a, b = [Fraction(x) for x in gold], [Fraction(x) for x in said]
    width = max(Fraction(0), min(a[2], b[2]) - max(a[0], b[0]))
    height = max(Fraction(0), min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    area = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))
    return both / (area - both)


# Random answers


def spoil(rng, text, alphabet):
    """Some random edits."""
    text = list(text)
    for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8, 12, 16])):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(3)
        if kind == 0:
            text.insert(at, rng.choice(alphabet))
        elif at < len(text):
            if kind == 1:
                text[at] = rng.choice(alphabet)
            else:
                del text[at]
    return "".join(text)


def anls_case(rng):
    alphabet = "abcdeABC 0123.,%$-é日ß🙂Ö"
    golds = ["".join(rng.choice(alphabet) for _ in range(rng.randrange(3, 25))) + "x" for _ in range(rng.randrange(1, 4))]
    response = spoil(rng, rng.choice(golds), alphabet)
    if rng.random() < 0.2:
        response = f"  {response.upper()}\n"
    score = {"value": anls(golds, response, False), "partial_credit": anls(golds, response, True)}
    return {"answer": golds[0], "meta": {"answers": golds}, "response": response, **score}


VQA_ANSWERS = [
    "stop", "Stop.", "the stop", "stop sign", "stop-sign", "stop - sign", "2", "two", "Two!", "1,000", "1000", "1,000 - 2",
    "dont", "don't", "isnt it", "10 oclock", "ten o'clock", "couldnt've", "couldn'tve", "couldn't've", "none", "0", "3.5",
    "3.5.", "$3.50", "a (red) cat", "red cat", "red/cat", "red / cat", "coca cola", "Coca-Cola", "what's \"up\"?", "whats up",
    "yall", "theyre", "they're", "somebody'd", "somebodyd", "twas", "'twas", "www.site.com", "site@com", "no. 5", "no 5",
    "the", "a", "line\nbreak", "line break", "tab\tbed", "x_y", "x y", "50%", "<b>", "b", "b;", "été", "ÉTÉ", "🙂",
]


def vqa_case(rng):
    pool = rng.sample(VQA_ANSWERS, rng.randrange(1, 6))
    golds = [rng.choice(pool) for _ in range(10)]
    response = rng.choice(pool if rng.random() < 0.7 else VQA_ANSWERS)
    if rng.random() < 0.3:
        response = spoil(rng, response, " .,-!'a")
    return {"answer": golds[0], "meta": {"answers": golds}, "response": response, "value": vqa(golds, response)}


def relaxed_case(rng):
    def written(x):
        style = rng.randrange(7)
        if style == 0:
            return f"{x * 100:.3f}%"
        if style == 1:
            return f"{x:.2e}"
        if style == 2:
            return f" {x:+.4f} "
        if style == 3:
            return f"{x * 100:.1f} %"
        if style == 4:
            return f"{x:.0f}"
        return f"{x:.3f}"

    if rng.random() < 0.3:
        words = ["Dark Blue", "dark blue", "DARK BLUE ", "Blue", "2010-2015", "Q3", "N/A", "", "12,5", "1,234", "$5", "5 km"]
        golds, response = [rng.choice(words[:7] + words[8:])], rng.choice(words)
    else:
        gold = rng.choice([0, rng.uniform(-2, 2), rng.uniform(0, 3000), rng.randrange(1, 100)])
        factor = rng.choice([1, 0.95, 1.05, rng.uniform(0.9, 1.1), rng.uniform(0.94, 0.96), rng.uniform(1.04, 1.06), 100])
        golds, response = [written(gold)], written(gold * factor)
    if rng.random() < 0.2:
        golds.append("Dark Blue")
    return {"answer": golds[0], "meta": {"answers": golds}, "response": response, "value": relaxed(golds, response)}


def iou_case(rng):
    width, height = rng.randrange(28, 2000), rng.randrange(28, 2000)
    seen = [rng.randrange(1, 80) * 28, rng.randrange(1, 80) * 28]

    def ends(side):
        """Two places to a tenth of a pixel, at least a tenth of the side apart: rounding must not matter."""
        first = rng.randrange(9 * side)
        return Fraction(first, 10), Fraction(rng.randrange(first + side, 10 * side + 1), 10)

    (x1, x2), (y1, y2) = ends(width), ends(height)
    gold = [x1, y1, x2, y2]
    shift = rng.choice([0, 0.1, 0.3, 0.4, 0.4, 0.4])
    said = [
        side + Fraction(rng.uniform(-shift, shift)) * extent
        for side, extent in zip(gold, [x2 - x1, y2 - y1] * 2)
    ]
    space = rng.choice(["absolute", "absolute-resized", "per-mille", "unit"])
    scale = {
        "absolute": (1, 1),
        "absolute-resized": (Fraction(width, seen[0]), Fraction(height, seen[1])),
        "per-mille": (Fraction(width, 1000), Fraction(height, 1000)),
        "unit": (width, height),
    }[space]
    digits = {"absolute": 0, "absolute-resized": 0, "per-mille": 0, "unit": 3}[space] + rng.choice([0, 0, 2])
    answer = [f"{float(side / factor):.{digits}f}" for side, factor in zip(said, scale * 2)]
    form = rng.choice([
        '{{"bbox_2d": [{}]}}', '[{{"bbox_2d": [{}]}}]', '```json\n[\n\t{{"bbox_2d": [{}], "label": "it"}}\n]\n```',
    ])
    response = form.format(", ".join(answer))
    # What the reader of decimal numbers sees, in pixels of the original.
    seen_box = [Fraction(float(side)) * factor for side, factor in zip(answer, scale * 2)]
    sound = seen_box[0] < seen_box[2] and seen_box[1] < seen_box[3]
    gold_text = " ".join(f"{float(side):.1f}" for side in gold)
    overlap = iou([Fraction(float(side)) for side in gold_text.split()], seen_box) if sound else Fraction(0)
    meta = {"space": space, "size": [width, height], "resized": seen}
    value = 1.0 if overlap >= Fraction(1, 2) else 0.0
    return {"answer": gold_text, "meta": meta, "response": response, "value": value, "partial_credit": float(overlap)}


def main():
    rules = {}
    for name, case in [("anls", anls_case), ("vqa", vqa_case), ("relaxed", relaxed_case), ("iou", iou_case)]:
        rng = random.Random(name)
        rules[name] = [case(rng) for _ in range(CASES)]
        earn = sum(case["value"] > 0 for case in rules[name])
        print(f"{name}: {len(rules[name])} cases, {earn} of them earn something")
    blocks = []
    for name, cases in rules.items():
        lines = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in cases)
        blocks.append(f'"{name}": [\n{lines}\n]')
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("{" + ",\n".join(blocks) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
