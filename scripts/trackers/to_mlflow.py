"""Send the metrics of a run to MLflow: --metrics-command 'python3 scripts/trackers/to_mlflow.py [EXPERIMENT]'

The settings become parameters. MLflow gives a run an identifier of its own, so the run is found again by the tag `jigsaw_id`. A resumed run
continues from the last step that MLflow has. MLFLOW_TRACKING_URI names the server.
"""

import mlflow
from run_lines import Run, lines

run = Run()
mlflow.set_experiment(run.project)
known = mlflow.search_runs(experiment_names=[run.project], filter_string=f"tags.jigsaw_id = '{run.id}'", output_format="list")
tags = {"jigsaw_id": run.id, "jigsaw_dir": str(run.dir)} | ({"group": run.group} if run.group else {})
with mlflow.start_run(run_id=known[0].info.run_id if known else None, run_name=run.name, tags=tags) as tracked:
    if not known:
        mlflow.log_params(run.flat_config())
    for step, numbers in lines(first=int(tracked.data.metrics.get("step", 0))):
        mlflow.log_metrics(numbers | {"step": step}, step=step)
