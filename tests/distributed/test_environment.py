"""Reading the processes of a job from the environment of each launcher, and from wrong ones."""

import pytest

from ssl_audio.distributed.environment import World, detect, slurm_devices

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
        (SLURM, World("Slurm", None, 16, 9, (1,))),
        (SLURM | {"JAX_COORDINATOR_ADDRESS": "n1:99"}, World("Slurm", "n1:99", 16, 9, (1,))),
        (MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:5"}, World("Open MPI", None, 2, 1)),
        (MPI | {"SSL_AUDIO_COORDINATOR": "h:1"}, World("Open MPI", "h:1", 2, 1)),
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
