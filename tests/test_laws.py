"""The laws of the code base, checked on its source text: who may import, name or hold what."""

import ast
import functools
import re
import subprocess
import sys

import pytest
import structure
from attention_copies import copies
from published import CONFIGS, argument, load
from reference import ROOT

from ssl_audio import config
from ssl_audio.train.run import Run

PACKAGE = ROOT / "ssl_audio"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOT_FILES = (
    "__init__ __main__ arrays config config_files losses slots startup structs versions".split()
)
# Each may import those before it.
ORDER = """root distributed storage data frontend layers quantizers tokens heads backbones objectives train
inference eval explore presets convert bench""".split()
MODEL = ("frontend", "layers", "quantizers", "tokens", "heads", "backbones", "objectives")
MODEL_FILES = ("losses.py", "train/step.py", "train/optim.py", "distributed/sharding.py")
LIGHT = {"jax", "jaxlib", "flax", "optax", "numpy", "einops", "ssl_audio"} | sys.stdlib_module_names
# Model files that need more, and for what: mel banks are laid out by librosa and by nothing else, so a
# machine without it still trains with every other front end. Imported in functions only.
LAZY = {"frontend/mel.py": {"librosa"}}
LIFTED = {"scan", "remat", "checkpoint", "vmap", "jit", "while_loop", "cond", "map_variables"}
SYSTEMS = {"ssast", "ssamba"}
# Their keys are names.
FREE = ("sources", "entries", "evals", "rates", "weights", "targets", "heads", "towers", "beside")
FREE += ("teachers", "pairs", "domains", "branches", "compare", "dropout")


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


def name(path):
    return path.relative_to(PACKAGE).as_posix()


def top(path):
    """Return the first folder of a file, or its stem at the top."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_model(path):
    return top(path) in MODEL or name(path) in MODEL_FILES


def imported(path, *, at_load=False):
    """Return the dotted names of the modules that a file imports (at_load: not in functions)."""
    found = set()

    def visit(node):
        if at_load and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name(path)}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree(path))
    return found


def stems(*folders):
    return {
        path.stem
        for folder in folders
        for path in (PACKAGE / folder).rglob("*.py")
        if path.stem not in ("base", "__init__", "metrics", "report")
    }


def linen(path):
    """Return what a file uses of flax.linen: attribute names, or None when it does not import it."""
    if not any(module.startswith("flax.linen") for module in imported(path)):
        return None
    return {
        node.attr
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("nn", "linen")
    }


def room(module):
    """Return the place in ORDER of a module of ours, given its dotted name; above all: `__main__`."""
    first = module.split(".")[1] if "." in module else "__init__"
    if first in ("__main__", "__init__") or module.endswith(".__main__"):  # programs
        return len(ORDER)
    return 0 if (PACKAGE / f"{first}.py").exists() else ORDER.index(first)


def test_imports_go_down_the_order_of_the_folders():
    assert set(ORDER[1:]) == {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    for path in FILES:
        here = room(f"ssl_audio.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}")
        for module in imported(path):
            if module.partition(".")[0] == "ssl_audio":
                assert room(module) <= here, f"{name(path)} imports {module}"


def test_no_circle_and_few_levels():
    graph = structure.graph(PACKAGE)
    assert structure.circles(graph) == []
    assert structure.levels(graph) <= 11, structure.levels(graph)


def test_few_files_at_the_root():
    assert sorted(p.stem for p in PACKAGE.glob("*.py")) == ROOT_FILES and len(ROOT_FILES) <= 10


def signatures(path):
    """Yield (where, structs that it takes, structs that it gives) of a file's public functions."""
    for scope in ast.walk(tree(path)):
        if not isinstance(scope, (ast.Module, ast.ClassDef)):
            continue
        for node in scope.body:
            if isinstance(node, ast.FunctionDef) and (
                node.name == "__call__" or not node.name.startswith("_")
            ):
                hints = [a.annotation for a in (*node.args.args, *node.args.kwonlyargs)]
                takes, gives = (
                    {
                        n.id
                        for hint in some
                        if hint
                        for n in ast.walk(hint)
                        if isinstance(n, ast.Name)
                    }
                    & {"Tokens", "Encoded"}
                    for some in (hints, [node.returns])
                )
                yield f"{name(path)}:{node.lineno} {node.name}", takes, gives


