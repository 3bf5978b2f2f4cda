"""What is compared: the rows of the benchmark, each with the sides that do its work and the check that the work is the same."""

import json
import os
import shutil

import arithmetic
from growth import Growth
from processes import ROOT, Failed, read_lines, run_peer
from sides import Once, Staying, best_settings, enough

PHOTOS = ROOT / "data" / "photos"
#: Steps before the first that counts, of a training run of jigsaw.
WARMUP = 2
#: Relative differences between losses (and absolute ones between log-probabilities) that rounding explains.
ROUNDING = {"f32": 1e-4, "bf16": 5e-3}
#: The same where PEFT's frozen weights are bf16: torch then adds up the residual stream in bf16, too.
ROUNDING_OF_PEFT = {"f32": 1e-4, "bf16": 2e-2}


class Bench:
    """What all rows share: the binary, whether it is the smoke test, what this machine can do, and where logs go."""

    def __init__(self, jigsaw, quick, flags, compiler, llama, limit):
        self.jigsaw, self.quick, self.compiler, self.llama, self.limit = jigsaw, quick, compiler, llama, limit
        self.dtypes = ["f32"] + ["bf16"] * bool({"avx512_bf16", "amx_bf16"} & set(flags))
        self.threads = 1 if quick else os.cpu_count()
        self.usual = {"allocator": "keep", "threads": self.threads, "attn": "sdpa"}
        # One change at a time; more threads than cores, or fewer, have never been faster.
        self.others = [] if quick else [{"attn": "eager"}, {"allocator": "default"}]


def sizes(bench, preset, count=None):
    """Checkpoint and puzzles of a preset. tiny: pictures of 84 x 84 pixels; small: 224 x 224."""
    grid, tile = {"tiny": ("3x3", 28), "small": ("2x2", 112)}[preset]
    return bench.jigsaw.model(preset), bench.jigsaw.data(grid, tile, count)


class TorchRow:
    """A row whose peer is a job of peer.py: eager and compiled, in f32 and bf16, in turns with jigsaw in the same two."""

    lower = False
    #: Whether settings are tried for this row. For the longest ones they are not, to keep the whole run within the hour.
    tries = True

    def settings(self):
        """The peer's settings, and the trials, eager and in f32, by which they were chosen."""
        if not self.tries:
            return self.bench.usual, []
        return best_settings(lambda settings: self.peer("tuning", {"warmup": 1}, settings), self.bench.usual, self.bench.others)

    def peer(self, name, options, settings, limit=None):
        log = self.bench.jigsaw.work / "logs" / f"{self.name} {name}.txt"
        log.parent.mkdir(exist_ok=True)
        return Staying(log, self.job, {**self.options, **options}, settings, self.rate, limit or self.bench.limit)

    def sides(self, settings):
        found = {}
        for dtype in self.bench.dtypes:
            if self.computes_in(dtype):
                found[f"jigsaw {dtype}"] = Once(lambda dtype=dtype: self.ours(dtype))
            found[f"eager {dtype}"] = self.peer(f"eager {dtype}", {"dtype": dtype, "warmup": WARMUP}, settings)
            if self.bench.compiler:
                found[f"compiled {dtype}"] = self.peer(f"compiled {dtype}", {"dtype": dtype, "warmup": WARMUP, "compile": "default"}, settings)
        return {**found, **self.more_sides(settings)}

    def more_sides(self, _settings):
        return {}

    def computes_in(self, _dtype):
        """Whether jigsaw does this work in `dtype`."""
        return True

    def machine(self, settings):
        """What the machine can do, measured in the same rounds."""
        log = self.bench.jigsaw.work / "logs" / f"{self.name} machine.txt"
        size = 256 if self.bench.quick else 2048
        return {"machine": Staying(log, "machine", {"size": size, "warmup": 2}, settings, lambda step: step["gflops_f32"], self.bench.limit)}


