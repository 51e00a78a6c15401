"""Execute the chapters, store their outputs without noise, and write down how long each took, on what machine.

python book/refresh.py                   every chapter
python book/refresh.py tour              one of them
python book/refresh.py --check           execute, compare the tagged outputs with the stored ones, write nothing
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbclient import NotebookClient

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
TIMINGS = BOOK / "results" / "timings.json"
LIMIT_SECONDS = 90  # of a chapter at tiny scale, on two cores

KEPT_METADATA = ("tags", "mystnb", "cellView")
CHECKED = "nbval-check-output"
# What TensorFlow's C++ says on standard error, whatever the log level.
LOG_LINE = re.compile(r"^(?:WARNING: All log messages before absl|[IWE]\d{4} |[-\d]{10} .*: [IWE] |To enable )")
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


class ChapterError(Exception):
    """A chapter that must not be stored."""


def notebooks() -> list[str]:
    """Every notebook of the table of contents; the status page last, because it shows the others' times."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    pages = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    found = [page for page in pages if (BOOK / f"{page}.ipynb").is_file()]
    return sorted(found, key=lambda page: page == "status")


def has_tag(cell: Any, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def execute(name: str) -> tuple[Any, float]:
    """Run every cell in a fresh kernel; a chapter's time line is run again once its time is known."""
    notebook = nbformat.read(BOOK / f"{name}.ipynb", as_version=4)
    timed = [index for index, cell in enumerate(notebook.cells) if has_tag(cell, "timing")]
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(BOOK)}})
    begin = time.monotonic()
    with client.setup_kernel(stderr=subprocess.DEVNULL):
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        seconds = time.monotonic() - begin
        if timed:
            write_timing(name, title_of(notebook), seconds)
        for index in timed:
            client.execute_cell(notebook.cells[index], index)
    return notebook, seconds


def title_of(notebook: Any) -> str:
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def write_timing(name: str, title: str, seconds: float) -> None:
    timings = json.loads(TIMINGS.read_text(encoding="utf-8")) if TIMINGS.is_file() else {}
    versions = {package: importlib.metadata.version(package) for package in ("keras", "tensorflow")}
    timings[name] = {
        "title": title,
        "seconds": round(seconds, 1),
        "scale": os.environ.get("BERTKERAS_SCALE", "tiny"),
        "hardware": hardware(),
        "versions": ", ".join(["Python " + platform.python_version(), *map(" ".join, versions.items())]),
    }
    ordered = {page: timings[page] for page in notebooks() if page in timings}
    TIMINGS.parent.mkdir(exist_ok=True)
    TIMINGS.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")


def hardware() -> str:
    """For example `2 CPU cores (Intel Xeon), no GPU`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = re.findall(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = re.sub(r"\s+", " ", re.sub(r"\((?:R|TM)\)", "", names[0])).strip() if names else model
    gpu = "with a GPU" if Path("/dev/nvidia0").exists() else "no GPU"
    return f"{cores} CPU cores ({model}), {gpu}"


def clean(notebook: Any) -> None:
    """Leave the sources, the outputs and what the book needs; take away what changes from run to run."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
        cell.outputs = merged(cell.outputs)
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT_METADATA if key in cell.metadata}


def merged(outputs: list[Any]) -> list[Any]:
    """The outputs with TensorFlow's log lines taken out, and text that came in parts put together."""
    kept: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            lines = output.text.splitlines(keepends=True)
            output.text = "".join(line for line in lines if line.strip() and not LOG_LINE.match(line))
        if output.output_type == "stream":
            if not output.text:
                continue
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
                continue
        kept.append(output)
    return kept


def fault(notebook: Any) -> str | None:
    """The first thing in the outputs that must not be in a book."""
    private = [str(ROOT), str(Path.home()), sys.prefix]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename} in the cell {cell.id}"
            if output.output_type == "stream" and output.name == "stderr":
                return f"the cell {cell.id} wrote to standard error: {output.text.strip()[:200]}"
            shown = json.dumps({key: value for key, value in output.items() if key != "metadata"})
            for path in private:
                if len(path) > 1 and path in shown:
                    return f"the path {path} in the output of the cell {cell.id}"
            if "Traceback (most recent call last)" in shown or ADDRESS.search(shown):
                return f"a traceback or an address of memory in the output of the cell {cell.id}"
    return None


def checked_text(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")


def differences(name: str, notebook: Any) -> list[str]:
    stored = {cell.id: cell for cell in nbformat.read(BOOK / f"{name}.ipynb", as_version=4).cells}
    checked = [cell for cell in notebook.cells if has_tag(cell, CHECKED)]
    return [cell.id for cell in checked if checked_text(cell) != checked_text(stored[cell.id])]


def refresh(name: str, check: bool) -> float:
    """Execute one notebook and store it.

    Raises:
        ChapterError: A cell failed, wrote a path of this machine or a traceback, took too long, or does not print
            what is stored.
    """
    before = TIMINGS.read_bytes() if TIMINGS.is_file() else None
    try:
        notebook, seconds = execute(name)
        clean(notebook)
        if found := fault(notebook):
            raise ChapterError(found)
        if os.environ.get("BERTKERAS_SCALE", "tiny") == "tiny" and seconds > LIMIT_SECONDS:
            raise ChapterError(f"took {seconds:.0f} s, more than {LIMIT_SECONDS}")
        if check and (cells := differences(name, notebook)):
            raise ChapterError(f"other output than stored in {', '.join(cells)}")
    except Exception:
        restore(before)
        raise
    if check:
        restore(before)
    else:
        nbformat.write(notebook, BOOK / f"{name}.ipynb")
    return seconds


def restore(timings: bytes | None) -> None:
    if timings is None:
        TIMINGS.unlink(missing_ok=True)
    else:
        TIMINGS.write_bytes(timings)


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute the chapters and store their outputs.")
    parser.add_argument("names", nargs="*", metavar="notebook", help="names without .ipynb; all when there is none")
    parser.add_argument("--check", action="store_true", help="compare with the stored outputs, write nothing")
    arguments = parser.parse_args()
    names = [Path(name).stem for name in arguments.names] or notebooks()
    if unknown := set(names) - set(notebooks()):
        parser.error(f"not in _toc.yml: {', '.join(sorted(unknown))}")
    if not arguments.check and "status" in notebooks() and "status" not in names:
        names.append("status")
    failed = 0
    for name in names:
        try:
            print(f"{name}: {refresh(name, arguments.check):.1f} s", flush=True)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[-1500:]}", file=sys.stderr)
            failed += 1
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
