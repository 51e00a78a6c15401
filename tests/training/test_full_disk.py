"""A disk that fills up at any write of a run: one clear line, and the last good state whole."""

import os
import shutil
import subprocess
import sys

import pytest

from bertkeras.training.metrics import read_metrics
from bertkeras.training.pretrain import pretrain, resume
from bertkeras.training.pretrain_config import PretrainConfig
from bertkeras.training.resume import FILE, read_checkpoint_file
from tests.tiny import OPTIONS, write_corpus

STEPS = {"steps": 12, "checkpoint_steps": 4, "log_steps": 4}
CODE = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from bertkeras import cli
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A corpus and a run that was never disturbed."""
    home = tmp_path_factory.mktemp("home")
    corpus = write_corpus(home / "corpus.txt")
    pretrain(PretrainConfig(corpus=str(corpus), **{**OPTIONS, **STEPS}), home / "run")
    return home


def limited(limit, *arguments):
    command = [sys.executable, "-c", CODE, str(limit), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def check(result, folder):
    """One line, and nothing under a final name that is not whole."""
    assert result.returncode == 2, result.stderr[-2000:]
    line = result.stderr.splitlines()[-1]
    assert line.startswith("bertkeras: "), result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    assert "cannot write" in line or "too large" in line, line
    for path in (folder / "checkpoints").glob("*"):
        if FILE.fullmatch(path.name):
            read_checkpoint_file(path)
    assert not (folder / "summary.json").exists()
    for name in ("tokenizer.json", "model.safetensors"):
        if (folder / name).exists():
            assert (folder / name).stat().st_size == (folder.parent / "run" / name).stat().st_size


def files_by_size(folder):
    """The files of a run with their sizes; below each size its write, and that of every larger file, fails."""
    return sorted({path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 500})


def test_at_every_write_of_a_run(whole):
    """The limit on the size of a file lies below that of each file of the run in turn, or of three of them."""
    sizes = files_by_size(whole / "run")
    chosen = sizes if os.environ.get("BERTKERAS_ALL_WRITES") else sizes[:: max(len(sizes) // 2, 1)]
    for size in chosen:
        folder = whole / f"full-{size}"
        config = folder.with_suffix(".toml")
        config.write_text(PretrainConfig(corpus=str(whole / "corpus.txt"), **{**OPTIONS, **STEPS}).to_toml())
        result = limited(size - 1, "pretrain", "--config", config, "--output", folder)
        check(result, folder)
        if (folder / "config.toml").exists():
            assert resume(folder)["mlm_loss"] == resume(whole / "run")["mlm_loss"]  # with room again it goes on
            rows = read_metrics(folder / "metrics.jsonl")
            assert [row["step"] for row in rows] == [4, 8, 12]
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_folder_that_cannot_be_written(whole, tmp_path):
    tmp_path.chmod(0o500)
    result = limited(2**40, "pretrain", "--corpus", whole / "corpus.txt", "--output", tmp_path / "run")
    tmp_path.chmod(0o700)
    assert result.returncode == 2
    assert "Permission denied" in result.stderr.splitlines()[-1]


def test_a_file_system_that_refuses_every_write(whole):
    """As a read-only disk does, to root as well."""
    result = limited(2**40, "pretrain", "--corpus", whole / "corpus.txt", "--output", "/proc/run")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "cannot write /proc/run" in result.stderr