class Sft(TorchRow):
    job = "sft"

    def __init__(self, bench, preset, lora=False):
        self.bench, self.preset, self.lora = bench, preset, lora
        self.name = f"{'lora' if lora else 'sft'}-{preset}"
        self.tries = not lora
        self.batch = {"tiny": 64, "small": 4}[preset] if not bench.quick else 2
        self.work = f"{'LoRA SFT' if lora else 'SFT'} step, {preset}, batch {self.batch}"
        self.unit = "samples/s" if preset == "tiny" else "tokens/s"
        self.count = dict.fromkeys(bench.dtypes, 2)

    def prepare(self):
        # As many examples as a step takes: every step sees all of them, and losses can be compared step by step.
        self.model, self.data = sizes(self.bench, self.preset, self.batch)
        self.options = {"model": self.model, "data": self.data, "batch": self.batch}
        self.start = self.model
        if self.lora:
            self.start = self.options["adapter"] = self.bench.jigsaw.work / f"adapter-{self.preset}"
            if not (self.start / "adapter_config.json").exists():
                run_peer("adapter", model=self.model, adapter=self.start)

    def rate(self, step):
        return (self.batch if self.unit == "samples/s" else step["tokens"]) / step["seconds"]

    def ours(self, dtype):
        done = self.bench.jigsaw.train("sft", self.start, self.data, WARMUP + self.count[dtype], self.batch, {"train.dtype": dtype})
        steps = [{**s, "seconds": s["step_seconds"]} for s in done["metrics"]]
        self.count[dtype] = enough(steps[-1]["seconds"])
        kept = [{k: s[k] for k in ("seconds", "loss", "tokens", "response_tokens")} for s in steps]
        return {"rates": [self.rate(s) for s in steps[WARMUP:]], "peak_mb": done["peak_kb"] / 1024, "steps": kept}

    def more_sides(self, settings):
        return self.machine(settings) if self.name == "sft-small" else {}

    def check(self, ready, first):
        """Tokens and losses of the first steps; and the operations of a step."""
        wide = ready["eager f32"]["warmup"]
        for name, side in ready.items():
            dtype = name.split()[-1]
            if name.split()[0] not in ("eager", "compiled"):
                continue
            rounding = (ROUNDING_OF_PEFT if self.lora else ROUNDING)[dtype]
            for ours, theirs, exact in zip(first[f"jigsaw {dtype}"]["steps"], side["warmup"], wide):
                apart = [abs(step["loss"] / exact["loss"] - 1) for step in (ours, theirs)]
                if any(ours[k] != theirs[k] for k in ("tokens", "response_tokens")) or apart[0] > ROUNDING[dtype] or apart[1] > rounding:
                    raise Failed(f"{self.name}: not the same work: jigsaw {ours}, {name} {theirs}")
        facts = {"trained": ready["eager f32"]["trained"]}
        if not self.lora:
            config = json.loads((self.model / "config.json").read_text())
            step = first["jigsaw f32"]["steps"][0]
            length, response = step["tokens"] / self.batch, step["response_tokens"] / self.batch
            image = {"tiny": (3, 3), "small": (8, 8)}[self.preset]
            facts["gflop"] = 1e-9 * arithmetic.training_step(config, self.batch, image, int(length), int(response), ready["eager f32"]["opening"])
        return facts


