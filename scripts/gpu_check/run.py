"""The work of gpu_check.sh: Python's standard library alone. Each step has a time limit; one that fails is recorded and the next begins."""

import argparse
import datetime
import glob
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEED = 1
# Rows of prompts and steps of each model: what fits into the time on an H200.
SIZES = {
    "tiny": dict(batch=2, steps=3, tile=28, decode=(4, 24), dtype="f32", lora=4),
    "small": dict(batch=8, steps=6, tile=56, decode=(8, 136), dtype="bf16", lora=16),
    "qwen2.5-vl-3b": dict(batch=4, steps=4, tile=112, decode=(8, 72), dtype="bf16", lora=16),
}
PEERS = ["torch", "transformers", "peft", "trl"]


def libraries():
    """Folders of CUDA's libraries."""
    site = {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    torch = importlib.util.find_spec("torch")
    if torch and torch.origin:
        site.add(str(pathlib.Path(torch.origin).parents[1]))
    wheels = [found for path in sorted(site) for found in sorted(glob.glob(f"{path}/nvidia/*/lib"))]
    return wheels + [path for path in ["/usr/local/cuda/lib64"] if os.path.isdir(path)]


def output_of(*command):
    """What a command prints; None if it does not run."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine():
    """Processor, GPU, driver, versions."""
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    found = {"system": platform.platform(), "cpu": cpu and cpu.group(1), "cores": os.cpu_count(), "memory_bytes": 1024 * int(memory.group(1)), "python": sys.version.split()[0]}
    found["gpu"] = output_of("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,compute_cap", "--format=csv,noheader")
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


class Watch(threading.Thread):
    """The most memory of the GPU while a step runs, as nvidia-smi says, beyond what was in use before."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.over, self.before = None, threading.Event(), self.used()

    @staticmethod
    def used():
        text = output_of("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
        return int(text.splitlines()[0]) << 20 if text else None

    def run(self):
        while self.before is not None and not self.over.wait(0.2):
            used = self.used()
            if used is not None:
                self.peak = max(self.peak or 0, used - self.before)


class Check:
    """The steps, one after the other."""

    def __init__(self, args):
        self.args, self.out, self.begun = args, pathlib.Path(args.out).resolve(), time.monotonic()
        self.kit = pathlib.Path(args.kit).resolve()
        self.jigsaw = self.kit / "jigsaw"
        self.gpu = args.device.startswith("cuda")
        self.env = dict(os.environ, JIGSAW_TEST_DEVICE=args.device, CARGO_MANIFEST_DIR=str(ROOT), CARGO_BIN_EXE_jigsaw=str(self.jigsaw))
        found = libraries()
        if found:
            self.env["LD_LIBRARY_PATH"] = ":".join([p for p in [os.environ.get("LD_LIBRARY_PATH")] if p] + found)
        kit = self.kit / "kit.json"
        self.report = {
            "began": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": sys.argv, "device": args.device, "seed": SEED, "machine": machine(), "libraries": found,
            "kit": json.loads(kit.read_text()) if kit.exists() else None, "jigsaw": output_of(str(self.jigsaw), "--version"),
            "steps": [],
        }

    def left(self):
        return 60 * self.args.minutes - (time.monotonic() - self.begun)

    def step(self, name, command, limit, until=None, read=None):
        """Run a command, and record it with what `read` makes of its output. `until` says when it has shown all, and may end."""
        log = self.out / "raw" / f"{name}.txt"
        entry = {"name": name, "command": " ".join(map(str, command)), "raw": f"raw/{name}.txt", "limit_seconds": limit}
        self.report["steps"].append(entry)
        if self.left() < 15:
            entry["failed"] = "no time was left"
            return entry
        limit, begun, ended = min(limit, self.left()), time.monotonic(), None
        print(f"==> {name}", flush=True)
        with log.open("w") as raw:
            process = subprocess.Popen([str(c) for c in command], stdout=raw, stderr=subprocess.STDOUT, env=self.env, cwd=self.out, start_new_session=True)
            watch = Watch()
            watch.start()
            done, usage = False, None
            while not done:
                if time.monotonic() - begun > limit:
                    entry["failed"], ended = f"not done within {limit:.0f} s", "limit"
                elif until and until():
                    ended = "all is measured"
                if ended:
                    os.killpg(process.pid, signal.SIGKILL)
                pid, status, usage = os.wait4(process.pid, 0 if ended else os.WNOHANG)
                done = pid != 0
                if not done:
                    time.sleep(0.05)
            process.returncode = os.waitstatus_to_exitcode(status)
            watch.over.set()
            watch.join()
        entry.update(seconds=round(time.monotonic() - begun, 2), exit_code=process.returncode, ended=ended, peak_gpu_bytes=watch.peak, peak_resident_bytes=1024 * usage.ru_maxrss)
        if process.returncode != 0 and ended is None:
            entry["failed"] = f"exit code {process.returncode}"
        try:
            entry["result"] = read(log.read_text(errors="replace")) if read and "failed" not in entry else None
        except Exception as error:  # Whatever the output lacks, the next step is to run.
            entry["failed"] = f"its output cannot be read: {error!r}"
        if "failed" in entry:
            print(f"    failed: {entry['failed']}\n    " + "\n    ".join(log.read_text(errors="replace").splitlines()[-4:]), flush=True)
        else:
            print(f"    {entry['seconds']} s {json.dumps(entry['result'])}", flush=True)
        self.save()
        return entry

    def save(self):
        self.report["seconds"] = round(time.monotonic() - self.begun, 1)
        self.report["failed"] = [step["name"] for step in self.report["steps"] if "failed" in step]
        part = self.out / "gpu_check.json.part"
        part.write_text(json.dumps(self.report, indent=1) + "\n")
        part.replace(self.out / "gpu_check.json")

    def tests(self):
        def read(text):
            done = re.search(r"(\d+) passed; (\d+) failed; (\d+) ignored", text)
            return dict(zip(["passed", "failed", "ignored"], map(int, done.groups())))

        entry = self.step("model-tests", [self.kit / "model-tests", "--test-threads", 4, *self.args.tests.split()], 150)
        text = (self.out / entry["raw"]).read_text(errors="replace") if "exit_code" in entry else ""
        if "test result" in text:
            entry["result"] = dict(read(text), failures=re.findall(r"^test (\S+) \.\.\. FAILED", text, re.M))
        self.save()

    def model(self, preset):
        """Everything that is measured of one model."""
        size, model, data = SIZES[preset], self.out / "models" / preset, self.out / "data" / preset
        for folder in (model, data):
            shutil.rmtree(folder, ignore_errors=True)
        gen = ["gen", "--images", "scenes", "--grid", "3x3", "--tile", size["tile"], "--count", 24, "--split", "0.75,0,0.25", "--seed", SEED, "--out", data]
        self.step(f"{preset}-data", [self.jigsaw, *gen], 60)
        random = ["--random"] if preset.startswith("qwen") else []
        made = self.step(f"{preset}-init", [self.jigsaw, "model", "init", "--preset", preset, *random, "--seed", SEED, "--out", model], 150)
        if "failed" in made:
            return
        lora = ["--set", f"lora.rank={size['lora']}"]
        rollouts = ["--set", "rollout.num_generations=4", "--set", f"rollout.max_new_tokens={size['decode'][0] * 4}"]
        jobs = [("sft-lora", "sft", lora), ("grpo-lora", "rft", lora + rollouts), ("sft-full", "sft", [])]
        for name, method, more in jobs:
            self.train(preset, size, model, data, name, method, more)
        self.decode(preset, size, model, data)
        if "peers" not in self.args.without:
            self.peers(preset, size, model, data)
        shutil.rmtree(model, ignore_errors=True)

    def train(self, preset, size, model, data, name, method, more):
        run, count = self.out / "runs" / f"{preset}-{name}", size["steps"]
        shutil.rmtree(run, ignore_errors=True)
        sets = [f"train.steps={count}", "train.warmup_steps=0", f"train.batch_size={size['batch']}", f"train.seed={SEED}", "train.gradient_checkpointing=true"]
        sets += [f"train.dtype={size['dtype']}", "train.save_steps=0", "eval.steps=0"]
        line = [self.jigsaw, "train", "--method", method, "--model", model, "--data", data, "--out", run, "--device", self.args.device]
        line += [word for item in sets for word in ("--set", item)] + more
        planned = self.step(f"{preset}-{name}-plan", line + ["--dry-run"], 60, read=planned_bytes)
        log = run / "metrics.jsonl"
        lines = lambda: [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")] if log.exists() else []

        def read(_text):
            steps = lines()
            # The first step compiles kernels and allocates.
            rest = steps[1:] or steps
            peak = entry_of(self.report, f"{preset}-{name}")["peak_gpu_bytes" if self.gpu else "peak_resident_bytes"]
            return {
                "step_seconds": [s["step_seconds"] for s in steps], "tokens_per_second": round(statistics.median(s["tokens_per_second"] for s in rest), 1),
                "loss": [s["loss"] for s in steps], "grad_norm": [s["grad_norm"] for s in steps],
                "planned_bytes": planned.get("result"), "peak_bytes": peak, "peak_of_plan": peak and planned.get("result") and round(peak / planned["result"], 3),
            }

        # The run ends with its last step: what it would write then is not measured.
        self.step(f"{preset}-{name}", line, 110, until=lambda: len(lines()) >= count, read=read)
        shutil.rmtree(run, ignore_errors=True)

    def decode(self, preset, size, model, data):
        """New tokens a second: the difference of two evaluations that differ in the length of their responses."""
        took = []
        for new in size["decode"]:
            out = self.out / "runs" / f"{preset}-decode-{new}"
            shutil.rmtree(out, ignore_errors=True)
            line = [self.jigsaw, "eval", "--model", model, "--data", data, "--split", "train", "--limit", size["batch"], "--num-generations", 4]
            line += ["--batch-size", size["batch"], "--temperature", 1, "--max-new-tokens", new, "--seed", SEED, "--device", self.args.device, "--out", out]

            def read(text):
                tokens = sum(json.loads(line)["tokens"] for line in (out / "responses.jsonl").read_text().splitlines())
                rate = float(re.search(r"([\d.]+) tokens/s", text).group(1))
                return {"tokens": tokens, "seconds": round(tokens / rate, 3)}

            took.append(self.step(f"{preset}-decode-{new}", line, 60, read=read))
            shutil.rmtree(out, ignore_errors=True)
        if all(entry.get("result") for entry in took):
            few, many = (entry["result"] for entry in took)
            seconds = many["seconds"] - few["seconds"]
            many["new_tokens_per_second"] = round((many["tokens"] - few["tokens"]) / seconds, 1) if seconds > 0 else None
            print(f"    {many['new_tokens_per_second']} new tokens a second after the prompt", flush=True)
            self.save()

    def peers(self, preset, size, model, data):
        versions = self.report["machine"]
        if not (versions["torch"] and versions["transformers"]):
            self.report["peers"] = "transformers is not installed"
            return
        jobs = ["sft-full", "decode"] + (["sft-lora"] if versions["peft"] else []) + (["grpo-lora"] if versions["trl"] and versions["peft"] else [])
        self.report["peers"] = jobs

        def read(text):
            return json.loads(next(line for line in reversed(text.splitlines()) if line.startswith("RESULT "))[7:])

        for job in jobs:
            line = [sys.executable, ROOT / "scripts/gpu_check/peer.py", job, "--model", model, "--data", data, "--device", self.args.device]
            line += ["--batch", size["batch"], "--steps", size["steps"], "--new", size["decode"][1], "--dtype", size["dtype"], "--rank", size["lora"], "--seed", SEED]
            self.step(f"{preset}-peer-{job}", line, 90, read=read)


def entry_of(report, name):
    return next(step for step in reversed(report["steps"]) if step["name"] == name)


def planned_bytes(text):
    """The bytes that a plan says are held at most."""
    number, unit = re.search(r"memory[^:]*: about ([\d.]+) ([kMGT]?B)", text).groups()
    return int(float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit])


def main():
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description="See the head of scripts/gpu_check.sh.")
    parser.add_argument("--kit", default=str(ROOT / "target/cuda-compiler/kit"))
    parser.add_argument("--out", default=str(ROOT / "runs/gpu-check"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", default="small,qwen2.5-vl-3b")
    parser.add_argument("--minutes", type=float, default=8.7)
    parser.add_argument("--without", default="", help="parts to leave out: tests, peers")
    parser.add_argument("--tests", default="", help="arguments for the test binary")
    args = parser.parse_args()
    args.without = args.without.split(",")
    unknown = [name for name in args.models.split(",") if name not in SIZES]
    if unknown:
        parser.error(f"--models {','.join(unknown)}: give some of {', '.join(SIZES)}")
    if not os.access(pathlib.Path(args.kit) / "jigsaw", os.X_OK):
        parser.error(f"--kit {args.kit}: there is no jigsaw in it (PROFILE=release scripts/check_cuda_build.sh --link)")
    check = Check(args)
    (check.out / "raw").mkdir(parents=True, exist_ok=True)
    check.save()
    if "tests" not in args.without:
        check.tests()
    for preset in args.models.split(","):
        check.model(preset)
    check.save()
    failed = check.report["failed"]
    print(f"{check.out / 'gpu_check.json'}: {len(check.report['steps'])} steps in {check.report['seconds']:.0f} s, " + (f"failed: {', '.join(failed)}" if failed else "none failed"))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
