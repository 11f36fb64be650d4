"""The files of launch/: manifests against the published schemas, scripts, and what a stop looks like."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from reference import ROOT

LAUNCH = ROOT / "launch"
MANIFESTS = sorted((LAUNCH / "kubernetes").glob("*.yaml"))
SCRIPTS = sorted([*LAUNCH.rglob("*.sh"), *LAUNCH.rglob("*.sbatch")])


def jobs(path):
    """Return name → the template of each job of a JobSet."""
    whole = yaml.safe_load(path.read_text())
    assert (whole["apiVersion"], whole["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert whole["spec"]["network"]["enableDNSHostnames"]
    return whole["metadata"]["name"], {
        job["name"]: job["template"] for job in whole["spec"]["replicatedJobs"]
    }


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_every_pod_is_one_process_and_any_loss_restarts_all(path):
    name, found = jobs(path)
    for job, template in found.items():
        spec = template["spec"]
        assert spec["completionMode"] == "Indexed" and spec["backoffLimit"] == 0
        assert spec["completions"] == spec["parallelism"]
        pod = spec["template"]["spec"]
        assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 60
        (container,) = pod["containers"]
        env = {e["name"]: e["value"] for e in container.get("env", [])}
        if env:
            assert env["SSL_AUDIO_PROCESSES"] == str(spec["completions"])
            host, port = env["SSL_AUDIO_COORDINATOR"].split(":")
            assert host == f"{name}-{job}-0-0.{name}"
            assert {"containerPort": int(port)} in container["ports"]
        else:
            assert "google.com/tpu" in container["resources"]["limits"]
        assert container["command"][:2] == ["bash", "launch/kubernetes/train.sh"]
        assert (ROOT / container["command"][1]).is_file()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_the_jobs_satisfy_the_schema_of_kubernetes(path):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for name, template in jobs(path)[1].items():
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, **template}
        validate.validate(job, validate.latest_version(), strict=True)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.relative_to(LAUNCH).as_posix())
def test_scripts_parse_and_end_in_the_same_verb(path):
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)
    text = path.read_text()
    # Work in parts is no training run; what submits it hands all options on.
    last = {"parts.sbatch": "-m ssl_audio ", "parts.sh": "parts.sbatch"}
    assert len(text.splitlines()) <= 60 and last.get(path.name, "-m ssl_audio.train") in text


def stub(folder, body):
    """Put a program named python first on the path that stands for the training run."""
    program = folder / "python"
    program.write_text(f"#!/usr/bin/env bash\n{body}\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ('trap "touch %s/stopped; exit 0" TERM; touch %s/up; while :; do sleep 0.05; done', 75),
    ],
    ids=["done", "failed", "stopped"],
)
def test_kubernetes_starts_a_stopped_run_again(body, status, tmp_path):
    env = stub(tmp_path, body.replace("%s", str(tmp_path)))
    command = ["bash", LAUNCH / "kubernetes/train.sh", "--config=x", f"--workdir={tmp_path}"]
    process = subprocess.Popen(command, env=env)
    if status == 75:
        wait_for(tmp_path / "up")
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == status


def test_local_numbers_its_processes_and_passes_on_signals_and_failures(tmp_path):
    say = (
        'echo "{\\"index\\": $SSL_AUDIO_PROCESS, \\"count\\": $SSL_AUDIO_PROCESSES, '
        '\\"gpus\\": \\"$CUDA_VISIBLE_DEVICES\\"}"'
    )
    both = f"until [ -s {tmp_path}/0.json ]; do sleep 0.02; done"  # before 1 fails and 0 is stopped
    env = stub(
        tmp_path,
        f"{say} >{tmp_path}/$SSL_AUDIO_PROCESS.json; {both}; exit $SSL_AUDIO_PROCESS",
    )
    env |= {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}
    assert subprocess.run([LAUNCH / "local.sh", "2", "--config=x"], env=env).returncode == 1
    said = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2)]
    assert said == [
        {"index": 0, "count": 2, "gpus": "4,5"},
        {"index": 1, "count": 2, "gpus": "6,7"},
    ]

    mark = f"{tmp_path}/$SSL_AUDIO_PROCESS"
    env = stub(
        tmp_path,
        f'trap "touch {mark}.end; exit 0" TERM; touch {mark}.up; while :; do sleep 0.05; done',
    )
    process = subprocess.Popen([LAUNCH / "local.sh", "2", "--config=x"], env=env)
    for i in range(2):
        wait_for(tmp_path / f"{i}.up")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert all((tmp_path / f"{i}.end").exists() for i in range(2))


SBATCH = """
printf '%s\\n' "$*" >>LOG
[[ "$*" == *--array* ]] && echo "17;here" || echo 18
"""
SRUN = '[[ "$1" == --cpus-per-task=* ]] && shift; exec "$@"'


def test_slurm_does_the_parts_as_an_array_and_then_the_merge(tmp_path):
    """With a Slurm that only writes down what it is asked; then its tasks as Slurm would start them."""
    log, bin = tmp_path / "log", tmp_path / "bin"
    bin.mkdir()
    for name, body in (("sbatch", SBATCH.replace("LOG", str(log))), ("srun", SRUN)):
        (bin / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (bin / name).chmod(0o755)
    slurm = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    slurm |= {"PATH": f"{bin}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path)}
    slurm |= {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "MALLOC_TOP_PAD_": "0"}
    command = ["prepare", "--source=synthetic", "--set=size=7", "--set=seconds=0.1"]
    command += ["--shard-size=2", "--output", "a folder"]

    def run(*arguments, **more):
        return subprocess.run(
            list(map(str, arguments)),
            env=slurm | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    script = LAUNCH / "slurm/parts.sbatch"
    for wrong in (["0", *command], ["prepare"], ["3"], []):
        done = run(LAUNCH / "slurm/parts.sh", *wrong)
        assert done.returncode == 2 and "N VERB OPTIONS" in done.stderr and not log.exists()
    done = run(LAUNCH / "slurm/parts.sh", "--mem=8G", "3", *command)
    assert done.stdout == "parts: job 17; merge: job 18, when all of them have ended well\n"
    asked = " ".join(["3", *command])
    assert log.read_text().splitlines() == [
        f"--parsable --mem=8G --array=1-3 {script} {asked}",
        "--parsable --mem=8G --dependency=afterok:17 --kill-on-invalid-dep=yes "
        f"--output=slurm-%j.out {script} {asked}",
    ]
    for task in (1, 3):
        done = run("bash", script, "3", *command, SLURM_ARRAY_TASK_ID=str(task))
        assert done.returncode == 0 and f"part {task}/3 in a folder" in done.stdout, done.stderr
    done = run("bash", script, "3", *command)
    assert done.returncode == 1 and "part 2/3 is missing" in done.stderr
    run("bash", script, "3", *command, SLURM_ARRAY_TASK_ID="2")
    done = run("bash", script, "3", *command)
    assert done.returncode == 0 and "7 clips in a folder" in done.stdout, done.stderr


def wait_for(path: pathlib.Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)
