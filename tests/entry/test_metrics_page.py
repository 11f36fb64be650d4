"""Every metric that a run can write is explained in docs/metrics.md."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def metrics(path):
    """Return the keys of pairs (sum, weight) in a file, and of what is put into `metrics` or `report`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Dict):
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


def test_every_metric_is_explained():
    files = [*(ROOT / "ssl_audio" / "objectives").glob("*.py"), ROOT / "ssl_audio/train/record.py"]
    found = {name for path in files for name in metrics(path) if isinstance(name, str)}
    assert {"nce", "mse", "spread", "scale", "codes_in_use", "clips_per_second"} <= found
    assert not {name for name in found if f"`{name}`" not in PAGE}
