#!/usr/bin/env bash
# Ray: `sys.exit("message")` in a task counts as a lost worker: the task is run again, and its error says nothing.
#
# Expected: an error that the task's own code raises is an error of the application: it is not tried again unless
#   `retry_exceptions` says so, and it comes to the driver with its text. A command line's mistakes (argparse) and
#   many programs' errors are SystemExit.
# Happens: the worker ends, Ray takes that for a crash, runs the task max_retries more times (3 by default) and
#   raises WorkerCrashedError with a hint to look for a log; the message is not in that exception, but at the end of
#   the raylet's long line about a worker that died unexpectedly. ValueError in the same place: one run, and its text.
# Why: SystemExit is no Exception; the worker's loop lets it end the process, with the message as its status.
# Matters: a script that is turned into a task repeats a mistake four times, each with its start and its side
#   effects, and then blames the machine. Catch SystemExit in the task and raise another error.
# Versions: ray 2.60.0; Python 3.11.
# Source: Ray's page on fault tolerance of tasks (what is tried again, `max_retries`, `retry_exceptions`).
# Output seen:
#   ValueError: 1 run, RayTaskError(ValueError), message shown
#   SystemExit: 4 runs, WorkerCrashedError, message not shown
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH RAY_ADDRESS
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check ray==2.60.0 || exit 2
cat > look.py <<'PY'
import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote
def task(name, kind):
    with open(name, "a") as file:
        file.write("x")
    raise kind("the folder is missing")


found = []
for kind in (ValueError, SystemExit):
    name = os.path.abspath(kind.__name__)
    try:
        ray.get(task.remote(name, kind))
    except ray.exceptions.RayError as error:
        runs, shown = os.path.getsize(name), "the folder is missing" in str(error)
        said = f"{runs} run{'s' if runs > 1 else ''}, {type(error).__name__}"
        print(f"{kind.__name__}: {said}, message {'shown' if shown else 'not shown'}")
        found.append((runs, shown))
ray.shutdown()
print("as described" if found == [(1, True), (4, False)] else "changed")
sys.exit(found != [(1, True), (4, False)])
PY
venv/bin/python look.py