def test_each_folder_of_models_is_a_signature():
    """Arrays in layers and quantizers; → Tokens; Tokens → Encoded; Encoded → predictions, in arrays."""
    folders = "layers quantizers tokens heads backbones".split()
    found = {f: [s for p in (PACKAGE / f).rglob("*.py") for s in signatures(p)] for f in folders}
    for where, takes, gives in found["layers"] + found["quantizers"]:
        assert not takes | gives, where
    for where, takes, gives in found["tokens"]:
        assert "Encoded" not in takes | gives, where
    for where, _, gives in found["heads"]:
        assert not gives, where
    for where, takes, gives in found["backbones"]:
        if where.endswith(" __call__") and takes | gives:
            assert (takes, gives) == ({"Tokens"}, {"Encoded"}), where
    assert all(any(t | g for _, t, g in found[f]) for f in folders[2:])  # the law sees something


@pytest.mark.parametrize("file", ["train/loop.py", "train/step.py"])
def test_the_loop_knows_no_objective_data_backbone_or_metric(file):
    path = PACKAGE / file
    allowed = "config slots versions distributed storage objectives.base train structs".split()
    for module in imported(path):
        if module.startswith("ssl_audio"):
            inner = module.removeprefix("ssl_audio.")
            assert any(inner == a or inner.startswith(f"{a}.") for a in allowed), module

    folders = "objectives backbones layers heads quantizers data/sets eval tokens frontend"
    forbidden = stems(*folders.split()) | SYSTEMS
    forbidden |= {"accuracy", "nce", "mse", "synthetic"}
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(path)):
        said = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            said = [] if id(node) in docstrings else re.findall(r"[a-z_0-9]+", node.value.lower())
        elif isinstance(node, ast.Name):
            said = [node.id]
        elif isinstance(node, ast.Attribute):
            said = [node.attr]
        assert not forbidden & set(said), f"{file}:{node.lineno}: {forbidden & set(said)}"


def test_objectives_do_not_import_each_other():
    allowed = (
        "tokens",
        "layers",
        "quantizers",
        "heads",
        "backbones",
        "losses",
        "frontend",
        "structs",
    )
    allowed += ("arrays", "slots", "objectives.base", "objectives.statistics")
    allowed += ("objectives.teacher", "objectives.towers", "objectives.two_views")
    allowed += ("objectives.pair_losses",)
    allowed += ("objectives.semi_supervised", "objectives.mixing")
    allowed += ("objectives.noise", "objectives.diffusion", "objectives.reconstruction")
    # Parts of a separator.
    allowed += ("objectives.anchors", "objectives.queries")
    # A second stage of the same method goes on from its formulas.
    allowed += ("objectives.latent_prediction",)
    for path in sorted((PACKAGE / "objectives").glob("*.py")):
        for module in imported(path):
            if module.startswith("ssl_audio"):
                inner = module.removeprefix("ssl_audio.")
                assert inner.startswith(allowed), f"{name(path)} imports {module}"


@pytest.mark.parametrize("runlocal", [False, True], ids=["full", "runlocal"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_leaf_is_a_field(path, runlocal):
    options = config.plain(load(path, argument(path, runlocal=runlocal)))
    run = config.make(Run, options)
    assert type(run.objective).__module__.endswith(options["objective"]["kind"])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_misspelt_leaf_is_an_error_with_a_suggestion(path):
    options = config.plain(load(path, "runlocal"))
    tried = 0

    def misspell(mapping, where):
        nonlocal tried
        for key, value in list(mapping.items()):
            free = where.rpartition(".")[2] in FREE
            if key != "kind" and not free:
                mapping[f"{key}x"] = mapping.pop(key)
                with pytest.raises(TypeError) as error:
                    config.make(Run, options)
                assert str(error.value).startswith(f"{where}: "), (where, key)
                assert f"Did you mean '{key}'?" in str(error.value), (where, key)
                mapping[key] = mapping.pop(f"{key}x")
                tried += 1
            if isinstance(value, dict):
                misspell(value, f"{where}.{key}")

    misspell(options, "config")
    assert tried > 30
    config.make(Run, options)


def test_nothing_branches_on_the_name_of_a_system_or_kind():
    names = stems("objectives") | SYSTEMS
    names |= {path.stem for f in ("backbones", "layers") for path in (PACKAGE / f).glob("*.py")}
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.Compare, ast.match_case)):
                words = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
                bad = {word for word in words if isinstance(word, str) and word in names}
                assert not bad, f"{name(path)}: compares with {bad}"


