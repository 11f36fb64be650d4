"""Using a model, before and after: this tree and another one, in turn, each in processes of its own.

python experiments/speed/use.py --before TREE [--part embed,help,start,allocator] [--repeats 3]
Prints the median processor time of each, and the ratio after / before.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parents[2]

ENCODER = """
import json, sys, time
import jax, numpy as np
from ssl_audio import config
from ssl_audio.inference.encoder import Encoder
from ssl_audio.presets import runs

def encoder(name, frames, depth=None):
    options = runs.masked_spectrogram(
        encoder=name, size="tiny", patch=(16, 16), masked=0.75, frames=frames, depth=depth
    )
    objective = config.build(options, "objectives")
    data = dict(entries=dict(audio=dict(kind="entries:Audio", samples=400 + 160 * (frames - 1))))
    settings = dict(objective=config.plain(options), data=data)
    blank = Encoder(objective, {}, settings).blank()
    params = jax.jit(objective.init)(jax.random.key(0), blank)[0]
    return Encoder(objective, jax.tree.map(np.asarray, params), settings)

def report(call):
    call()
    times = []
    for _ in range(3):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return sorted(times)[1]
"""
EMBED = """
rng, found = np.random.default_rng(0), {}
for name, frames in (("ssast", 1024), ("ssast", 96), ("ssamba", 1024), ("ssamba", 96)):
    model = encoder(name, frames)
    clips = [(0.1 * rng.standard_normal(160 * frames)).astype(np.float32) for _ in range(16)]
    for count in (1, 16):
        key = f"{name}-tiny, {count} x {frames / 100:g} s"
        found[key] = report(lambda: model.embed(clips[:count], 16_000))
print(json.dumps(found))
"""
SAVE = """
from ssl_audio.storage import exported
model = encoder("ssast", 96, depth=2)
exported.write(sys.argv[1], model.params, model.config)
"""
ALLOCATOR = """
import json, sys, time
if "tuned" in sys.argv:
    import ssl_audio
    ssl_audio.tune_cpu()
import jax, jax.numpy as jnp, numpy as np
from ssl_audio import config, startup
from ssl_audio.frontend.fbank import Fbank
from ssl_audio.presets import runs
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step
if "commands" in sys.argv:
    startup.tune_cpu()  # that of the tree before starts this process again

def report(call, repeats):
    call()
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return sorted(times)[repeats // 2]

fbank = jax.jit(Fbank(frames=1024).log_mel)
audio = 0.1 * np.random.default_rng(0).standard_normal((16, 160_000)).astype(np.float32)
found = {"front end, a clip of 16": report(lambda: fbank(audio).block_until_ready(), 25) / 16}
options = runs.masked_spectrogram(
    encoder="ssast", size="tiny", patch=(16, 16), masked=0.75, frames=1024, depth=None
)
objective = config.build(options, "objectives")
clips = dict(
    audio=0.1 * jax.random.normal(jax.random.key(0), (4, 400 + 160 * 1023)),
    length=jnp.full(4, 400 + 160 * 1023, jnp.int32),
)
txs = Optim(lr=1e-4).make(objective.phases, 1000)
state = [jax.jit(lambda key, clips: init_state(objective, txs, key, clips))(jax.random.key(0), clips)]
step = jax.jit(make_train_step(objective, txs), donate_argnums=0)

def train():
    state[0], metrics = step(state[0], clips)
    jax.block_until_ready(metrics)

found["step of SSAST-tiny, batch 4"] = report(train, 5)
print(json.dumps(found))
"""


def child(tree: str, *arguments: str) -> tuple[float, str]:
    """Run Python on a tree; return the processor time that it took and the last line that it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "XLA_"))}
    env |= {"PYTHONPATH": tree, "JAX_PLATFORMS": "cpu"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments],
        env=env,
        cwd="/",
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, (done.stdout.splitlines() or [""])[-1]


def script(tree: str, folder: str, text: str, *arguments: str) -> tuple[float, str]:
    """Run a script from a file: the tree before starts it again by its name."""
    path = pathlib.Path(folder) / "part.py"
    path.write_text(text)
    return child(tree, str(path), *arguments)


def measure(part: str, tree: str, which: str, folder: str) -> dict[str, float]:
    """Return processor times, s, of one part on one tree."""
    if part == "embed":
        return json.loads(script(tree, folder, ENCODER + EMBED)[1])
    if part == "allocator":
        found = {}
        modes = {"before": ("stock", "commands"), "after": ("stock", "tuned", "commands")}[which]
        for mode in modes:
            times = json.loads(script(tree, folder, ALLOCATOR, mode)[1])
            found |= {f"{name}, {mode}": value for name, value in times.items()}
        return found
    if part == "help":
        verbs = ("train", "embed", "evaluate", "convert", "bench")
        return {f"{v} --help": child(tree, "-m", "ssl_audio", v, "--help")[0] for v in verbs}
    model, sound = f"{folder}/model", f"{folder}/sound.wav"
    if not os.path.exists(model):
        import numpy as np
        import soundfile

        script(str(HERE), folder, ENCODER + SAVE, model)
        noise = 0.1 * np.random.default_rng(0).standard_normal(16_000)
        soundfile.write(sound, noise, 16_000)
    places = ("--checkpoint", model, "--output", f"{folder}/out.npz")
    floor = child(tree, "-c", "import jax, flax.linen")[0]
    took = child(tree, "-m", "ssl_audio", "embed", sound, *places)[0]
    return {"embed, one clip of 1 s": took, "import jax, flax.linen": floor}


def main() -> None:
    """Measure both trees in turn and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--before", required=True, metavar="TREE", help="a checkout to compare with"
    )
    parser.add_argument("--part", default="embed,help,start,allocator")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    trees = {"before": args.before, "after": str(HERE)}
    print("| what | before, s | after, s | ratio |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for part in args.part.split(","):
            seen: dict[str, dict[str, list[float]]] = {}
            for _ in range(args.repeats):
                for which, tree in trees.items():
                    for name, value in measure(part, tree, which, folder).items():
                        seen.setdefault(name, {}).setdefault(which, []).append(value)
            for name, by in seen.items():
                was, now = (statistics.median(by[k]) if k in by else None for k in trees)
                cells = ["" if x is None else f"{x:.4g}" for x in (was, now)]
                ratio = f"{now / was:.2f}" if was and now else ""
                print(f"| {name} | {' | '.join(cells)} | {ratio} |", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
