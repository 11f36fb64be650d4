"""What devices exchange, read from the text of compiled programs."""

import subprocess
import sys

import pytest
from reference import ROOT

from ssl_audio.train import collectives

HEAD = "HloModule jit_step, is_scheduled=true, num_partitions=8\n\n"


def program(*lines, more=""):
    body = "\n".join(f"  {line}" for line in lines)
    return f"{HEAD}{more}\nENTRY %main (p: f32[4]) -> f32[4] {{\n{body}\n}}\n"


def test_results_are_added_up_by_kind():
    found = collectives.read(
        program(
            "%a = f32[8,16]{1,0} all-gather(%x), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}",
            "%b = (f32[4]{0}, /*index=1*/bf16[2,2]{1,0:T(8,128)}) all-reduce(%y, %z), replica_groups={}",
            "%c = pred[4]{0} all-reduce(%y), replica_groups={{0,1},{2,3}}",
            "%d = f32[4]{0} add(%y, %all-reduce)",
            "%e = f8e4m3fn[64]{0} all-to-all(%y), replica_groups={{0,1},{2,3}}",
        )
    )
    assert found.kinds == {
        "all-gather": (1, 512),
        "all-reduce": (2, 16 + 8 + 4),
        "all-to-all": (1, 64),
    }
    assert found.widest == "all-gather f32[8,16]"


@pytest.mark.parametrize(
    "groups, size",
    [
        ("{{0},{1},{2},{3}}", 1),
        ("{{0,4},{1,5},{2,6},{3,7}}", 2),
        ("{}", 8),
        ("[8,1]<=[8]", 1),
        ("[2,4]<=[8]", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("mesh['axis_0'=8,'axis_1'=1] {'axis_0'}", 8),
        ("mesh['axis_0'=8,'axis_1'=1] {'axis_1'}", 1),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", 8),
        ("mesh['axis_0'=2,'axis_1'=4], device_ids=([4,2]T(1,0)) {'axis_1'}", 4),
        ("mesh['axis_0'=8] {'axis_0':(2)4}", 4),
    ],
)
def test_every_way_to_write_groups(groups, size):
    line = f"%a = f32[16]{{0}} reduce-scatter(%x), replica_groups={groups}, dimensions={{0}}"
    found = collectives.read(program(line))
    # Of a reduce-scatter what it adds up counts: as many times its result as a group has devices.
    assert found.kinds == ({"reduce-scatter": (1, size * 64)} if size > 1 else {})


def test_pairs_count_unless_each_device_keeps_its_own():
    line = "%a = f32[16]{{0}} collective-permute(%x), channel_id=1, source_target_pairs={}"
    assert collectives.read(program(line.format("{{0,1},{1,0}}"))).kinds == {
        "collective-permute": (1, 64)
    }
    assert collectives.read(program(line.format("{{0,0},{1,1}}"))).kinds == {}


def test_an_asynchronous_pair_counts_once_and_without_its_operand():
    wrapped = (
        "%wrapped (p.1: f32[8]) -> f32[2] {\n"
        "  ROOT %s = f32[2]{0} reduce-scatter(%p.1), replica_groups=[2,4]<=[8], dimensions={0}\n}\n"
    )
    found = collectives.read(
        program(
            "%a = (f32[2]{0}, f32[16]{0}) all-gather-start(%x), replica_groups=[1,8]<=[8]",
            "%b = f32[16]{0} all-gather-done(%a)",
            "%c = (f32[4]{0}, f32[2]{0}) all-reduce-start(%x, %y), replica_groups=[1,8]<=[8]",
            "%d = (f32[4]{0}, f32[2]{0}) all-reduce-done(%c)",
            "%e = ((f32[4]{0}, f32[4]{0}), (f32[32]{0}, f32[32]{0})) all-gather-start(%x, %y), "
            "replica_groups=[1,8]<=[8]",
            "%f = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%x), "
            "source_target_pairs={{0,1},{1,0}}",
            "%g = f32[4]{0} collective-permute-done(%f)",
            "%h = ((f32[8]{0}), f32[2]{0}, u32[]) async-start(%x), calls=%wrapped",
            "%i = f32[2]{0} async-done(%h), calls=%wrapped",
            more=wrapped,
        )
    )
    assert found.kinds == {
        "all-gather": (2, 64 + 256),
        "all-reduce": (1, 24),
        "collective-permute": (1, 16),
        "reduce-scatter": (1, 32),
    }


BODY = """%inner (p.0: f32[4]) -> f32[4] {
  ROOT %r = f32[4]{0} all-reduce(%p.0), replica_groups=[1,8]<=[8], to_apply=%add
}
%outer (p.1: f32[4]) -> f32[4] {
  ROOT %w.1 = f32[4]{0} while(%p.1), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
}
%c (p.2: f32[4]) -> pred[] {
  ROOT %k = pred[] constant(true)
}
"""


def test_loops_count_as_often_as_they_turn_and_branches_as_the_largest():
    turns = '"known_trip_count":{"n":"12"},"known_induction_variable":{"tuple_index":"0"}'
    loop = f"%w = f32[4]{{0}} while(%x), condition=%c, body=%outer, backend_config={{{turns}}}"
    assert collectives.read(program(loop, more=BODY)).kinds == {"all-reduce": (36, 36 * 16)}
    either = "%w = f32[4]{0} conditional(%i, %x, %y), branch_computations={%c, %inner, %outer}"
    assert collectives.read(program(either, more=BODY)).kinds == {"all-reduce": (3, 48)}
    either = "%w = f32[4]{0} conditional(%i, %x, %y), true_computation=%c, false_computation=%inner"
    assert collectives.read(program(either, more=BODY)).kinds == {"all-reduce": (1, 16)}
    call = "%w = f32[4]{0} call(%x), to_apply=%inner"
    assert collectives.read(program(call, more=BODY)).kinds == {"all-reduce": (1, 16)}


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    loop = "%w = f32[4]{0} while(%x), condition=%c, body=%inner"
    found = collectives.read(program(loop, more=BODY))
    assert found.kinds == {"all-reduce": (1, 16)} and found.uncounted == 1
    silent = "%w = f32[4]{0} while(%x), condition=%c, body=%c"
    assert collectives.read(program(silent, more=BODY)).uncounted == 0


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no line that begins with ENTRY"):
        collectives.read("module @jit_step {}")


@pytest.mark.multi
def test_a_program_that_xla_has_compiled():
    """Rows of x times w, summed over the rows of all devices: once for each of five turns, and once more."""
    found = subprocess.run(
        [sys.executable, "-c", SCAN], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.split() == ["6", str(4 * (5 * 3 * 3 + 1))], found.stdout


SCAN = """
import jax, jax.numpy as jnp
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
from jax.sharding import NamedSharding, PartitionSpec as P
from ssl_audio.train import collectives
mesh = jax.make_mesh((4,), ("data",))
rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

def step(x, w):
    def turn(x, w):
        return jnp.tanh(x @ w), x.T @ x  # the second is summed over all rows
    x, sums = jax.lax.scan(turn, x, w)
    return sums, jnp.sum(x)

text = jax.jit(step, in_shardings=(rows, whole), out_shardings=(whole, whole)).lower(
    jnp.ones((8, 3)), jnp.ones((5, 3, 3))).compile().as_text()
found = collectives.read(text)
print(*found.kinds["all-reduce"])
"""
