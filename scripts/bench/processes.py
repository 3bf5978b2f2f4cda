"""Both sides as processes: start, wait, peak memory, and the numbers they leave."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: Environment of the peer when large blocks are to stay with the process instead of going back to the kernel.
KEEP_LARGE = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30), "MALLOC_TOP_PAD_": str(64 << 20)}


class Failed(Exception):
    """A process did not do its job."""


def run(command, env=None, limit=None):
    """Run to the end. Returns stdout, peak resident memory in kB, seconds, and the time it was started."""
    command = [str(c) for c in command]
    read, write = os.pipe()
    launcher = [sys.executable, "-I", "-S", str(HERE / "measured.py"), str(write)]
    child = subprocess.Popen(
        launcher + command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})},
        pass_fds=[write], start_new_session=True,
    )
    os.close(write)
    try:
        text = child.communicate(timeout=limit)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}\nnot done after {limit} s") from None
    finally:
        # Nothing may go on running beside the next measurement.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        with open(read) as pipe:
            report = pipe.read()
    if not report:
        raise Failed(f"{' '.join(command)}\ncould not be started:\n{text[-1500:]}")
    report = json.loads(report)
    seconds = report["ended"] - report["started"]
    if report["code"] != 0:
        raise Failed(f"{' '.join(command)}\nended with {report['code']} after {seconds:.0f} s:\n{text[-1500:]}")
    return text, report["peak_kb"], seconds, report["started"]


def peer(job, settings, limit=None, **options):
    """One job of peer.py. `settings`: allocator, threads, attn, optimizer, compile."""
    command = [sys.executable, HERE / "peer.py", job]
    for name, value in {**options, "threads": settings["threads"], "attn": settings["attn"], "optimizer": settings["optimizer"]}.items():
        command += [f"--{name}", value]
    if settings["compile"]:
        command.append("--compile")
    env = KEEP_LARGE if settings["allocator"] == "keep" else {}
    text, peak, seconds, started = run(command, {**env, "OMP_NUM_THREADS": str(settings["threads"])}, limit)
    lines = [line for line in text.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise Failed(f"peer.py {job} printed no result:\n{text[-1500:]}")
    result = json.loads(lines[-1].removeprefix("RESULT "))
    return {**result, "peak_kb": peak, "seconds": seconds, "started": started}


class Jigsaw:
    """The binary, with a directory to work in."""

    def __init__(self, binary, work):
        self.binary, self.work = Path(binary), Path(work)
        self.work.mkdir(parents=True, exist_ok=True)

    def __call__(self, *args, env=None):
        return run([self.binary, *args], env)

    def model(self, preset):
        """A checkpoint with random weights."""
        out = self.work / f"model-{preset}"
        if not (out / "config.json").exists():
            self("model", "init", "--preset", preset, "--out", out)
        return out

    def data(self, grid, tile, count):
        """A dataset of puzzles."""
        out = self.work / f"data-{grid}-{tile}-{count}"
        if not (out / "manifest.json").exists():
            self("gen", "--grid", grid, "--tile", tile, "--count", count, "--out", out)
        return out

    def train(self, method, model, data, steps, batch, settings=(), until=None):
        """A training run without evaluation and checkpoints on the way. With `until`, it is ended when that many steps are in
        its metrics: how long that took, and the peak memory up to there."""
        out = self.work / "run"
        shutil.rmtree(out, ignore_errors=True)
        sets = {"train.steps": steps, "train.batch_size": batch, "eval.steps": 0, "train.save_steps": 0, "train.learning_rate": 1e-5}
        command = [self.binary, "train", "--method", method, "--model", model, "--data", data, "--out", out]
        for name, value in {**sets, **dict(settings)}.items():
            command += ["--set", f"{name}={value}"]
        if until:
            return self.steps_only(command, out / "metrics.jsonl", until)
        _, peak, seconds, _ = run(command)
        return {"metrics": read_lines(out / "metrics.jsonl"), "peak_kb": peak, "seconds": seconds}

    def steps_only(self, command, metrics, until):
        started = time.time()
        child = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= until):
                if child.poll() is not None:
                    text = child.stdout.read().decode(errors="replace")
                    raise Failed(f"{' '.join(map(str, command))}\nended before step {until}:\n{text}")
                time.sleep(0.001)
            seconds = time.time() - started
            first = json.loads(metrics.read_text().splitlines()[0])["step_seconds"]
            status = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        finally:
            child.kill()
            child.communicate()
        return {"seconds": seconds, "first_step_seconds": first, "peak_kb": next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))}


def read_lines(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def deepen(model, out, times):
    """A checkpoint whose decoder and vision tower have `times` as many layers: the layers of `model`, again and again."""
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
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(model, out)
    (out / "config.json").write_text(json.dumps(config, indent=2))
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    text += b" " * (-len(text) % 8)
    (out / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blocks))
    return out, offset // 4
