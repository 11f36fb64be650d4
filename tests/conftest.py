"""Strict by default: eight fake devices, no silent rank promotion, warnings are errors, shapes checked."""

import ctypes
import gc
import importlib.metadata
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")
# Most of the time goes into compiling programs that run once: LLVM's optimisations and a dialect of MLIR
# for every fused kernel are not worth theirs, nor are several threads where tests run side by side.
FLAGS = ["backend_optimization_level=0", "cpu_parallel_codegen_split_count=1"]
# Not where it is gone: JAX ends the process, without a word, at a flag that it does not know.
if importlib.metadata.version("jaxlib") < "0.11":
    FLAGS += ["cpu_use_fusion_emitters=false"]
os.environ["XLA_FLAGS"] = " ".join(f"--xla_{flag}" for flag in FLAGS)
# Nothing of the user's, such as a compiled scan.
CACHE = tempfile.TemporaryDirectory(prefix="ssl_audio-")
os.environ["SSL_AUDIO_CACHE"] = CACHE.name
# Not compiled for every worker, and results do not depend on whether there is a compiler. Tests of the
# scan in C++ ask for it; SSL_AUDIO_SCAN=cpp runs all others with it.
os.environ.setdefault("SSL_AUDIO_SCAN", "xla")

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402
from reference import SHARED  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

CHECKED = ["frontend", "layers", "quantizers", "tokens", "heads", "backbones", "objectives"]
CHECKED += ["losses", "train.optim", "train.step"]
install_import_hook([f"ssl_audio.{name}" for name in CHECKED], "beartype.beartype")

# Old objects are many, and are looked at again seldom; new ones as often as ever, so that what is left open
# is found in the test that opened it.
gc.freeze()
gc.set_threshold(700, 10, 200)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Return the folder of real audio, or skip loudly."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"real audio not found at {SHARED / 'data'}: set SSL_AUDIO_SHARED")
    return SHARED / "data"


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, where workers share them: none is left with one at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        long = ("entry", "train", "distributed", "parity")
        items.sort(key=lambda item: item.path.parent.name not in long)


@pytest.fixture(scope="module", autouse=True)
def memory_given_back():
    """Give back what compiling took and freed: glibc keeps it, and workers grow to many gigabytes."""
    yield
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Return the folder of compiled programs that the files which ask for compiled_once share."""
    return str(tmp_path_factory.mktemp("xla"))


@pytest.fixture(scope="module")
def compiled_once(programs):
    """Share compiled programs between the runs of a file, as a second start of a program would."""
    from jax.experimental.compilation_cache import compilation_cache

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    old = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (programs, 0.1), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in zip(names, old, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def no_pictures(monkeypatch):
    """Draw nothing at the end of a run: seconds for each, where nothing looks at them."""
    monkeypatch.setattr("ssl_audio.train.loop._pictures", lambda *_: {})
    monkeypatch.setattr("ssl_audio.train.record.Recorder.pictures", lambda *_, **__: None)


@pytest.fixture
def in_cpp(monkeypatch):
    """Run the selective scan in C++, and see that nothing else was; the set of what was found so far."""
    if not shutil.which("c++"):
        pytest.skip("no C++ compiler: install GCC or Clang")
    from ssl_audio.layers.scan import choose

    found, find = set(), choose.find

    def noted(*args):
        name = find(*args)
        found.add(name)
        return name

    monkeypatch.setenv("SSL_AUDIO_SCAN", "cpp")
    monkeypatch.setattr(choose, "find", noted)
    yield found
    assert found == {"cpp"}, f"asked for C++, ran {found}"
