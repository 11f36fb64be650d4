"""An object store in memory, found under gs://bucket by all that reads and writes such addresses."""

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """Objects of this process; listings as other stores give them."""

    protocol = ("gs", "gcs")
    store: dict = {}
    pseudo_dirs = [""]
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("gs://", "memory://", 1))


def install(monkeypatch, tmp_path) -> dict:
    """Put an empty store behind gs:// and return name → object."""
    monkeypatch.setenv("EPATH_USE_TF", "false")
    monkeypatch.setenv("SSL_AUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fsspec, "filesystem", lambda name, **_: Bucket())
    monkeypatch.setattr(Bucket, "store", {})
    monkeypatch.setattr(Bucket, "pseudo_dirs", [""])
    from etils.epath import backend

    monkeypatch.setattr(
        backend._FileSystemSpecBackend, "_get_filesystem", lambda self, name: Bucket()
    )
    return Bucket.store