def test_no_hidden_state_in_modules():
    for path in FILES:
        if not is_model(path):
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute):
                # Running statistics are collected in one file, and given on in another.
                hidden = {"variable", "put_variable", "sow", "perturb"}
                hidden -= {"sow"} if name(path) == "layers/norms.py" else set()
                assert node.attr not in hidden, f"{name(path)}:{node.lineno} .{node.attr}"
                flax = isinstance(node.value, ast.Name) and node.value.id in ("nn", "linen")
                assert not (flax and node.attr == "BatchNorm"), f"{name(path)}:{node.lineno}"
            if isinstance(node, ast.keyword) and name(path) != "objectives/statistics.py":
                assert node.arg != "mutable", f"{name(path)}:{node.lineno} mutable="


@pytest.mark.parametrize(
    "path", [p for p in FILES if is_model(p) or top(p) in ("structs", "arrays")], ids=name
)
def test_model_code_is_light(path):
    lazy = LAZY.get(name(path), set())
    allowed = LIGHT | lazy | ({"jaxtyping"} if path.name == "arrays.py" else set())
    needed = {module.partition(".")[0] for module in imported(path)}
    assert not needed - allowed, f"{name(path)} imports {needed - allowed}"
    at_load = {module.partition(".")[0] for module in imported(path, at_load=True)}
    assert lazy <= needed and not lazy & at_load, f"{name(path)}: {lazy}"


def test_data_does_not_import_jax_at_load():
    for path in (PACKAGE / "data").rglob("*.py"):
        for module in imported(path, at_load=True):
            assert module.partition(".")[0] not in ("jax", "flax", "optax"), (
                f"{name(path)}: {module}"
            )


def test_a_machine_with_nothing_else_can_import_data_and_model():
    owned = "grain librosa tensorflow_datasets ml_collections tensorboardX tqdm matplotlib sklearn"
    more = "pyarrow pandas jaxtyping torch tensorflow soundfile soxr"
    code = f"""
import sys, pkgutil, importlib
sys.modules |= dict.fromkeys({owned.split()})
import ssl_audio.data.pipeline, ssl_audio.data.synthetic, ssl_audio.data.source
assert "jax" not in sys.modules, "data imports jax"
sys.modules |= dict.fromkeys({more.split()})
import ssl_audio.train.step, ssl_audio.distributed.sharding, ssl_audio.train.optim
import ssl_audio.losses, ssl_audio.objectives
for file in pkgutil.iter_modules(ssl_audio.objectives.__path__):
    importlib.import_module("ssl_audio.objectives." + file.name)

import dataclasses, jax, jax.numpy as jnp
import ssl_audio.frontend
heard, refused = set(), set()
for file in pkgutil.iter_modules(ssl_audio.frontend.__path__):
    module = importlib.import_module("ssl_audio.frontend." + file.name)
    for kind in vars(module).values():
        here = getattr(kind, "__module__", "") == module.__name__
        if here and dataclasses.is_dataclass(kind) and hasattr(kind, "valid"):
            try:
                jax.eval_shape(kind(), jnp.zeros((1, 48_000)))
                heard.add(file.name)
            except ImportError as error:
                assert "librosa" in str(error), error
                refused.add(file.name)
print(sorted(heard), sorted(refused))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert done.stdout == "['fbank', 'mfcc', 'raw', 'stft'] ['mel']\n"


def test_one_file_writes_files():
    """A kill never leaves half a file: everything but what grows line by line goes through `atomic`."""
    signs = {"distributed/processes.py": "write_text"}  # a mark that says a folder is shared
    for path in FILES:
        if name(path) == "storage/atomic.py":
            continue
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            if last in ("write_text", "write_bytes") or called in ("os.replace", "os.rename"):
                assert signs.get(name(path)) == last, f"{name(path)}:{node.lineno}: {called}"
            modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if called == "open" and any(
                isinstance(m, str) and re.fullmatch("wb?", m) for m in modes
            ):
                file = ast.unparse(node.args[0])
                assert "partial" in file or "/proc/" in file, f"{name(path)}:{node.lineno}: {file}"


def test_linen_stays_in_its_folders():
    for path in FILES:
        used = linen(path)
        if name(path) == "train/loop.py":
            assert used == {"logical_axis_rules"}
        elif top(path) not in MODEL:
            assert used is None or used == {"logical_axis_rules"}, (
                f"{name(path)} imports flax.linen"
            )


def test_shapes_of_models_are_really_checked():
    """With annotations as text, the hook of tests/conftest.py takes the fields of a linen module for Any."""
    for path in FILES:
        if is_model(path):
            assert "__future__.annotations" not in imported(path), name(path)


def test_lifted_transforms_only_in_the_stack():
    assert linen(PACKAGE / "backbones/stack.py") >= {"scan", "remat"}
    for path in FILES:
        if path.name != "stack.py":
            assert not LIFTED & (linen(path) or set()), name(path)


def test_attention_is_written_once():
    found = {name(path) for path in FILES if top(path) in MODEL and copies(path.read_text())}
    assert found == {"layers/attention.py"}, "call layers.attention.attend, or .weights"


COPIES = {
    "plain": "def f(q, k, v):\n return jnp.einsum(e, softmax(jnp.einsum(e, q, k)), v)",
    "weights alone": "def f(q, k):\n s = q @ k.T\n s = jnp.where(m, s, 0)\n return nn.softmax(s)",
    "in two methods": """
