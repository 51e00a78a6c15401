"""`python -m benchmarks.kills` in short: two processes, killed at random, end as if they had been left alone."""

import importlib.util

import pytest

from benchmarks import kills
from tests.tiny import write_corpus


@pytest.mark.parametrize(
    ("backend", "processes", "changes"),
    [
        ("tensorflow", [2], {}),
        ("tensorflow", [2, 1], {"virtual_devices": 4}),
        ("jax", [2], {}),
        ("jax", [2, 1], {"dropout": 0.0}),
        ("jax", [2, 1], {"virtual_devices": 4}),
    ],
)
def test_two_processes_killed_at_random_end_as_if_left_alone(tmp_path, monkeypatch, backend, processes, changes):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    monkeypatch.setitem(kills.OPTIONS, "steps", 60)
    # early enough for every kill to hit, however fast the machine
    monkeypatch.setattr(kills, "draw_moment", lambda draw, done: {"step": draw.randrange(done, done + 20)})
    corpus = write_corpus(tmp_path / "corpus.txt", 200)
    launcher, _ = kills.start(backend, tmp_path / "alone", corpus, 2, 0, **changes)
    assert launcher.wait(timeout=300) == 0, (tmp_path / "alone.log").read_text()[-3000:]
    found = kills.disturbed_run(backend, tmp_path / "run", corpus, processes, 2, seed=len(processes), **changes)
    assert found["exit_code"] == 0, (tmp_path / "run.log").read_text()[-3000:]
    assert [kill["hit"] for kill in found["kills"]] == [True, True]
    difference = kills.difference(tmp_path / "alone", tmp_path / "run")
    assert difference == 0 if processes == [2] or "virtual_devices" in changes else difference < 1e-5
    used = kills.rows_used(found["log"])
    assert sorted(used) == list(range(60))
    assert {rows.total() for rows in used.values()} == {kills.OPTIONS["batch_size"]}
    assert used == kills.rows_used(tmp_path / "alone-rows")
