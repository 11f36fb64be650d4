"""Put an exported folder on the Hugging Face Hub: ssl-audio push FOLDER --to OWNER/NAME

FOLDER is what `ssl-audio export --to hub` wrote. Needs the extra `hub`, and a token that may write:
`hf auth login`, or HF_TOKEN. Afterwards `ssl_audio.load("hf://OWNER/NAME")`.
"""

import argparse
import logging
import pathlib
from collections.abc import Sequence

from ssl_audio import startup

log = logging.getLogger("ssl_audio")

# What a folder to be shared may hold; all else stays here.
KINDS = (".json", ".safetensors", ".md", ".onnx", ".data", ".stablehlo", ".npz", ".txt", ".py")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio push`."""
    made = startup.parser("push", __doc__)
    made.add_argument("folder", metavar="FOLDER", help="what `export --to hub` wrote")
    made.add_argument("--to", required=True, metavar="OWNER/NAME", help="the repository")
    made.add_argument("--private", action="store_true", help="only you and those you invite see it")
    made.add_argument("--revision", help="branch to write to, made if need be; default: main")
    made.add_argument("--message", default="Model by ssl_audio", help="of the commit")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, look the folder over and send it."""
    args = parser().parse_args(argv)
    print(push(pathlib.Path(args.folder).expanduser(), args.to, private=args.private,
               revision=args.revision, message=args.message))  # fmt: skip


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the files of a folder that are sent, in order.

    Raises:
      FileNotFoundError: it is not what `export --to hub` writes.
      ValueError: a file names a place of this machine.
    """
    from ssl_audio.convert import private
    from ssl_audio.storage import exported, written

    for name in (written.CONFIG, exported.PARAMS, "README.md"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder}: no {name}; wanted a folder that `ssl-audio export --to hub` wrote."
            )
    written.read(folder)
    private.check(folder, {})
    found = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    root = folder.resolve()
    sent = [
        p
        for p in found
        if p.suffix in KINDS
        and p.resolve().is_relative_to(root)  # no link to a file elsewhere
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    ]
    if left := [str(p.relative_to(folder)) for p in found if p not in sent]:
        log.warning("%s: not sent: %s", folder, ", ".join(left))
    return sent


def push(
    folder: pathlib.Path,
    to: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "Model by ssl_audio",
) -> str:
    """Send a folder to a repository, made if need be, in one commit; return the commit's address.

    Args:
      folder: what `export --to hub` wrote.
      to: OWNER/NAME, also with hf:// before it.
      private: of a repository that is made now.
      revision: branch; None: main.
      message: of the commit.

    Raises:
      ValueError, FileNotFoundError: see `files`; `to` is malformed.
      PermissionError, RuntimeError: the Hub refuses, or is not reached.
    """
    from ssl_audio.storage import hub

    at = hub.parse(to if hub.is_address(to) else f"{hub.SCHEME}{to}")
    at = at._replace(revision=revision or at.revision)
    sent = files(folder)
    library = hub.library("push")
    with hub.errors(at):
        api = library.HfApi()
        api.create_repo(at.name, private=private or None, exist_ok=True)
        if at.revision:
            api.create_branch(at.name, branch=at.revision, exist_ok=True)
        added = [library.CommitOperationAdd(p.relative_to(folder).as_posix(), str(p)) for p in sent]
        done = api.create_commit(at.name, added, commit_message=message, revision=at.revision)
    size = sum(p.stat().st_size for p in sent)
    return f"{done.commit_url}: {len(sent)} files, {size:,} bytes; load it with {at}"
