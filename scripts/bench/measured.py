"""Run a command and say what it took: `measured.py FD COMMAND...` writes JSON to file descriptor FD.

A process of its own because Linux counts into a child's peak memory what its parent held when it was started: this one holds
next to nothing (a bare interpreter; run with -I -S).
"""

import os
import sys
import time

report, command = int(sys.argv[1]), sys.argv[2:]
os.set_inheritable(report, False)
started = time.time()
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
ended = time.time()
code = os.waitstatus_to_exitcode(status)
os.write(report, f'{{"started": {started!r}, "ended": {ended!r}, "peak_kb": {usage.ru_maxrss}, "code": {code}}}'.encode())