class Rollout(TorchRow):
    job = "rollout"
    unit = "tokens/s"

    def __init__(self, bench, preset, prompts, samples, new, repeat=1):
        self.bench, self.preset, self.repeat = bench, preset, repeat
        self.tries = preset != "qwen"
        self.name = f"rollout-{preset}" + ("-1" if prompts * samples == 1 else "")
        self.prompts, self.samples, self.new = (min(prompts, 2), min(samples, 2), 4) if bench.quick else (prompts, samples, new)
        kind = "Qwen2.5-0.5B" if preset == "qwen" else preset
        self.work = f"rollouts, {kind}, {self.prompts} x {self.samples} x {self.new}"

    def prepare(self):
        jigsaw, count = self.bench.jigsaw, self.prompts * self.repeat
        if self.preset != "qwen":
            self.model, self.data = sizes(self.bench, self.preset, count)
        else:
            self.model, self.data = jigsaw.work / "model-qwen", jigsaw.data("text", "alone", count, task="countdown")
            if not (self.model / "tokenizer.json").exists():
                run_peer("qwen", model=self.model, tokenizer=jigsaw.model("tiny-text"))
        self.options = {"model": self.model, "data": self.data, "batch": self.prompts, "samples": self.samples, "new": self.new}

    def rate(self, step):
        return step["tokens"] / step["seconds"]

    def computes_in(self, dtype):
        return dtype == "f32" or self.bench.jigsaw.accepts("eval", "--dtype")

    def ours(self, dtype):
        out = self.bench.jigsaw.work / "eval"
        _, peak, _, _ = self.bench.jigsaw(
            "eval", "--model", self.model, "--data", self.data, "--split", "train", "--batch-size", self.prompts, "--num-generations",
            self.samples, "--temperature", 1, "--max-new-tokens", self.new, "--out", out, "--fresh", *(["--dtype", dtype] if dtype != "f32" else []),
        )
        found = json.loads((out / "result.json").read_text())["summary"]
        responses = found["examples"] * found["samples"]
        if responses != self.prompts * self.repeat * self.samples:
            raise Failed(f"{self.name}: {responses} responses")
        kept = {"responses": responses, **{k: found[k] for k in ("seconds", "mean_tokens")}}
        return {"rates": [found["tokens_per_second"]], "peak_mb": peak / 1024, **kept}

    def more_sides(self, settings):
        if self.preset != "qwen":
            return {}
        found = self.machine(settings) if self.prompts * self.samples == 1 else {}
        for dtype in self.bench.dtypes if self.bench.llama else []:
            work, prompts = self.bench.jigsaw.work, self.bench.jigsaw.work / f"{self.name}-prompts.json"
            file, log = work / f"qwen-{dtype}.gguf", work / "logs" / f"{self.name} llama.cpp {dtype}.txt"
            run_peer("prompts", model=self.model, data=self.data, batch=self.prompts, out=prompts)
            options = {"model": self.model, "gguf": file, "dtype": dtype, "prompts": prompts, "samples": self.samples, "new": self.new, "warmup": 1}
            usual = {"allocator": "default", "threads": self.bench.threads}
            found[f"llama.cpp {dtype}"] = Staying(log, "rollout", options, usual, self.rate, self.bench.limit, self.bench.llama, "peer_llama.py")
        return found

    def check(self, ready, _first):
        """Log-probabilities of the first record's own response."""
        out = self.bench.jigsaw.work / "scores.jsonl"
        out.unlink(missing_ok=True)
        self.bench.jigsaw("score", "--model", self.model, "--data", self.data, "--split", "train", "--out", out)
        ours = read_lines(out)[0]["logprobs"]
        apart = {}
        for name, side in ready.items():
            if side.get("logprobs"):
                theirs = side["logprobs"]
                apart[name] = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
                if apart[name] > 10 * ROUNDING[name.split()[-1]] * max(map(abs, ours)):
                    raise Failed(f"{self.name}: not the same work: log-probabilities of jigsaw {ours}, {name} {theirs}")
        return {"logprobs_apart": apart}


class Grpo(TorchRow):
    job = "grpo"
    unit = "response tokens/s"

    def __init__(self, bench, preset, prompts):
        self.bench, self.preset = bench, preset
        self.name, self.tries = f"grpo-{preset}", preset == "tiny"
        self.prompts, self.samples, self.new = (2, 2, 4) if bench.quick else (prompts, 8, 32)
        self.work = f"GRPO step, {preset}, {self.prompts} x {self.samples} x {self.new}"
        self.count = dict.fromkeys(bench.dtypes, 1)

    def prepare(self):
        self.model, self.data = sizes(self.bench, self.preset, self.prompts)
        self.options = {"model": self.model, "data": self.data, "batch": self.prompts, "samples": self.samples, "new": self.new}
        if self.preset == "small" and not self.bench.quick:
            # All its processes must fit into the memory together, and its own peak is lower.
            self.options["micro-batches"] = self.prompts

    def rate(self, step):
        return step["tokens"] / step["seconds"]

    def ours(self, dtype):
        # Random weights earn no reward; the entropy bonus makes every gradient differ from zero, as the peer's are.
        sets = {
            "rollout.num_generations": self.samples, "rollout.max_new_tokens": self.new, "grpo.entropy_coef": 0.001,
            "train.learning_rate": 1e-6, "train.dtype": dtype,
        }
        done = self.bench.jigsaw.train("rft", self.model, self.data, WARMUP + self.count[dtype], self.prompts, sets)
        responses = self.prompts * self.samples
        steps = [
            {"seconds": s["step_seconds"], "tokens": responses * s["response_length"], "all_tokens": s["tokens"]} for s in done["metrics"]
        ]
        self.count[dtype] = enough(steps[-1]["seconds"])
        return {"rates": [self.rate(s) for s in steps[WARMUP:]], "peak_mb": done["peak_kb"] / 1024, "steps": steps}

    def check(self, ready, first):
        """Tokens of the prompts of a step."""
        prompt_tokens = lambda step: round(step["all_tokens"] - step["tokens"])
        ours = prompt_tokens(first["jigsaw f32"]["steps"][0])
        for name, side in ready.items():
            theirs = prompt_tokens(side["warmup"][0])
            if ours != theirs:
                raise Failed(f"{self.name}: not the same work: prompts of {ours} tokens a step, {name} {theirs}")
        return {"prompt_tokens": ours}


