"""The files of launch/: manifests against the published schemas, scripts, and what a stop looks like."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
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
    assert len(text.splitlines()) <= 60 and "-m ssl_audio.train" in text


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


def wait_for(path: pathlib.Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)
