"""Measure what UnFuSeD gains: python experiments/unfused/run.py --root FSDD --out RUNS

A teacher, its pseudo-labels and a student of them; then, for each seed, that student fine-tuned on ten
labels a class, and the same encoder fine-tuned from nothing on the same clips. With --students several, each
seed has another. Finished parts are passed over.
"""

import argparse
import json
import logging
import pathlib
import statistics

from ssl_audio import config_files, startup
from ssl_audio.config import escaped
from ssl_audio.storage import atomic


def main():
    """Parse the command line, train what is missing and write the results."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--root", required=True, help="of the task's data")
    made.add_argument("--out", type=pathlib.Path, required=True, help="folder of the runs")
    made.add_argument("--task", default="spoken_digit")
    made.add_argument("--labels", type=int, default=10, help="of each class")
    made.add_argument("--clusters", type=int, default=64)
    made.add_argument(
        "--seeds", type=int, default=3, help="of the labelled clips and of fine-tuning"
    )
    made.add_argument("--students", type=int, default=1)
    args = made.parse_args()
    startup.logs()
    startup.use_compilation_cache()
    from ssl_audio.inference import kmeans
    from ssl_audio.train.loop import train

    given = f"unfused:laptop,task={args.task},root={escaped(args.root)}"

    def run(name, options, seed):
        place = args.out / name
        if not (place / "done.json").exists():
            found = config_files.load(f"{given},{options}", [f"--config.seed={seed}"])
            found.data.seed = seed
            results = {key: float(value) for key, value in train(found, place).items()}
            atomic.write(place / "done.json", json.dumps(results))
        return json.loads((place / "done.json").read_text())

    args.out.mkdir(parents=True, exist_ok=True)
    run("teacher", "stage=teacher", 0)
    table = args.out / f"labels_{args.clusters}.csv"
    if not table.exists():
        kmeans.main([
            "--clips", "--checkpoint", str(args.out / "teacher"), "--out", str(table),
            "--codes", str(args.clusters), "--config", f"{given},stage=finetune",
        ])  # fmt: skip
    few = f"stage=finetune,labels={args.labels}"
    found = {"unfused": [], "scratch": []}
    for seed in range(args.seeds):
        number = seed % args.students
        own = f"student_{args.clusters}_{number}"
        student = f"unfused:laptop,task={args.task},stage=student,previous={escaped(str(table))}"
        if not (args.out / own / "done.json").exists():
            options = config_files.load(student, [f"--config.seed={number}"])
            options.data.seed = number
            train(options, args.out / own)
            atomic.write(args.out / own / "done.json", "{}")
        begun = f"{few},draw={seed},previous={escaped(str(args.out / own))}"
        for name, options in (("scratch", f"{few},draw={seed}"), ("unfused", begun)):
            where = f"{name}_{seed}" if name == "scratch" else f"{own}_tuned_{seed}"
            found[name].append(run(where, options, seed)["test/accuracy"])
        logging.getLogger("ssl_audio").info("%s", found)
        summary = {
            name: dict(accuracy=some, mean=statistics.mean(some)) for name, some in found.items()
        }
        atomic.write(
            args.out / f"results_{args.clusters}_{args.students}.json",
            json.dumps(summary, indent=1),
        )


if __name__ == "__main__":
    main()
