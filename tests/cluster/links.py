"""Measure training over slow and lossy links, and which cuts are survived: the table in experiments/cluster.

python tests/cluster/links.py [--seconds 200]: two machines as network namespaces (root).
"""

import argparse
import os
import pathlib
import re
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # reference.py
from network import Network, Spread
from processes import records, training
from reference import ROOT

MEMBER = f"{ROOT}/tests/cluster/member.py"
LINKS = (0.0, 0.0), (0.02, 0.0), (0.2, 0.0), (0.2, 0.05)  # s of delay, share of packets lost
CUTS = 0.5, 0.6, 0.7, 0.8, 0.9  # of the heartbeat


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=200, help="for each link")
    seconds = parser.parse_args().seconds
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
    env = inherited | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "SSL_AUDIO_HEARTBEAT": "10"}
    for delay, loss in LINKS:
        with tempfile.TemporaryDirectory() as folder, Network({"a": [0], "b": [0]}) as net:
            net.delay, net.loss = delay, loss
            with Spread(net, "ab", training(folder), env, "a") as run:
                began, seen = time.monotonic(), {}
                while time.monotonic() - began < seconds and not ended(run):
                    for step in records(pathlib.Path(folder)):
                        seen.setdefault(step, time.monotonic())
                    time.sleep(0.1)
                per_step = (seen[max(seen)] - seen[1]) / (max(seen) - 1) if len(seen) > 1 else None
                took = f"{per_step:.1f} s per step" if per_step else f"{len(seen)} steps"
                state = "ended: " + "; ".join(map(last, (run, run), (0, 1))) if ended(run) else ""
            print(f"{1000 * delay:g} ms, {loss:.0%} lost: {took} {state}", flush=True)
    env["SSL_AUDIO_HEARTBEAT"] = "16"
    for part in CUTS:
        with Network({"a": [0], "b": [0]}) as net:
            with Spread(net, "ab", [MEMBER, "sum"], env, "a") as run:
                assert run.wait_until(lambda run=run: "step 5 " in run.said(0), 100), last(run, 0)
                for _ in range(2):
                    began = time.monotonic()
                    net.cut_between("a", "b")
                    time.sleep(16 * part)
                    net.mend()
                    while time.monotonic() - began < 22 and not ended(run):
                        time.sleep(0.1)
                    times = [
                        float(t) for t in re.findall(r"^step \d+ \S+ (\S+)", run.said(1), re.M)
                    ]
                    pause = max(b - a for a, b in zip(times, times[1:], strict=False))
                    what = "ended" if ended(run) else f"survived, longest pause {pause:.1f} s"
                    print(f"cut for {16 * part:.1f} s of 16: {what}", flush=True)
                    if ended(run):
                        break


def ended(run):
    return any(process.poll() is not None for process in run.started)


def last(run, index):
    return run.said(index).strip().splitlines()[-1]


if __name__ == "__main__":
    main()
