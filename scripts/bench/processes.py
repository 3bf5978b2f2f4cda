"""Both sides as processes: start, wait, ask for steps, peak memory, and the numbers they leave."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

#: Environment of the peer when large blocks are to stay with the process instead of going back to the kernel.
KEEP_LARGE = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30), "MALLOC_TOP_PAD_": str(64 << 20)}


class Failed(Exception):
    """A process did not do its job."""


def run(command, env=None, limit=600):
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
        raise Failed(f"{' '.join(command)}\nnot done in time (--limit)") from None
    finally:
        end(child)
        with open(read) as pipe:
            report = pipe.read()
    if not report:
        raise Failed(f"{' '.join(command)}\ncould not be started:\n{text[-1500:]}")
    report = json.loads(report)
    seconds = report["ended"] - report["started"]
    if report["code"] != 0:
        raise Failed(f"{' '.join(command)}\nended with {report['code']} after {seconds:.0f} s:\n{text[-1500:]}")
    return text, report["peak_kb"], seconds, report["started"]


def run_peer(job, script="peer.py", **options):
    """A job of a peer that is done at once: what it printed, and its peak memory in kB."""
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    text, peak, _, _ = run([sys.executable, HERE / script, *([job] if job else []), *words])
    return text, peak


def end(child):
    """Nothing may go on running beside the next measurement: the process, and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


class Peer:
    """A process of the peer that stays and does steps when asked. `settings`: allocator, threads; `options`: its arguments."""

    def __init__(self, command, settings, log):
        env = {**os.environ, **(KEEP_LARGE if settings["allocator"] == "keep" else {}), "OMP_NUM_THREADS": str(settings["threads"])}
        self.command, self.log, self.started = [str(c) for c in command], log, time.time()
        with open(log, "w") as errors:
            self.child = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=env, bufsize=0, start_new_session=True,
            )

    def answer(self, word, limit):
        """The JSON of its next line, which begins with `word`."""
        if not select.select([self.child.stdout], [], [], max(limit, 0))[0]:
            raise Failed("not done in time (--limit)")
        line = self.child.stdout.readline().decode()
        if not line.startswith(word + " "):
            raise Failed(f"{' '.join(self.command)}\nended with {self.child.wait()}:\n{self.log.read_text(errors='replace')[-1500:]}")
        return json.loads(line.removeprefix(word))

    def steps(self, count, limit):
        self.child.stdin.write(f"{count}\n".encode())
        return self.answer("RESULT", limit)

    def close(self):
        self.child.stdin.close()
        self.child.stdout.close()
        end(self.child)


class Jigsaw:
    """The binary, with a directory to work in."""

    def __init__(self, binary, work):
        self.binary, self.work = Path(binary), Path(work)
        self.work.mkdir(parents=True, exist_ok=True)

    def __call__(self, *args, env=None):
        return run([self.binary, *args], env)

    def accepts(self, command, flag):
        """Whether a subcommand has a flag."""
        return flag in self(command, "--help")[0].split()

    def model(self, preset):
        """A checkpoint with random weights."""
        out = self.work / f"model-{preset}"
        if not (out / "config.json").exists():
            self("model", "init", "--preset", preset, "--out", out)
        return out

    def data(self, grid, tile, count, task="jigsaw"):
        """A dataset whose train split has `count` puzzles."""
        out = self.work / f"data-{task}-{grid}-{tile}-{count}"
        if not (out / "manifest.json").exists():
            kind = ["--images", ROOT / "data" / "photos", "--grid", grid, "--tile", tile] if task == "jigsaw" else ["--task", task]
            self("gen", *kind, "--count", count, "--split", "1,0,0", "--out", out)
        return out

    def train(self, method, model, data, steps, batch, settings=(), until=None):
        """A training run without evaluation and checkpoints on the way. With `until`, it is ended when that many steps are in
        its metrics, and only the seconds are told: until then, and of the first step."""
        out = self.work / "run"
        shutil.rmtree(out, ignore_errors=True)
        sets = {
            "train.steps": steps, "train.batch_size": batch, "eval.steps": 0, "train.save_steps": 0, "train.learning_rate": 1e-5,
            "train.lr_scheduler_type": "constant",
        }
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
        finally:
            child.kill()
            child.communicate()
        return {"seconds": seconds, "first_step_seconds": first}


def read_lines(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]
