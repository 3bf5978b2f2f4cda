"""The sides of a row: each does some steps when it is visited, and tells its rates and its peak memory."""

import sys
import time

from processes import HERE, Failed, Peer

#: Seconds that a visit should take, and most steps of one.
VISIT, MOST = 3.0, 12


def enough(seconds):
    """Steps of a visit, when one takes so long."""
    return max(1, min(MOST, round(VISIT / seconds)))


class Once:
    """A side that is a process of its own at every visit: `visit` runs it and returns rates, peak_mb and whatever else is to be kept."""

    def __init__(self, visit):
        self.visit_once = visit

    def start(self):
        pass

    def ready(self):
        return {}

    def visit(self, _limit):
        return self.visit_once()

    def close(self):
        pass


class Staying:
    """A process of peer.py or of a script like it. `rate` makes a step's numbers (with its seconds) a rate."""

    def __init__(self, log, job, options, settings, rate, limit, python=sys.executable, script="peer.py"):
        command = [python, HERE / script, job, "--threads", settings["threads"]]
        if "attn" in settings:
            command += ["--attn", settings["attn"]]
        self.command = command + [word for name, value in options.items() for word in (f"--{name}", value)]
        self.settings, self.log, self.rate, self.limit, self.peer, self.count = settings, log, rate, limit, None, 1

    def start(self):
        self.deadline = time.monotonic() + self.limit
        self.peer = Peer(self.command, self.settings, self.log)

    def ready(self):
        return {**self.peer.answer("READY", self.deadline - time.monotonic()), "started": self.peer.started}

    def visit(self, limit):
        found = self.peer.steps(self.count, limit)
        seconds = [step["seconds"] for step in found["steps"]]
        self.count = enough(sum(seconds) / len(seconds))
        return {"rates": [self.rate(step) for step in found["steps"]], "peak_mb": found["peak_kb"] / 1024, "steps": found["steps"]}

    def close(self):
        if self.peer:
            self.peer.close()
            self.peer = None


def best_settings(make, usual, others):
    """The fastest settings of a peer, and all that was tried. `make` makes a side of settings; `others` are changes of the usual ones."""
    trials = []
    for settings in [usual] + [{**usual, **change} for change in others]:
        side = make(settings)
        try:
            side.start()
            ready = side.ready()
            visit = side.visit(side.limit)
            trials.append({"settings": settings, "rate": max(visit["rates"]), "peak_mb": visit["peak_mb"], "warmup": ready["warmup"]})
        except Failed as error:
            trials.append({"settings": settings, "failed": str(error)[-1000:]})
        finally:
            side.close()
    tried = [trial for trial in trials if "rate" in trial]
    return (max(tried, key=lambda trial: trial["rate"])["settings"] if tried else usual), trials
