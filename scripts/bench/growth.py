"""How time and memory of an SFT step grow with batch, image tokens and layers, beside the arithmetic. No peer."""

import json
import shutil
import statistics

import arithmetic
from processes import run_peer
from sides import Once

WARMUP, STEPS = 2, 3


class Growth:
    """A side for each size; its rates are GFLOP/s of the products that a step cannot do without."""

    name, work, unit, lower = "growth", "SFT step, tiny, larger and larger", "GFLOP/s", False

    def __init__(self, bench):
        self.bench = bench

    def prepare(self):
        jigsaw, small = self.bench.jigsaw, 1 if self.bench.quick else 16
        base = jigsaw.model("tiny")
        self.cases = {f"batch {n}x": (base, "3x3", 28, n * small) for n in (1, 2, 4, 8)}
        for n, grid, tile in [(1, "2x2", 56), (2, "2x4", 56), (4, "2x2", 112), (8, "2x4", 112)]:
            self.cases[f"image tokens {n}x"] = (base, grid, tile, 2 * small)
        # Tokens that all prompts begin with, which are computed once.
        self.shared = int(run_peer("opening", model=base)[0].split()[-1])
        for n in (1, 2, 4, 8):
            self.cases[f"layers {n}x"] = (deepen(base, jigsaw.work / f"model-tiny-{n}", n), "3x3", 28, 2 * small)

    def sides(self, _settings):
        return {name: Once(lambda case=case: self.ours(*case)) for name, case in self.cases.items()}

    def ours(self, model, grid, tile, batch):
        data = self.bench.jigsaw.data(grid, tile, batch)
        done = self.bench.jigsaw.train("sft", model, data, WARMUP + STEPS, batch)
        first = done["metrics"][0]
        rows, cols = (int(n) * tile // 28 for n in grid.split("x"))
        length, response = int(first["tokens"] / batch), int(first["response_tokens"] / batch)
        config = json.loads((model / "config.json").read_text())
        gflop = 1e-9 * arithmetic.training_step(config, batch, (rows, cols), length, response, self.shared)
        seconds = [s["step_seconds"] for s in done["metrics"][WARMUP:]]
        return {
            "rates": [gflop / s for s in seconds], "peak_mb": done["peak_kb"] / 1024, "batch": batch, "tokens": first["tokens"],
            "gflop": gflop, "seconds": statistics.median(seconds),
        }

    def check(self, _ready, _first):
        return {}


def deepen(model, out, times):
    """A checkpoint whose decoder and vision tower have `times` as many layers: the layers of `model`, again and again."""
    if (out / "config.json").exists():
        return out
    config = json.loads((model / "config.json").read_text())
    vision = config["vision_config"]
    raw = (model / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    header.pop("__metadata__", None)
    depths = {"model.layers.": config["num_hidden_layers"], "visual.blocks.": vision["depth"]}
    entries, blocks, offset = {}, [], 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        prefix = next((p for p in depths if name.startswith(p)), None)
        names = [name]
        if prefix:
            layer, rest = name.removeprefix(prefix).split(".", 1)
            names = [f"{prefix}{int(layer) + i * depths[prefix]}.{rest}" for i in range(times)]
        for copy in names:
            entries[copy] = {**entry, "data_offsets": [offset, offset + end - begin]}
            blocks.append(data[begin:end])
            offset += end - begin
    config["num_hidden_layers"] *= times
    vision["fullatt_block_indexes"] = [b + i * vision["depth"] for i in range(times) for b in vision["fullatt_block_indexes"]]
    vision["depth"] *= times
    shutil.copytree(model, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("config.json", "model.safetensors"))
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    text += b" " * (-len(text) % 8)
    (out / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blocks))
    (out / "config.json").write_text(json.dumps(config, indent=2))
    return out
