"""Send the metrics of a run to Weights & Biases: --metrics-command 'python3 scripts/trackers/to_wandb.py [PROJECT]'

The settings become the configuration. A resumed run continues its W&B run; W&B takes no step twice, so repeated steps are left out.
"""

import wandb
from run_lines import Run, lines

run = Run()
with wandb.init(project=run.project, id=run.id, name=run.name, group=run.group, resume="allow") as tracked:
    # A run may have been given more steps.
    tracked.config.update(run.config, allow_val_change=True)
    for step, numbers in lines(first=tracked.step):
        tracked.log(numbers, step=step)
