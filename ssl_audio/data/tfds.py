"""TensorFlow Datasets without TensorFlow: write any source as a prepared dataset, and read one.

Stock audio builders need TensorFlow to be read even once: `stock` prepares them where it is
installed, for `prepare.py` to turn into shards.
"""

import functools
import json
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.decode import DecodeError, fault, resample
from ssl_audio.data.reading import examples
from ssl_audio.data.shards import from_int16, to_int16
from ssl_audio.data.source import Example, Source, SourceInfo
from ssl_audio.storage import opened

_NEEDS_TF = "needs TensorFlow: pip install 'ssl_audio[tf]', then prepare it into shards once"


@dataclass(frozen=True)
class Tfds:
    """A split of a prepared dataset: `name` is its version folder, or found below `data_dir`.

    Raises ValueError on first use when there is none, ImportError when reading it needs TensorFlow
    (it has an `Audio` feature; those that `write` makes have not), DecodeError of a clip whose samples are
    neither on the scale of int16 nor floating point in [-1, 1].
    """

    name: str
    split: str = "train"  # also "train+test", "train[:10%]"
    data_dir: str = ""  # default: ~/tensorflow_datasets
    folds: tuple[int, ...] = ()  # keep these folds only
    rate: int = 16_000  # Hz

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        info = self._builder.info
        label = info.features["label"] if "label" in info.features else None
        inner = getattr(label, "feature", label)
        return SourceInfo(
            self._builder.name,
            tuple(getattr(inner, "names", ())),
            licence=info.as_proto.redistribution_info.license or "unknown",
            citation=info.citation or "",
            url=info.homepage or "",
            multilabel=inner is not label,
        )

    def __len__(self) -> int:
        return len(self._data) if self._kept is None else len(self._kept)

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio (it is read, and dropped)."""
        return self._meta(*self._row(i))

    def __getitem__(self, i: int) -> Example:
        number, row = self._row(i)
        audio = np.asarray(row[self._audio])
        if np.issubdtype(audio.dtype, np.integer):
            audio = self._scaled(audio, number)
        if cause := fault(audio):
            raise DecodeError(f"{self.name}: clip {number}: {cause}")
        if audio.ndim > 1:
            audio = audio.mean(axis=1)
        stored = row.get("rate") or getattr(
            self._builder.info.features[self._audio], "sample_rate", None
        )
        if not stored:
            raise ValueError(f"{self.name}: its sampling rate is not recorded")
        return {"audio": resample(audio, int(stored), self.rate), **self._meta(number, row)}

    def _scaled(self, audio: np.ndarray, number: int) -> np.ndarray:
        """Return whole numbers as float32 in [-1, 1), if they are on the scale of int16.

        TFDS stores them in wider types too, int64 for all its `Audio`, which do not tell the scale: WAVs of
        24 and 32 bits reach 2**31 there (pydub, with which it reads files, makes 32 bits of 24).
        """
        low, high = int(audio.min(initial=0)), int(audio.max(initial=0))
        if audio.dtype.kind == "i" and audio.itemsize > 1 and -32768 <= low and high <= 32767:
            return from_int16(audio)
        raise DecodeError(
            f"{self.name}: clip {number}: {audio.dtype} from {low} to {high}, wanted whole numbers on the "
            "scale of int16, or floating point in [-1, 1]"
        )

    def _row(self, i: int) -> tuple[int, dict[str, Any]]:
        number = i if self._kept is None else self._kept[i]
        return number, self._data[number]

    def _meta(self, number: int, row: dict[str, Any]) -> Example:
        name = row.get("id", row.get("audio/filename"))
        meta: Example = {
            "rate": self.rate,
            "id": _text(name) if name is not None else f"{self.split}-{number}",
        }
        label = row.get("label")
        if label is not None and np.ndim(label):
            meta["label"] = tuple(int(y) for y in label)
        elif label is not None and np.issubdtype(np.asarray(label).dtype, np.integer):
            meta["label"] = int(label)
        if "fold" in row:
            meta["fold"] = int(row["fold"])
        if "text" in row:
            meta["text"] = _text(row["text"])
        if re.fullmatch(r"\w+", self.split):
            meta["split"] = self.split
        return meta

    @property
    def _audio(self) -> str:
        return "audio" if "audio" in self._builder.info.features else "speech"

    @functools.cached_property
    def _builder(self) -> Any:
        import tensorflow_datasets

        folder = _version_folder(self.name, self.data_dir)
        for path in sorted(folder.glob("*.json")):
            with opened.reading(path, "JSON that TFDS writes"):
                _check_classes(opened.json_file(path, "JSON that TFDS writes"), path)
        try:
            return tensorflow_datasets.builder_from_directory(folder)
        except ImportError as error:
            raise ImportError(f"{folder}: reading it {_NEEDS_TF}") from error

    @functools.cached_property
    def _data(self) -> Any:
        return self._builder.as_data_source(split=self.split)

    @functools.cached_property
    def _kept(self) -> list[int] | None:
        if not self.folds:
            return None
        kept = [i for i, row in enumerate(self._data) if int(row.get("fold", -1)) in self.folds]
        if not kept:
            raise ValueError(f"{self.name}: no clip of split {self.split!r} is in {self.folds}")
        return kept


def write(
    source: Source,
    name: str,
    data_dir: str,
    *,
    version: str = "1.0.0",
    max_bad_share: float = 0.01,
) -> Tfds:
    """Write `source` as the TFDS dataset `name` (lower case, `_`) and return its reader.

    Its splits are those of the clips ("train" where there are none). Features: audio (int16), rate,
    id, and those of label, fold and text that every clip has. Unreadable clips are left out.
    """
    import tensorflow_datasets as tfds

    info = source.info
    metas = [source.meta(i) for i in range(len(source))]
    features: dict[str, Any] = {
        "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes"),
        "rate": tfds.features.Scalar(np.int64),
        "id": tfds.features.Text(),
    }
    if all("label" in meta for meta in metas):
        label = tfds.features.ClassLabel(names=list(info.labels))
        features["label"] = tfds.features.Sequence(label) if info.multilabel else label
    if all("fold" in meta for meta in metas):
        features["fold"] = tfds.features.Scalar(np.int64)
    if all("text" in meta for meta in metas):
        features["text"] = tfds.features.Text()
    splits = sorted({meta.get("split", "train") for meta in metas})

    registered: Any = getattr(tfds.core, "registered")  # noqa: B009 - not in its stubs
    with registered.skip_registration():  # so that this may be called again

        class Sounds(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version(version)
            pkg_dir_path: Any = pathlib.Path(__file__).parent
            code_path = None  # there are no checksum files to look for beside the class

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=f"{info.name}: mono int16 audio.",
                    features=tfds.features.FeaturesDict(features),
                    homepage=info.url or None,
                    citation=info.citation or None,
                    license=info.licence,
                )

            def _split_generators(self, dl_manager):
                del dl_manager
                return {split: self._generate_examples(split) for split in splits}

            def _generate_examples(self, split) -> Iterator[tuple[int, dict[str, Any]]]:
                numbers = [i for i, m in enumerate(metas) if m.get("split", "train") == split]
                found = examples(source, numbers=numbers, max_bad_share=max_bad_share)
                for i, example in found:
                    row = {key: example[key] for key in features}
                    row["audio"] = to_int16(row["audio"])
                    if info.multilabel and "label" in row:
                        row["label"] = list(row["label"])
                    yield i, row

    Sounds.name = name
    builder = Sounds(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return Tfds(str(builder.data_path), split=splits[0], rate=metas[0]["rate"])


def stock(name: str, *, data_dir: str = "", rate: int = 16_000, **options: Any) -> Tfds:
    """Download and prepare a builder that TFDS ships (spoken_digit, speech_commands, librispeech).

    Raises ImportError, naming the extra to install, where TensorFlow is missing.
    """
    try:
        import tensorflow  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(f"tfds:{name} {_NEEDS_TF}") from None
    import tensorflow_datasets

    builder = tensorflow_datasets.builder(
        name, data_dir=data_dir or None, file_format="array_record"
    )
    builder.download_and_prepare()
    return Tfds(str(builder.data_path), rate=rate, **options)


def _version_folder(name: str, data_dir: str) -> pathlib.Path:
    roots = [pathlib.Path(name).expanduser()]
    roots.append(pathlib.Path(data_dir or "~/tensorflow_datasets").expanduser() / name)
    for root in roots:
        found = sorted(root.rglob("dataset_info.json")) if root.is_dir() else []
        if found:
            return max(found, key=lambda path: _version(path.parent.name)).parent
    raise ValueError(f"Tfds.name: no prepared dataset in {' or '.join(map(str, roots))}")


def _check_classes(value: Any, path: pathlib.Path) -> None:
    """Raise ValueError when a dataset's JSON names a class of another package: TFDS would import it.

    JSON inside a text counts too: TFDS parses the contents of features that are written so.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            return  # a description or the like
    if isinstance(value, dict):
        for key in ("pythonClassName", "python_class_name", "type"):
            name = value.get(key)
            if (
                isinstance(name, str)
                and "." in name
                and not name.startswith("tensorflow_datasets.")
            ):
                raise opened.error(f"{path}: {key}", repr(name), "a class of tensorflow_datasets")
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            _check_classes(entry, path)


def _version(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split("."))) if re.fullmatch(r"\d+(\.\d+)*", name) else ()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
