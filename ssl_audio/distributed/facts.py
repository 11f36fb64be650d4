"""What must be the same in two places, compared: in the processes of a run, in a saved program and here."""

from collections.abc import Mapping


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (name, what one has, what the other has) where they are not the same; "nothing": it lacks it."""
    return [
        (name, one.get(name, "nothing"), other.get(name, "nothing"))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]
