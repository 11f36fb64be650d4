"""Models on the Hugging Face Hub: hf://OWNER/NAME or hf://OWNER/NAME@REVISION, wherever a folder is wanted.

Through huggingface_hub (extra `hub`) and its cache, so HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT
hold. Called by what reads a folder: `written.read`, `checkpoint.load_params`, `convert/files.py`.
"""

import contextlib
import contextvars
import functools
import json
import logging
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ssl_audio.storage import opened

SCHEME = "hf://"
ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^\s@]+))?/?")
FORM = "hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
CONFIG, PARAMS = "config.json", "model.safetensors"
MORE = ("calibration.json", "tokenizer.json", "extra.safetensors")  # taken where they are there
WEIGHTS = (PARAMS, "pytorch_model.bin")  # of other libraries, whole or in shards
EXTRACTORS = ("preprocessor_config.json", "processor_config.json", "sentence_bert_config.json")

log = logging.getLogger(__name__)

_CACHE_ALONE = contextvars.ContextVar("cache_alone", default=False)


class Missing(FileNotFoundError):
    """A repository has no file of a name: the Hub says so now, or said so when it was last asked."""


class Repository(NamedTuple):
    """A repository at a revision; None: its main branch."""

    name: str
    revision: str | None

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}{f'@{self.revision}' if self.revision else ''}"


def is_address(where: Any) -> bool:
    """Tell whether a place is one on the Hub."""
    return isinstance(where, str) and where.startswith(SCHEME)


def parse(address: str) -> Repository:
    """Return the repository and the revision of an address.

    Raises:
      ValueError: it is none.
    """
    found = ADDRESS.fullmatch(address)
    if not found:
        raise ValueError(f"{address}: wanted {FORM}.")
    return Repository(found[1], found[2])


def local(where: str | os.PathLike) -> pathlib.Path:
    """Return a place on this machine as it is, and for one on the Hub the folder that it was fetched to.

    Fetched are the config, the parameters, and what `MORE` names: nothing else of a repository, and
    the parameters only when the config is one of ours.

    Raises:
      ValueError: the address is malformed; the repository holds a model of another library, with the
        command that converts it.
      FileNotFoundError: no such repository, revision or file, or it is not in the cache and there is no
        network.
      PermissionError: it is gated.
      RuntimeError: huggingface_hub is not installed, or the Hub gives an error.
    """
    return _fetched(where) if is_address(where) else pathlib.Path(where)


def absolute(where: str) -> str:
    """Return a place as it is called from any folder: an address as it is."""
    return where if is_address(where) else str(pathlib.Path(where).expanduser().resolve())


def beside(where: str) -> pathlib.Path:
    """Return the folder for results about a model: its own, or the working one if it is on the Hub."""
    return pathlib.Path() if is_address(where) else pathlib.Path(where).expanduser()


@contextlib.contextmanager
def from_cache() -> Iterator[None]:
    """Fetch nothing in the body: what the file of a stranger names is taken from the cache, or refused."""
    token = _CACHE_ALONE.set(True)
    try:
        yield
    finally:
        _CACHE_ALONE.reset(token)


@functools.lru_cache(64)
def _fetched(address: str) -> pathlib.Path:
    """Fetch a model of ours; in one process an address means one commit."""
    asked = parse(address)
    config = _file(asked, CONFIG)
    at = _commit(asked, config)
    _check_ours(address, asked, config)
    _file(at, PARAMS, named=asked)
    for name in MORE:
        _more(at, name, asked)
    return config.parent


def foreign(address: str) -> pathlib.Path:
    """Return the folder to which a model of another library was fetched, for a converter.

    Fetched are configs, the tokenizer, and weights: safetensors where there are any.

    Raises:
      As `local`.
    """
    asked = parse(address)
    config = _file(asked, CONFIG)
    at = _commit(asked, config)
    for name in (*EXTRACTORS, *MORE[1:]):
        _more(at, name, asked)
    last: FileNotFoundError | None = None
    for name in [f"{some}{end}" for some in WEIGHTS for end in ("", ".index.json")]:
        try:
            path = _file(at, name, named=asked)
        except FileNotFoundError as error:  # without a network, also that it was never asked for
            last = error if not isinstance(error, Missing) else last
            continue
        if path.suffix == ".json":
            places = opened.member(
                opened.json_file(path, "an index of weights"), "weight_map", dict, path
            )
            for shard in sorted(set(map(str, places.values()))):
                opened.inside(config.parent, shard, path)
                _file(at, shard, named=asked)
        return config.parent
    raise last or FileNotFoundError(f"{asked}: none of the weights {', '.join(WEIGHTS)} in it.")


