"""The benchmarks: floors, counts, tables, the check of ratios, and each command on something tiny."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.bench import command as bench
from ssl_audio.bench import formulations, measure, peers, scan


def test_counts_matrix_products_also_in_loops():
    def layers(x, w):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        return jax.lax.scan(jax.checkpoint(layer), x, w)[0]

    x, w = jnp.ones((3, 4)), jnp.ones((5, 4, 4))
    assert measure.matmul_flops(layers, x, w) == 5 * 2 * 3 * 4 * 4
    gradient = measure.matmul_flops(jax.grad(lambda w: jnp.sum(layers(x, w))), w)
    assert gradient >= 3 * 5 * 2 * 3 * 4 * 4


def record(**changes):
    labels = dict(implementation="xla", length=8)
    return labels | dict(seconds=2.0, cpu_ratio=1.0, temp_bytes=1e6, repeats=3) | changes


def test_check_compares_ratios_not_times(tmp_path):
    path = str(tmp_path / "past.json")
    measure.save([record(), record(length=16)], path)
    assert not measure.check([record(seconds=99.0, cpu_ratio=1.4)], path, 1.5)
    (line,) = measure.check([record(cpu_ratio=1.6)], path, 1.5)
    assert line == "xla, 8: cpu_ratio 1.6, was 1"
    (line,) = measure.check([record(temp_bytes=2e6)], path, 1.5)
    assert "temp_bytes 2e+06" in line
    with pytest.raises(ValueError, match="no row in common"):
        measure.check([record(length=3)], path, 1.5)


def test_rows_are_interleaved_and_related_to_the_first_of_their_group():
    order = []
    rows = [
        measure.Row({"name": name}, lambda n=name: order.append(n), (0,), items=2) for name in "ab"
    ]
    found = measure.measure(rows, 3, 60)
    assert order == list("ab") * 4, "and warmed up"
    assert found[0]["ratio"] == 1 and found[1]["per_second"] > 0
    assert measure.table(found).splitlines()[0].startswith("| name | s | cpu s | ratio |")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_memory_that_xla_does_not_know_of_is_seen():
    peak = measure.peak_memory(lambda: np.ones(2**26, np.uint8).sum())
    assert peak is not None and 2**26 * 0.9 < peak < 2**27


def test_other_formulations_are_the_same_recurrence():
    g = np.random.default_rng(0)
    u, B, C = (g.standard_normal((2, 9, n)).astype(np.float32) for n in (3, 4, 4))
    delta = np.logaddexp(0, g.standard_normal(u.shape)).astype(np.float32)
    A = -np.exp(g.standard_normal((3, 4))).astype(np.float32)
    operands = tuple(map(jnp.asarray, (u, delta, A, B, C)))

    def all_of_them(*x):
        chunked = formulations.chunked(*x, size=4)
        return scan.selective_scan(*x, delta_softplus=False), formulations.associative(*x), chunked

    ours, *others = jax.jit(all_of_them)(*operands)
    for other in others:
        np.testing.assert_allclose(other, ours, rtol=0, atol=1e-5)
    torch = pytest.importorskip("torch")
    y = formulations.torch_scan(*(torch.from_numpy(x) for x in (u, delta, A, B, C)))
    np.testing.assert_allclose(y.numpy(), ours, rtol=0, atol=1e-5)


TINY = ["--repeats", "1", "--seconds", "0"]


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        ("scan --implementation xla,chunked --length 4 --channels 2 --states 2 --batch 1", 4),
        ("inference --tokens 16 --depth 2 --encoder ssast:implementation=blockwise", 1),
        ("input --batch 2 --seconds-each 0.2 --threads 0", 1),
        ("peers --part frontend,input --files 16", None),
    ],
)
def test_commands_print_a_table_and_write_json(command, rows, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "copy_bandwidth", lambda: 1e9)
    monkeypatch.setattr(measure, "matmul_rate", lambda: 1e9)
    path = str(tmp_path / "rows.json")
    drawn = [] if "input" in command else ["--figure", str(tmp_path / "rows.png")]
    found = bench.main([*command.split(), *TINY, "--json", path, *drawn])
    assert (tmp_path / "rows.png").exists() == bool(drawn)
    assert len(found) == (rows or len(found)) >= 1
    assert all(r["seconds"] > 0 for r in found)
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == len(found) + 2
    with open(path) as file:
        assert json.load(file)["rows"] == found


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="--implementation: got 'fast'"):
        bench.main(["scan", "--implementation", "fast", "--length", "2"])
    with pytest.raises(ValueError, match="--figure: input has one length only"):
        bench.main("input --batch 1 --seconds-each 0.1 --threads 0 --figure x".split() + TINY)
    with pytest.raises(ValueError, match="--tokens: got 12, wanted a multiple of 8"):
        bench.main(["inference", "--tokens", "12"])
    with pytest.raises(ValueError, match="--part: got 'frontends', wanted some of embed, frontend"):
        bench.main(["peers", "--part", "frontends"])
    with pytest.raises(ValueError, match="--files 3: 3 audio files; wanted 16 or more"):
        bench.main(["peers", "--part", "input", "--files", "3"])


def test_a_peer_that_is_missing_is_named_with_the_command(monkeypatch, caplog):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    rows = peers.rows(bench.parser().parse_args("peers --part embed,frontend,input".split()))
    assert {row.labels["by"] for row in rows} == {"ssl_audio", "ssl_audio, 8 threads"}
    assert "not installed: kaldi-native-fbank. Try pip install 'ssl_audio[peers]'" in caplog.text
    assert "not installed: torch, transformers" in caplog.text
    with pytest.raises(ValueError, match="peers: nothing to measure"):
        bench.main(["peers", "--part", "embed"])


def test_peers_compute_the_same_and_come_first_in_their_group():
    """So a ratio that rises, as `--check` looks for, means that we became slower."""
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    options = "peers --part embed,step --size mini --files 16 --depth 1 --frames 64 --encoder ssast"
    first = {}
    for row in peers.rows(bench.parser().parse_args(options.split())):
        first.setdefault(row.group, row.labels["by"])
    assert len(first) == 4 and "ssl_audio" not in first.values()
