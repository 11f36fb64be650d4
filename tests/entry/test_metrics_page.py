"""Every metric that a run can write is explained in docs/metrics.md."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def metrics(path):
    """Return the keys of pairs (sum, weight) in a file, and of what is put into `metrics` or `report`."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    # `Loss.means` are terms of the loss, for accumulation: nobody sees their names.
    terms = [n.value for n in nodes if isinstance(n, ast.keyword) and n.arg == "means"]
    if any(isinstance(term, ast.Name) for term in terms):
        terms += [n.value for n in nodes if isinstance(n, ast.Assign) and _is_means(n.targets[0])]
    inner = {id(x) for term in terms for x in ast.walk(term)}
    for node in nodes:
        if isinstance(node, ast.Dict) and id(node) not in inner:
            for key, value in zip(node.keys, node.values, strict=True):
                if (
                    isinstance(value, ast.Tuple)
                    and len(value.elts) == 2
                    and isinstance(key, ast.Constant)
                ):
                    yield key.value
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            holder, key = node.targets[0].value, node.targets[0].slice
            named = isinstance(holder, ast.Name) and holder.id in ("metrics", "means")
            if named and isinstance(key, ast.Constant):
                yield key.value


def _is_means(target):
    return isinstance(target, ast.Name) and target.id == "means"


def test_every_metric_is_explained():
    files = [*(ROOT / "ssl_audio" / "objectives").glob("*.py"), ROOT / "ssl_audio/train/record.py"]
    found = {name for path in files for name in metrics(path) if isinstance(name, str)}
    assert {"nce", "mse", "spread", "scale", "codes_in_use", "clips_per_second"} <= found
    assert not {name for name in found if f"`{name}`" not in PAGE}