#: Pillow's ways to write a PNG. Uncompressed files are half as large again; Huffman codes alone are the fastest that compress.
PILLOW = {
    "Pillow, uncompressed": {"level": 0}, "Pillow, level 1, Huffman only": {"level": 1, "type": 2}, "Pillow, level 1": {"level": 1},
    "Pillow's default": {},
}


class Gen:
    """Puzzles a second, one thread on each side."""

    name, unit, lower = "gen", "puzzles/s", False

    def __init__(self, bench):
        self.bench, self.count = bench, 40 if bench.quick else 2000
        self.work = f"gen, {self.count} puzzles of 3x3, 1 thread"

    def prepare(self):
        # A new folder each time, deleted at the end: ext4 makes files slowly for a minute after it has deleted many.
        self.parent = self.bench.jigsaw.work / "gen"
        shutil.rmtree(self.parent, ignore_errors=True)
        self.parent.mkdir()

    def sides(self, _settings):
        return {"jigsaw": Once(self.ours), **{name: Once(lambda png=png: self.theirs(png)) for name, png in PILLOW.items()}}

    def folder(self):
        return self.parent / str(len(list(self.parent.iterdir())))

    def ours(self):
        out = self.folder()
        options = ["--images", PHOTOS, "--grid", "3x3", "--count", self.count, "--out", out]
        _, peak, seconds, _ = self.bench.jigsaw("gen", *options, env={"RAYON_NUM_THREADS": "1"})
        return {"rates": [self.count / seconds], "peak_mb": peak / 1024, "png_bytes": self.size_of(out)}

    def theirs(self, png):
        out = self.folder()
        text, peak = run_peer("", "peer_gen.py", images=PHOTOS, out=out, count=self.count, **png)
        result = json.loads(text.split("RESULT ")[-1])
        if result["puzzles"] != self.count:
            raise Failed(f"gen: {result['puzzles']} puzzles")
        return {"rates": [self.count / result["seconds"]], "peak_mb": peak / 1024, "png_bytes": self.size_of(out)}

    def size_of(self, folder):
        return sum(p.stat().st_size for p in folder.rglob("*.png")) / self.count

    def check(self, _ready, _first):
        return {}


class FirstStep:
    """Seconds from the start of the process until the first SFT step begins, and until it is done."""

    unit, lower = "s", True

    def __init__(self, bench, preset):
        self.bench, self.preset = bench, preset
        self.name, self.work = f"first-step-{preset}", f"from the command to the first SFT step, {preset}"

    def prepare(self):
        self.row = Sft(self.bench, self.preset)
        self.row.prepare()

    def sides(self, settings):
        return {"jigsaw": Once(self.ours), "eager f32": Once(lambda: self.theirs(settings))}

    def ours(self):
        row = self.row
        done = self.bench.jigsaw.train("sft", row.model, row.data, 100, row.batch, until=1)
        return {"rates": [done["seconds"] - done["first_step_seconds"]], "done": done["seconds"]}

    def theirs(self, settings):
        side = self.row.peer("first step", {"warmup": 1}, settings)
        try:
            side.start()
            ready = side.ready()
        finally:
            side.close()
        return {"rates": [ready["first_step_began"] - ready["started"]], "done": ready["first_step_at"] - ready["started"]}

    def check(self, _ready, _first):
        return {}


def rows(bench):
    """All rows, in the order of the table."""
    found = [
        Sft(bench, "tiny"), Sft(bench, "small"), Sft(bench, "small", lora=True),
        Rollout(bench, "tiny", 16, 8, 32, repeat=8), Rollout(bench, "small", 8, 8, 32),
        Rollout(bench, "qwen", 4, 8, 32), Rollout(bench, "qwen", 1, 1, 64),
        Grpo(bench, "tiny", 16), Grpo(bench, "small", 2),
        Gen(bench), FirstStep(bench, "tiny"), FirstStep(bench, "small"), Growth(bench),
    ]
    return {row.name: row for row in found}
