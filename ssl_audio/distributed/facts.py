"""What must be the same in all processes of a run, compared."""

from collections.abc import Mapping


def differences(lead: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return "name: got X, process 0 has Y" for whatever is not the same."""
    return [
        f"{name}: got {other.get(name, 'nothing')}, process 0 has {lead.get(name, 'nothing')}"
        for name in sorted(lead.keys() | other.keys())
        if lead.get(name) != other.get(name)
    ]
