"""Look at, listen to and label a collection of sounds in a browser: ssl-audio explore INDEX

INDEX: a folder that `ssl-audio search index` wrote, a run's workdir with one in W/index, or a table
.parquet or .npz of `ssl-audio embed`. The server answers this machine only, and stops with Ctrl-C.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import pathlib
import secrets
import socket
import sys
import webbrowser
from collections.abc import Sequence
from typing import Any

from ssl_audio import startup

log = logging.getLogger("ssl_audio")

HOST = "127.0.0.1"


def parser(verb: str = "explore", doc: str | None = __doc__) -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio explore`."""
    made = startup.parser(verb, doc)
    made.add_argument(
        "place", metavar="INDEX", help="an index, a run's workdir, or a table of embed"
    )
    made.add_argument(
        "--labels", metavar="FILE.csv",
        help="where labels are read and written; default: labels.csv in the index or beside the table",
    )  # fmt: skip
    made.add_argument(
        "--checkpoint", metavar="RUN",
        help="the model that made a table: to search it by words or by a file",
    )  # fmt: skip
    made.add_argument(
        "--map", choices=("tsne", "umap", "pca"), default="tsne", help="how the map is computed"
    )
    made.add_argument("--port", type=int, default=0, help="default: any that is free")
    made.add_argument("--no-browser", action="store_true", help="only print the address")
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and serve until Ctrl-C."""
    args = parser().parse_args(argv)
    if not 0 <= args.port <= 65535:
        parser().error(f"--port {args.port}: wanted 0 to 65535")
    serve(args)


def serve(args: argparse.Namespace, learner: Any = None) -> None:
    """Serve the page of what the command line names.

    Args:
      args: as `parser` makes them.
      learner: a function of vectors [N, D] that makes a learner (`eval/learner.py`); None: none.

    Raises:
      ValueError: nothing to show there; the port is taken.
      RuntimeError: a package is missing.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError:
        raise RuntimeError(
            "this page needs Starlette and Uvicorn: pip install 'ssl_audio[explore]'."
        ) from None
    from ssl_audio.explore import collection, labels, projection, server, sounds

    listening = _listen(args.port)  # before anything that takes time
    try:
        shown = collection.read(args.place, args.checkpoint, args.trust)
        path = pathlib.Path(args.labels).expanduser() if args.labels else shown.beside("labels.csv")
        given = labels.Labels(path.absolute(), shown.rows, shown.numbers)
        drawn = projection.Projection(shown.vectors, shown.beside("map.npz"), args.map)
        made = sounds.Sounds()
        try:
            page = server.Page(shown, given, drawn, made, learner and learner(shown.vectors))
            token = secrets.token_urlsafe(24)
            url = f"http://{HOST}:{listening.getsockname()[1]}/{token}/"
            drawn.start(made.warm)
            print(f"{shown.place}: {len(shown):,} rows. Open {url} (Ctrl-C ends)", flush=True)
            if not args.no_browser:
                _open(url)
            options: Any = {"log_level": "warning", "access_log": False, "server_header": False}
            config = uvicorn.Config(server.app(page, token), lifespan="off", **options)
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            drawn.stop()
            made.close()
    finally:
        listening.close()


def _listen(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen(128)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"--port {port}: taken by another program; leave the option out to get a free one."
            ) from None
        raise ValueError(f"--port {port}: {error.strerror}.") from None
    return found


def _open(url: str) -> None:
    windows = sys.platform in ("darwin", "win32")
    if not (windows or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        log.info(
            "no display here: open that address in a browser (from afar: ssh -L PORT:%s:PORT)", HOST
        )
    elif not webbrowser.open(url):
        log.info("no browser could be started: open that address yourself")
