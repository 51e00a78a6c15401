import errno
import os
import stat

import pytest

from bertkeras import files
from bertkeras.errors import BertKerasError
from bertkeras.files import atomic_path, write_text


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_half_way(path, error):
    with atomic_path(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise error


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old", encoding="utf-8")
    return path


def test_writes_utf8_into_new_folders(tmp_path):
    path = tmp_path / "a" / "b" / "notes.txt"
    write_text(path, "zwölf 北京\n")
    assert path.read_bytes() == "zwölf 北京\n".encode()
    assert os.listdir(path.parent) == ["notes.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_replaces(path):
    write_text(str(path), "new")
    assert path.read_text(encoding="utf-8") == "new"


def test_the_final_name_holds_the_old_text_until_the_end(path):
    with atomic_path(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        assert temporary.parent == path.parent
        assert path.read_text(encoding="utf-8") == "old"
        temporary.write_text("whole", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "whole"


def unharmed(path):
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(path.parent) == [path.name], "a temporary file was left"


@pytest.mark.parametrize("call", ["replace", "fsync", "chmod"])
def test_a_failing_step_leaves_the_old_file(path, monkeypatch, call):
    monkeypatch.setattr(files.os, call, full_disk)
    with pytest.raises(BertKerasError, match=r"cannot write .*notes.txt: No space left on device; nothing was changed"):
        write_text(path, "new")
    unharmed(path)


def test_a_full_disk_while_writing(path):
    with pytest.raises(BertKerasError, match="No space left on device"):
        fail_half_way(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    unharmed(path)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_another_error_passes_through(path, error):
    with pytest.raises(error):
        fail_half_way(path, error())
    unharmed(path)


def test_an_error_of_the_user_s_passes_as_it_is(path):
    with pytest.raises(BertKerasError, match=r"^mine$"):
        fail_half_way(path, BertKerasError("mine"))
    unharmed(path)


def test_a_folder_that_cannot_be_made(path):
    with pytest.raises(BertKerasError, match=r"cannot write .*below: (File exists|Not a directory)"):
        write_text(path / "below", "new")
    unharmed(path)


def test_data_reaches_the_disk_before_the_name(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(files.os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    write_text(path, "new")
    assert calls[:2] == ["fsync", "replace"]