class A:
    def scores(self, x):
        q, k = nn.Dense(4)(x), nn.Dense(4)(x)
        return jnp.matmul(q, k.swapaxes(1, 2))
    def __call__(self, x):
        scores = self.scores(x) * self.scale
        return jax.nn.softmax(scores, axis=-1)""",
    "by hand": """
def f(q, k, v):
    scores = lax.dot_general(q, k, d)
    shares = jnp.exp(scores - scores.max(-1, keepdims=True))
    return shares / shares.sum(-1) @ v""",
    "a learned query": """
def f(self, x):
    scores = jnp.einsum("d,bnd->bn", self.param("query", init, (4,)), x)
    return jnp.einsum("bn,bnd->bd", nn.softmax(scores), x)""",
    "unpacked": "def f(qkv):\n return softmax(jnp.einsum(e, *qkv))",
    "ready made": "def f(x):\n return nn.SelfAttention(4)(x)",
    "imported": "def f(q, k, v):\n return dot_product_attention(q, k, v)",
}
OTHERS = {
    "classifier": "def f(self, x):\n return softmax(x @ self.param('w', init, (4, 2)))",
    "mix of layers": """
def f(self, layers):
    weights = softmax(self.param("weights", init, (len(layers),)))
    return jnp.einsum("lbmd,l->bmd", layers, weights)""",
    "codes": """
def f(self, x):
    books = self.param("book", init, (8, 4))
    return softmax(x @ books.T) @ books""",
    "logits of what attention gave": """
def f(self, x):
    mixed = attend(x, x, x) + jnp.einsum("bnd,bmd->bnm", x, x)
    return nn.softmax(nn.Dense(10)(mixed))""",
    "contrast": "def f(x, y):\n return log_softmax(jnp.einsum('id,jd->ij', x, y))",
}


@pytest.mark.parametrize("text", COPIES.values(), ids=COPIES)
def test_a_copy_of_attention_is_found(text):
    assert copies(text)


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_other_softmaxes_are_not_taken_for_attention(text):
    assert not copies(text)


def test_mesh_axes_are_made_in_one_place():
    says = [name(path) for path in FILES if "AxisType" in path.read_text()]
    assert says == ["distributed/sharding.py"]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_are_small_and_well_named(path):
    limit = {"train/step.py": 150, "train/loop.py": 250}.get(name(path), 400)
    assert len(path.read_text().splitlines()) <= limit
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    assert not {"utils", "helpers", "common", "misc", "util", "helper"} & set(parts)


def test_a_file_opens_with_at_most_five_lines_of_what_it_holds():
    for path in FILES:
        if path.name in ("__init__.py", "arrays.py"):  # the map of the tree, the glossary
            continue
        text = ast.get_docstring(tree(path))
        assert text and len(text.splitlines()) <= 5, name(path)
