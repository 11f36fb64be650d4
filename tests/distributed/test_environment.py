"""Reading the processes of a job from the environment of each launcher, and from wrong ones."""

import pytest

from ssl_audio.distributed import processes
from ssl_audio.distributed.environment import (
    World,
    address,
    detect,
    first_node,
    port_of,
    slurm_devices,
)

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
    "SLURM_GPUS_ON_NODE": "8",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
POD = {"SSL_AUDIO_COORDINATOR": "a-worker-0-0.a", "SSL_AUDIO_PROCESSES": "4"}


@pytest.mark.parametrize(
    ("env", "world"),
    [
        ({}, None),
        ({"JOB_COMPLETION_INDEX": "3"}, None),
        ({"SSL_AUDIO_PROCESSES": "1", **SLURM}, None),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        (
            POD | {"SSL_AUDIO_PROCESS": "3"},
            World("SSL_AUDIO_PROCESSES", "a-worker-0-0.a:8476", 4, 3),
        ),
        (
            POD | {"JOB_COMPLETION_INDEX": "0"},
            World("SSL_AUDIO_PROCESSES", "a-worker-0-0.a:8476", 4, 0),
        ),
        (SLURM, World("Slurm", f"n1:{port_of(7, 0)}", 16, 9, (1,), "Slurm job 7, step 0, start 0")),
        (
            SLURM | {"SLURM_STEP_ID": "2", "SLURM_RESTART_COUNT": "3"},
            World("Slurm", f"n1:{port_of(7, 2)}", 16, 9, (1,), "Slurm job 7, step 2, start 3"),
        ),
        (
            SLURM | {"JAX_COORDINATOR_ADDRESS": "n1:99"},
            World("Slurm", "n1:99", 16, 9, (1,), "Slurm job 7, step 0, start 0"),
        ),
        (  # a step of 12 tasks in a job of 16
            SLURM | {"SLURM_STEP_NUM_TASKS": "12", "SLURM_STEPID": "1"},
            World("Slurm", f"n1:{port_of(7, 1)}", 12, 9, (1,), "Slurm job 7, step 1, start 0"),
        ),
        # An interactive shell in a job of many tasks.
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        (
            MPI | {"OMPI_MCA_orte_hnp_uri": "8192.0;tcp://10.0.0.1,10.1.0.1:5"},
            World("Open MPI", f"10.0.0.1:{port_of(2, 0)}", 2, 1, job="Open MPI job 8192"),
        ),
        (
            MPI | {"OMPI_MCA_orte_hnp_uri": "8192.0;tcp6://[fd00::1]:5"},
            World("Open MPI", f"[fd00::1]:{port_of(2, 0)}", 2, 1, job="Open MPI job 8192"),
        ),
        (MPI | {"SSL_AUDIO_COORDINATOR": "h:1"}, World("Open MPI", "h:1", 2, 1)),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, World("TPU")),
        ({"SSL_AUDIO_CLUSTER": "tpu"}, World("TPU")),
    ],
)
def test_every_launcher_is_recognised(env, world):
    assert detect(env) == world


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (POD, "SSL_AUDIO_PROCESSES=4, but no SSL_AUDIO_PROCESS .this one's number"),
        ({"SSL_AUDIO_PROCESSES": "4", "SSL_AUDIO_PROCESS": "0"}, "no SSL_AUDIO_COORDINATOR"),
        ({"SSL_AUDIO_PROCESS": "0"}, "SSL_AUDIO_PROCESSES .how many. is not"),
        (POD | {"SSL_AUDIO_PROCESS": "4"}, "SSL_AUDIO_PROCESS=4: wanted 0 to 3"),
        (POD | {"SSL_AUDIO_PROCESSES": "four"}, "wanted a whole number, got 'four'"),
        ({"SSL_AUDIO_COORDINATOR": "h:1"}, "not how many processes there are"),
        (
            {"SSL_AUDIO_COORDINATOR": "h:port"},
            "SSL_AUDIO_COORDINATOR: wanted HOST, .*, got 'h:port'",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "h:0"},
            "JAX_COORDINATOR_ADDRESS: wanted a port from 1 to 65535",
        ),
        (
            SLURM | {"SLURM_STEP_NUM_TASKS": "4"},
            "SLURM_PROCID=9: wanted 0 to 3, SLURM_STEP_NUM_TASKS=4",
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, "srun did not start this process"),
        (MPI, "does not say where process 0 is"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "3(x2)"}, "3 tasks on a node with 8 GPUs"),
    ],
)
def test_a_wrong_world_is_refused(env, words):
    with pytest.raises(ValueError, match=words):
        detect(env)


@pytest.mark.parametrize(
    ("tasks", "visible", "local", "devices"),
    [
        ("1(x2)", "0,1,2,3,4,5,6,7", 0, tuple(range(8))),  # one process per node: all its GPUs
        ("8,2", "0,1,2,3,4,5,6,7", 1, (4, 5, 6, 7)),
        ("8(x2)", "5", 5, (0,)),  # Slurm has bound each task to its GPU
        ("4(x2)", "2,3", 1, (0, 1)),
        ("8(x2)", "", 3, None),
    ],
)
def test_slurm_tasks_share_all_gpus_of_their_node(tasks, visible, local, devices):
    env = SLURM | {"SLURM_STEP_TASKS_PER_NODE": tasks, "CUDA_VISIBLE_DEVICES": visible}
    assert slurm_devices(env, local) == devices


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("host", "host:8476"),
        ("a-b.c_d:90", "a-b.c_d:90"),
        (" 10.0.0.1 ", "10.0.0.1:8476"),
        ("10.0.0.1:65535", "10.0.0.1:65535"),
        ("::1", "[::1]:8476"),  # no port, though it ends in one's form
        ("fd00::1:2", "[fd00::1:2]:8476"),
        ("[::1]", "[::1]:8476"),
        ("[fe80::1%eth0]:9", "[fe80::1%eth0]:9"),
    ],
)
def test_a_coordinator_with_and_without_port(text, whole):
    assert address(text) == whole


@pytest.mark.parametrize(
    "text", ["", ":1", "h:", "h:x", "h:-1", "h:65536", "h:0", "h:1:2", "[h]:1", "tcp://h:1", "a b"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"^coordinator: wanted .*, got "):
        address(text)


def test_neighbouring_jobs_and_steps_have_ports_of_their_own():
    found = {port_of(job, step) for job in range(1000, 1020) for step in range(50)}
    assert len(found) == 20 * 50
    assert min(found) > 60999, "those below are handed out by the system"
    assert max(found) < 65536


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[003-007,9]-ib,n1", "gpu003-ib"),
        ("a[1-2]b[3-4],x", "a1b3"),
        ("rack-1,b[1-2]", "rack-1"),
    ],
)
def test_the_first_node_of_a_list(nodes, first):
    assert first_node(nodes) == first


def test_what_jax_has_to_ask_a_tpu_pod_for_is_added(monkeypatch):
    from jax._src import clusters

    def found(coordinator, count, index, devices, how, seconds):
        return coordinator or "10.0.0.1:8476", 4, 2, devices

    monkeypatch.setattr(
        clusters.ClusterEnv, "auto_detect_unset_distributed_params", staticmethod(found)
    )
    assert processes._complete(World("TPU"), 1) == World("TPU", "10.0.0.1:8476", 4, 2)
    whole = World("Slurm", "n1:1", 2, 0)
    assert processes._complete(whole, 1) is whole
