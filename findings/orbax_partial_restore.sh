#!/usr/bin/env bash
# Orbax partial_restore: a parameter that is not in the checkpoint keeps the template's value, with no error.
#
# Expected: `partial_restore=True` leaves out what the checkpoint has more than the template asks for (a head, an
#   optimiser). A name that the template asks for and the checkpoint lacks is an error, as it is without the flag.
# Happens: such a name is skipped too, without an error or a warning. With arrays as the template (a fresh init) the
#   result holds the fresh random values beside the trained ones; with shapes only it holds a ShapeDtypeStruct,
#   which fails much later. Even if no name fits, the template comes back as if it had been read. The error raised
#   without the flag is what recommends the flag. The same in the v1 interface (`partial_load=True`).
#   Besides, the shape and dtype of the template count for nothing in a PyTreeRestore without restore_args: asking
#   for bfloat16 [5, 7] gives float32 [2, 3]; a StandardRestore of the same file casts, and refuses the shape.
# Matters: loading an encoder out of a training checkpoint after a layer was renamed: fine-tuning starts from
#   random weights in that layer and only the score tells. Compare the key paths with the metadata first.
# Versions: orbax-checkpoint 0.12.8, jax 0.10.2, numpy 2.4.6; Python 3.11.
# Source: Orbax's model surgery page, which speaks of loading a strict part of what is saved; the reference of v1's
#   load, by which the result has the template's structure and leaves, or an error is raised; the base PyTree
#   handler's source, whose partial step takes the parameters that both sides have and leaves the others alone.
# Output seen:
#   without the flag: ValueError
#   with it, trained kernel: 1.0
#   with it, renamed bias: 9.0
#   warnings that name it: 0
#   with shapes as the template: ShapeDtypeStruct
#   no name fits: 9.0
#   v1, partial_load: 9.0
#   asked bfloat16 [5, 7], PyTreeRestore: ('float32', (2, 3))
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import logging
import pathlib
import sys
import warnings

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import v1

logging.disable(logging.ERROR)  # Orbax logs each step of a save
changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def attempt(call):
    try:
        return call()
    except ValueError as error:
        return error


folder = pathlib.Path.cwd() / "saved"
trained = {
    "encoder": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "head": {"kernel": jnp.ones(2)},
}
reader = ocp.PyTreeCheckpointer()
reader.save(folder, trained)


def read(template, **options):
    return reader.restore(folder, args=ocp.args.PyTreeRestore(item=template, **options))


# The model renamed `bias` to `offset`; 9 stands for its fresh random values.
fresh = {"encoder": {"kernel": jnp.full((2, 3), 9.0), "offset": jnp.full(3, 9.0)}}
shapes = jax.eval_shape(lambda: fresh)

refused = attempt(lambda: read(fresh))
expect(
    "without the flag",
    type(refused).__name__,
    isinstance(refused, ValueError) and "partial_restore" in str(refused),
)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    got = read(fresh, partial_restore=True)["encoder"]
about = [w for w in caught if "offset" in str(w.message)]
expect("with it, trained kernel", float(got["kernel"].max()), (got["kernel"] == 1).all())
expect("with it, renamed bias", float(got["offset"].max()), (got["offset"] == 9).all())
expect("warnings that name it", len(about), not about)
got = read(shapes, partial_restore=True)["encoder"]["offset"]
expect("with shapes as the template", type(got).__name__, isinstance(got, jax.ShapeDtypeStruct))
got = read({"backbone": jnp.full(3, 9.0)}, partial_restore=True)
expect("no name fits", float(got["backbone"].max()), (got["backbone"] == 9).all())

loading = v1.options.PyTreeOptions.Loading(partial_load=True)
with v1.Context(pytree_options=v1.options.PyTreeOptions(loading=loading)):
    got = v1.load_pytree(folder, fresh)["encoder"]["offset"]
expect("v1, partial_load", float(got.max()), (got == 9).all())

asked = {"encoder": {"kernel": jax.ShapeDtypeStruct((5, 7), jnp.bfloat16)}}
got = read(asked, partial_restore=True)["encoder"]["kernel"]
expect(
    "asked bfloat16 [5, 7], PyTreeRestore",
    (got.dtype.name, got.shape),
    (got.dtype, got.shape) == (jnp.float32, (2, 3)),
)
half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), trained)
got = read(half)["encoder"]["kernel"].dtype
expect("asked bfloat16 of all, PyTreeRestore", got.name, got == jnp.float32)
got = ocp.StandardCheckpointer().restore(folder, half)["encoder"]["kernel"].dtype
expect("asked bfloat16 of all, StandardCheckpointer", got.name, got == jnp.bfloat16)
half["encoder"]["kernel"] = jax.ShapeDtypeStruct((5, 7), jnp.bfloat16)
got = attempt(lambda: ocp.StandardCheckpointer().restore(folder, half))
expect("asked [5, 7], StandardCheckpointer", type(got).__name__, isinstance(got, ValueError))
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py 2> log || { status=$?; tail -n 5 log >&2; exit "$status"; }
