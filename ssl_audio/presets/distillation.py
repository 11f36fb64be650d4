"""Config subtrees of distillation: teachers out of folders, which layer teaches which. For configs."""

from collections.abc import Mapping
from typing import Any

from ssl_audio.config import build
from ssl_audio.data import places
from ssl_audio.presets import runs
from ssl_audio.storage import written

UNTRAINED = "untrained"  # the teacher that stands in where none is named
FINAL = -1  # the layer after the last norm


def taught(
    student: Mapping[str, Any],
    folders: Mapping[str, str],
    count: int,
    *,
    hidden: int,
    tap: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Return what `distill_layers` needs beside the student.

    Args:
      student: the config of its encoder.
      folders: of the teachers, by name; none: an untrained network, which stands in for one.
      count: of the layers of each that teach, evenly spaced; its last one is the last of them. One that is no
        stack of equal layers teaches the student's last layer what it says in the end.
      hidden: width within the heads.
      tap: see `DistillLayers`.
      options: its others.
    """
    found = {name: _teacher(folder) for name, folder in folders.items()} or _stand_in()
    depth = layers(student)
    return dict(
        kind="distill_layers",
        teachers={name: teacher for name, (teacher, _) in found.items()},
        pairs={name: _pairs(depth, there, count) for name, (_, there) in found.items()},
        projector=dict(kind="projectors:Byol", hidden=hidden, norm=False),
        tap=tap,
        **options,
    )


def named(folders: str) -> dict[str, str]:
    """Return the folders of "FOLDER+FOLDER…" by the names that they have as places."""
    found: dict[str, str] = {}
    for folder in filter(None, folders.split("+")):
        found[places.another(folder, found)] = folder
    return found


def spread(student: int, teacher: int, count: int) -> tuple[tuple[int, int], ...]:
    """Return `count` pairs (student's layer, teacher's layer) at equal shares of both depths.

    Raises:
      ValueError: fewer layers than pairs.
    """
    least = min(student, teacher)
    if not 1 <= count <= least:
        raise ValueError(
            f"pairs={count}: the student has {student} layers, the teacher {teacher}; wanted 1 to {least}."
        )

    def nearest(depth: int, k: int) -> int:
        return (2 * k * depth + count) // (2 * count) - 1  # halves up

    return tuple((nearest(student, k), nearest(teacher, k)) for k in range(1, count + 1))


def layers(encoder: Mapping[str, Any]) -> int:
    """Return how many layers an encoder reports."""
    built: Any = build(dict(encoder), "backbones")
    return built.depth // built.block.layers


def _pairs(student: int, teacher: int, count: int) -> tuple[tuple[int, int], ...]:
    """Return the pairs with a teacher of so many equal layers."""
    return spread(student, teacher, count) if teacher else ((student - 1, FINAL),)


def _teacher(folder: str) -> tuple[dict[str, Any], int]:
    """Return the model of a folder, and how many equal layers it has."""
    encoder = written.architecture(folder)["encoder"]
    teacher = dict(kind="ssl_audio.inference.frozen:Frozen", path=folder)
    return teacher, layers(encoder) if "depth" in encoder and "block" in encoder else 0


def _stand_in() -> dict[str, tuple[dict[str, Any], int]]:
    """Return an untrained Transformer on the frames that the student hears."""
    frontend = dict(kind="fbank", bins=128)
    parts = runs.parts(
        frontend=frontend | dict(frames=1024), encoder="vit", size="mini", patch=(128, 2)
    )
    return {UNTRAINED: (parts | dict(kind="features", frontend=frontend), layers(parts["encoder"]))}
