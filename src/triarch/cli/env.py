"""Show versions, machine and settings, for reports of problems."""

import importlib.metadata
import os
import platform
from typing import Any

import click

from triarch import __version__
from triarch.cli._output import json_option, pairs, to_json

PACKAGES = ("torch", "tokenizers", "safetensors", "huggingface_hub", "numpy", "click", "tqdm")
VARIABLES = (
    "TRIARCH_MODEL",
    "TRIARCH_DEBUG",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    "XDG_CACHE_HOME",
    "PYTHONUTF8",
    "LANG",
    "LC_ALL",
)
SECRETS = ("HF_TOKEN", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY")  # may hold a password: only whether they are set


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Show versions, machine and settings, for reports of problems."""
    found = facts()
    for line in [to_json(found)] if as_json else pairs(found):
        click.echo(line)


def facts() -> dict[str, Any]:
    import torch
    from huggingface_hub import constants

    return {
        "triarch": __version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "torch_threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "hub_cache": constants.HF_HUB_CACHE,
        "offline": constants.is_offline_mode(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ}
        | {name: "set" for name in SECRETS if name in os.environ},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
