#!/usr/bin/env bash
# etils' epath on S3: once a folder was listed, what other processes write there does not exist, and cannot be read.
#
# Expected: `epath.Path("s3://…")` asks the store, as `pathlib` asks the file system; S3 itself has shown every
#   finished write to every reader since December 2020.
# Happens: after one `iterdir()` of a folder, for as long as the process lives: objects that another process writes
#   are not listed, `exists()` is False and reading them raises FileNotFoundError; one that it writes anew has its old
#   size, and reading it raises s3fs' FileExpired ("no longer exists"). And `stat().mtime` is 0 for every object.
# Why: epath makes its fsspec file system once and without options; s3fs then keeps listings and answers `info` from
#   them. epath reads the time from `info["mtime"]`, which s3fs calls `LastModified`.
# Matters: whoever waits for a file of another machine waits for ever; whoever compares times sees no change.
#   Ask fsspec for a file system with use_listings_cache=False instead.
# Versions: etils 1.15.0, s3fs and fsspec 2026.9.0, moto 5.2.5 (a server of the protocol); Python 3.11.
# Source: epath/backend.py of etils (_FileSystemSpecBackend: _get_filesystem, stat); fsspec's page on listings caching.
# Output seen:
#   listed ['a.txt'] exists False size 1 mtime 0
#   new: FileNotFoundError; written anew: FileExpired
#   without a cache of listings: ['a.txt', 'b.txt'] 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  'etils[epath]==1.15.0' s3fs==2026.9.0 fsspec==2026.9.0 'moto[server]==5.2.5' || exit 2
cat > look.py <<'PY'
import os
import socket
import subprocess
import sys
import time

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
os.environ |= {
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
}
OTHER = """
from etils import epath
epath.Path("s3://bucket/set/b.txt").write_text("bb")
epath.Path("s3://bucket/set/a.txt").write_text("aaaa")
"""


def reading(path):
    try:
        return path.read_text()
    except OSError as error:
        return type(error).__name__


server = subprocess.Popen(
    [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
try:
    for _ in range(600):
        with socket.socket() as attempt:
            if not attempt.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.1)
    import fsspec
    from etils import epath

    fsspec.filesystem("s3").mkdir("bucket")
    root = epath.Path("s3://bucket/set")
    (root / "a.txt").write_text("a")
    list(root.iterdir())
    subprocess.run([sys.executable, "-c", OTHER], check=True)
    names, there = [path.name for path in root.iterdir()], (root / "b.txt").exists()
    about = (root / "a.txt").stat()
    print("listed", names, "exists", there, "size", about.length, "mtime", about.mtime)
    new, anew = reading(root / "b.txt"), reading(root / "a.txt")
    print(f"new: {new}; written anew: {anew}")
    fresh = fsspec.filesystem("s3", use_listings_cache=False)
    seen = sorted(path.rpartition("/")[2] for path in fresh.ls("bucket/set", detail=False))
    size = fresh.size("bucket/set/a.txt")
    print("without a cache of listings:", seen, size)
finally:
    server.terminate()
    server.wait()
found = (names, there, about.length, about.mtime, new, anew, seen, size)
wanted = (["a.txt"], False, 1, 0, "FileNotFoundError", "FileExpired", ["a.txt", "b.txt"], 4)
print("as described" if found == wanted else f"changed: {found}")
sys.exit(found != wanted)
PY
venv/bin/python look.py
