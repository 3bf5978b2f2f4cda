"""`jigsaw gen` as one would write it in Python with Pillow: crop, resize, cut, shuffle, PNG, a line of JSONL each.

Prints the seconds of the work alone (imports not counted).
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

from PIL import Image

QUESTION = (
    "<image>\nThis picture was cut into {r} rows and {c} columns, and its tiles were shuffled. Number the tiles 1 to {n}, row by row. "
    "For each place of the original, row by row, which tile belongs there?\nAnswer only <answer>the {n} numbers separated by spaces</answer>."
)


def puzzle(image, rows, cols, tile, rng, path, png):
    """Make one puzzle of `image` and return its record."""
    largest = min(image.width // cols, image.height // rows)
    unit = rng.randint(max(8, math.ceil(0.8 * largest)), largest)  # as large as gen's crops
    left, top = rng.randint(0, image.width - unit * cols), rng.randint(0, image.height - unit * rows)
    box = (left, top, left + unit * cols, top + unit * rows)
    whole = image.resize((cols * tile, rows * tile), Image.Resampling.LANCZOS, box=box)
    order = list(range(rows * cols))
    while order == sorted(order):
        rng.shuffle(order)
    shuffled = Image.new("RGB", whole.size)
    for place, shown in enumerate(order):
        x, y = place % cols * tile, place // cols * tile
        part = whole.crop((x, y, x + tile, y + tile))
        shuffled.paste(part, (shown % cols * tile, shown // cols * tile))
    shuffled.save(path, **png)
    answer = " ".join(str(shown + 1) for shown in order)
    return {
        "file_name": f"images/{path.name}", "task": "jigsaw", "answer": answer, "images": [f"images/{path.name}"],
        "messages": [
            {"role": "user", "content": QUESTION.format(r=rows, c=cols, n=rows * cols)},
            {"role": "assistant", "content": f"<answer>{answer}</answer>"},
        ],
    }


def of_photo(job):
    """All puzzles of one photo."""
    photo, numbers, rows, cols, tile, out, png, seed = job
    rng = random.Random(f"{seed} {photo}")
    image = Image.open(photo).convert("RGB")
    if min(image.width // cols, image.height // rows) < 8:
        return []
    return [json.dumps(puzzle(image, rows, cols, tile, rng, out / "images" / f"{n:06}.png", png)) for n in numbers]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--grid", default="3x3")
    parser.add_argument("--tile", type=int, default=28)
    parser.add_argument("--level", type=int, help="PNG compression (Pillow's own default if not given)")
    parser.add_argument("--type", type=int, help="zlib's strategy (2: Huffman codes only)")
    args = parser.parse_args()
    rows, cols = map(int, args.grid.split("x"))
    out = Path(args.out)
    (out / "images").mkdir(parents=True)
    png = {name: value for name, value in (("compress_level", args.level), ("compress_type", args.type)) if value is not None}
    start = time.perf_counter()
    photos = sorted(p for p in Path(args.images).rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    jobs = [(p, range(i, args.count, len(photos)), rows, cols, args.tile, out, png, 7) for i, p in enumerate(photos)]
    made = 0
    with open(out / "metadata.jsonl", "w") as records:
        for of_one in map(of_photo, jobs):
            made += len(of_one)
            records.writelines(line + "\n" for line in of_one)
    print("RESULT " + json.dumps({"seconds": time.perf_counter() - start, "puzzles": made}))


if __name__ == "__main__":
    main()
