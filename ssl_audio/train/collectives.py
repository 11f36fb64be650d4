"""What devices exchange in one run of a compiled program, read from its text (HLO).

XLA prints the body of a loop once; this follows the calls from the entry, so that a collective in the loop
over the layers counts once for each layer.
"""

import dataclasses
import functools
import math
import re

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# An asynchronous start returns operands and results in one tuple, but for this one.
RESULTS_ONLY = "all-reduce-start"
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?[\w.-]+ = (.*)")
COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+)(?: \(.*)? \{$")
SHAPE = re.compile(r"([a-z]+)(\d+)?\w*\[([\d,<=]*)\]")
CALLED = {
    "while": r"(?:body|condition)=%?([\w.-]+)",
    "call": r"to_apply=%?([\w.-]+)",
    "conditional": r"(?:true|false)_computation=%?([\w.-]+)|branch_computations=\{([^}]*)\}",
    "fusion": r"calls=%?([\w.-]+)",
    "async-start": r"calls=%?([\w.-]+)",
}


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A collective of a program.

    Attributes:
      kind: one of KINDS.
      bytes: on one device, of its results; of a reduce-scatter, of what it adds up, so that it compares
        with the all-reduce that does the same to a whole array.
      shape: of its largest result, as "f32[8,16]".
      devices: that exchange with each other.
    """

    kind: str
    bytes: int
    shape: str
    devices: int


@dataclasses.dataclass(frozen=True)
class Traffic:
    """All collectives of one run of a program.

    Attributes:
      kinds: kind → (times that they run, bytes of all of them on one device).
      widest: kind and shape of the largest.
      uncounted: loops with collectives whose number of turns the text does not tell; they count as one.
    """

    kinds: dict[str, tuple[int, int]]
    widest: str
    uncounted: int


@dataclasses.dataclass
class _Computation:
    exchanges: list[Exchange] = dataclasses.field(default_factory=list)
    calls: list[tuple[tuple[str, ...], int | None, bool]] = dataclasses.field(default_factory=list)


def read(text: str) -> Traffic:
    """Return the traffic of a compiled program from `compiled.as_text()`.

    A group of one device exchanges nothing and does not count; of the branches of a conditional the one
    with the most bytes counts; an asynchronous pair of start and done counts once.
    """
    computations, entry = _parse(text)

    @functools.cache
    def total(name: str) -> tuple[tuple[tuple[Exchange, int], ...], int]:
        found, uncounted = [(each, 1) for each in computations[name].exchanges], 0
        for names, times, one in computations[name].calls:
            each = [total(inner) for inner in names if inner in computations]
            if one:
                each = sorted(each, key=lambda t: sum(e.bytes * n for e, n in t[0]))[-1:]
            inside = [pair for pairs, _ in each for pair in pairs]
            uncounted += sum(number for _, number in each) + bool(inside and times is None)
            found += [(exchange, n * (times or 1)) for exchange, n in inside]
        return tuple(found), uncounted

    pairs, uncounted = total(entry)
    kinds: dict[str, tuple[int, int]] = {}
    for exchange, times in pairs:
        number, size = kinds.get(exchange.kind, (0, 0))
        kinds[exchange.kind] = number + times, size + times * exchange.bytes
    largest = max((exchange for exchange, _ in pairs), key=lambda e: e.bytes, default=None)
    widest = f"{largest.kind} {largest.shape}" if largest else ""
    return Traffic(kinds, widest, uncounted)


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
    """Return name → computation, and the name of the entry.

    Raises:
      ValueError: the text has no entry, so it is no program.
    """
    size = re.search(r"num_partitions=(\d+)", text), re.search(r"replica_count=(\d+)", text)
    devices = math.prod(int(found[1]) for found in size if found)
    computations: dict[str, _Computation] = {}
    entry, current = "", _Computation()
    for line in text.splitlines():
        if begun := COMPUTATION.match(line):
            current = computations[begun[2]] = _Computation()
            entry = begun[2] if begun[1] else entry
        elif instruction := INSTRUCTION.match(line):
            _read_instruction(instruction[1], current, devices)
    if not entry:
        raise ValueError("the program's text has no line that begins with ENTRY; wanted HLO.")
    return computations, entry


def _read_instruction(text: str, into: _Computation, devices: int) -> None:
    end = _type_end(text)
    shapes, (operation, _, rest) = text[:end], text[end:].strip().partition("(")
    kind = operation.removesuffix("-start")
    if kind in KINDS:
        group = _group(rest, devices)
        if group > 1:
            into.exchanges.append(_exchange(kind, shapes, operation, group))
    elif operation in CALLED:
        found = re.findall(CALLED[operation], rest)
        names = ", ".join(" ".join(each) if isinstance(each, tuple) else each for each in found)
        called = tuple(name.strip().lstrip("%") for name in names.split(",") if name.strip())
        times: int | None = 1
        if operation == "while":
            count = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
            times = int(count[1]) if count else None
        into.calls.append((called, times, operation == "conditional"))


def _type_end(text: str) -> int:
    """Return where the type at the start of an instruction ends: a shape, or shapes in brackets."""
    if not text.startswith("("):
        return text.find(" ")
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return at + 1
    return len(text)


def _exchange(kind: str, shapes: str, operation: str, group: int) -> Exchange:
    if operation.endswith("-start") and operation != RESULTS_ONLY and shapes.startswith("("):
        parts = _parts(shapes)
        shapes = parts[1] if len(parts) > 1 else shapes
    found = [
        (math.prod(int(n) for n in dims.replace("<=", "").split(",") if n), name, bits, dims)
        for name, bits, dims in SHAPE.findall(shapes)
    ]
    sizes = [count * max(int(bits or 8), 8) // 8 for count, _, bits, _ in found]
    _, name, bits, dims = found[sizes.index(max(sizes))]
    scale = group if kind == "reduce-scatter" else 1
    return Exchange(kind, scale * sum(sizes), f"{name}{bits}[{dims}]", group)


def _parts(shapes: str) -> list[str]:
    """Return the members of a tuple type, which may be tuples themselves."""
    found, depth, begun = [], 0, 1
    for at, letter in enumerate(shapes):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or depth == 0:
            found.append(shapes[begun:at].strip())
            begun = at + 1
    return found


def _group(attributes: str, devices: int) -> int:
    """Return how many devices exchange with each other; all of them where the text says nothing else.

    XLA writes groups as lists, {{0,1},{2,3}}; as a reshaped range, [2,4]<=[4,2]T(1,0), of which the last
    number before the arrow is the size; and as axes of a mesh, mesh['a'=8,'b'=2] {'a'}, or parts of axes,
    {'a':(2)4}, the part of size 4 below one of size 2.
    """
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\s*\d+\},?\s*)*)\}", attributes):
        found = re.findall(r"\{(\d+),\s*(\d+)\}", pairs[1])
        return 2 if any(source != target for source, target in found) else 1
    if lists := re.search(r"replica_groups=\{(\{[\d,{}\s]*\})\}", attributes):
        return max(len(re.findall(r"\d+", group)) for group in lists[1].split("}"))
    if reshaped := re.search(r"replica_groups=\[([\d,]+)\]<=", attributes):
        return int(reshaped[1].split(",")[-1])
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = {
            name: int(size) for name, size in re.findall(r"['\"]([^'\"]+)['\"]=(\d+)", mesh[1])
        }
        axes = re.findall(r"['\"]([^'\"]+)['\"](?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part) if part else sizes[name] for name, part in axes)
    return devices
