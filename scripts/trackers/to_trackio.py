"""Send the metrics of a run to trackio: --metrics-command 'python3 scripts/trackers/to_trackio.py [PROJECT]'

The settings become the configuration. Trackio knows a run by its name, which so ends with the beginning of the run's identifier. A resumed
run continues; the steps after its last checkpoint then stand there twice, with the same numbers.
"""

import trackio
from run_lines import Run, lines

run = Run()
name = f"{run.name}-{run.id[:6]}"
trackio.init(project=run.project, name=name, group=run.group, config=run.flat_config(), resume="allow", embed=False)
for step, numbers in lines():
    trackio.log(numbers, step=step)
trackio.finish()