def _more(at: Repository, name: str, asked: Repository) -> None:
    """Fetch a file that a model may have; that it was never asked for is said where it cannot be now."""
    try:
        _file(at, name, named=asked)
    except Missing:
        pass
    except FileNotFoundError:
        log.warning(
            "%s: no %s in the cache, and the Hub is not asked: taken as without", asked, name
        )


def _commit(asked: Repository, file: pathlib.Path) -> Repository:
    """Return the repository at the commit that a file was fetched of, so that all files are of one.

    The cache keeps them in folders of that name.
    """
    name = file.parent.name
    return asked._replace(revision=name) if re.fullmatch("[0-9a-f]{40}", name) else asked


def _file(at: Repository, name: str, *, named: Repository | None = None) -> pathlib.Path:
    hub, shown = library(str(named or at)), named or at
    known = hub.try_to_load_from_cache(at.name, name, revision=at.revision)
    if at.revision and known is hub._CACHED_NO_EXIST:  # of a commit, for ever
        raise Missing(f"{shown}: no {name} in it.")
    if _CACHE_ALONE.get():
        if isinstance(known, str):
            return pathlib.Path(known)
        raise FileNotFoundError(
            f"{shown}: a folder names this address, and its {name} is not in the cache: it is not fetched "
            f'unless you ask: --checkpoint {shown}, or once ssl_audio.load("{shown}").'
        )
    with errors(shown, name):
        return pathlib.Path(hub.hf_hub_download(at.name, name, revision=at.revision))


def library(what: str) -> Any:
    """Return huggingface_hub.

    Raises:
      RuntimeError: it is not installed; `what` needs it.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise RuntimeError(
            f"{what}: needs huggingface_hub: pip install 'ssl_audio[hub]'."
        ) from None
    return huggingface_hub


@contextlib.contextmanager
def errors(at: Repository, file: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into one line that says what to do."""
    from huggingface_hub import errors as theirs

    login = "`hf auth login`, or set HF_TOKEN"
    try:
        yield
    except theirs.GatedRepoError:
        raise PermissionError(
            f"{at}: gated: accept its terms on its page on the Hub, then log in ({login})."
        ) from None
    except theirs.RepositoryNotFoundError:
        raise FileNotFoundError(
            f"{at}: no such repository, or it is private and your token does not open it ({login})."
        ) from None
    except theirs.RevisionNotFoundError:
        raise FileNotFoundError(
            f"{at}: no revision {at.revision!r}; wanted a branch, a tag or a whole commit hash."
        ) from None
    except theirs.LocalEntryNotFoundError:  # before its parent EntryNotFoundError
        raise FileNotFoundError(
            f"{at}: {file or 'it'} is not in the cache, and the Hub was not reached"
            f"{_offline()}: go online once, or give a folder."
        ) from None
    except theirs.EntryNotFoundError:
        raise Missing(
            f"{at}: no {file} in it; wanted a folder as `ssl-audio export --to hub` writes it."
        ) from None
    except theirs.OfflineModeIsEnabled:
        raise RuntimeError(
            f"{at}: the Hub was not asked{_offline()}: unset HF_HUB_OFFLINE."
        ) from None
    except theirs.HFValidationError as error:
        raise ValueError(f"{at}: {opened.short(error)}. Wanted {FORM}.") from None
    except theirs.HfHubHTTPError as error:
        raise RuntimeError(_answered(at, error, login)) from None
    except (ConnectionError, TimeoutError) as error:
        raise RuntimeError(f"{at}: the Hub was not reached ({opened.short(error)}).") from None
    except (OSError, RuntimeError):  # of this machine: they name the file by themselves
        raise
    except Exception as error:  # of its HTTP library, which changes between versions
        raise RuntimeError(f"{at}: the Hub was not reached ({opened.short(error)}).") from None


def _answered(at: Repository, error: Any, login: str) -> str:
    status = getattr(error.response, "status_code", None)
    if status in (401, 403):
        return f"{at}: the Hub refuses ({status}): log in with a token that may do this ({login})."
    return f"{at}: the Hub answers {status}: {opened.short(error)}"


def _offline() -> str:
    from huggingface_hub import constants

    return " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""


def _check_ours(address: str, asked: Repository, config: pathlib.Path) -> None:
    """Raise ValueError naming `convert` where a config is one of transformers."""
    try:
        found = json.loads(config.read_bytes())
    except (ValueError, RecursionError):
        return  # whoever reads it says what is wrong
    if isinstance(found, dict) and "model_type" in found and "objective" not in found:
        kind = opened.short(found["model_type"])
        raise ValueError(
            f"{asked}: a model of transformers (model_type {kind}), not of ssl_audio. Convert it first: "
            f"ssl-audio convert --from FAMILY --checkpoint {address} --out DIR"
        )
