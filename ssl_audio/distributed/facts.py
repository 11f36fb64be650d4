"""What decides the results of a run beside its config: code and versions, compared between processes."""

import hashlib
import pathlib
from collections.abc import Mapping

from ssl_audio import versions


def code() -> dict[str, str]:
    """Return what computes a run: a digest of every file of the package, and the versions beside it."""
    root = pathlib.Path(__file__).parent.parent
    digests = {
        f"code of {path.relative_to(root).as_posix()}": hashlib.sha256(
            path.read_bytes()
        ).hexdigest()[:8]
        for path in sorted(root.rglob("*.py"))
    }
    return digests | {
        f"version of {name}": version for name, version in versions.versions().items()
    }


def differences(lead: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return "name: got X, process 0 has Y" for whatever is not the same."""
    return [
        f"{name}: got {other.get(name, 'nothing')}, process 0 has {lead.get(name, 'nothing')}"
        for name in sorted(lead.keys() | other.keys())
        if lead.get(name) != other.get(name)
    ]
