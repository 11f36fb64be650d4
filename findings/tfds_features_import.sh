#!/usr/bin/env bash
# TFDS builder_from_directory: a prepared dataset's features.json names a module, and reading the folder imports it.
#
# Expected: a prepared dataset is data: opening its folder with `builder_from_directory` reads JSON and runs nothing.
# Happens: `pythonClassName` of every feature is split at its last dot and the first part is imported, whatever package
#   it is of, before it is known whether it is a feature. The current directory counts in a notebook or with
#   `python -c`. Only then comes the error that the class is not a feature; the module's code has run.
# Matters: whoever reads prepared datasets of others. Look at the JSON first: names outside tensorflow_datasets.
# Versions: tensorflow-datasets 4.9.10, array_record 0.8.6, numpy 2.4.6; Python 3.11. TensorFlow is not installed.
# Source: tensorflow_datasets/core/features/feature.py, cls_from_name, whose comment calls it the import of custom
#   feature connectors; the guide to custom features says nothing of folders that come from others.
# Output seen:
#   imported before: False
#   error: ValueError
#   imported after: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  tensorflow-datasets==4.9.10 numpy==2.4.6 || exit 2
echo 'seen = True' > bystander.py
cat > look.py <<'PY'
import json
import pathlib
import sys

import numpy as np
import tensorflow_datasets as tfds

changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


with tfds.core.registered.skip_registration():

    class Few(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = pathlib.Path.cwd()
        code_path = None

        def _info(self):
            features = tfds.features.FeaturesDict({"x": tfds.features.Scalar(np.int64)})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": iter([(0, {"x": 1})])}

        def _generate_examples(self):
            return []


Few.name = "few"
made = Few(data_dir="data", file_format="array_record")
made.download_and_prepare()
path = pathlib.Path(made.data_path) / "features.json"
found = json.loads(path.read_text())
for feature in found["featuresDict"]["features"].values():
    feature["pythonClassName"] = "bystander.Feature"
path.write_text(json.dumps(found))

expect("imported before", "bystander" in sys.modules, "bystander" not in sys.modules)
try:
    tfds.builder_from_directory(made.data_path)
    error = "none"
except ValueError as raised:
    error = type(raised).__name__
expect("error", error, error == "ValueError")
expect("imported after", "bystander" in sys.modules, "bystander" in sys.modules)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python look.py 2> log || { status=$?; tail -n 5 log >&2; exit "$status"; }
