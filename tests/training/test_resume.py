import shutil
import threading

import keras
import numpy as np
import pytest

from bertkeras import BertKerasError
from bertkeras.training import AdamW, WarmupLinearDecay, make_train_step
from bertkeras.training.resume import Checkpoints, Progress
from tests.training.test_step import batch, model_of


def setting(folder, seed=0, keep=2, **optimizer):
    model = model_of(dropout=0.3)
    keras.utils.set_random_seed(seed)
    optimizer = AdamW(WarmupLinearDecay(1e-2, 2, 20), **optimizer)
    step = make_train_step(model, optimizer)
    return model, optimizer, step, Checkpoints(folder, model, optimizer, keep)


def everything(model, optimizer):
    return [variable.numpy() for variable in [*model.variables, *optimizer.variables]]


@pytest.mark.parametrize("ema", [{}, {"use_ema": True, "ema_momentum": 0.9}])
def test_going_on_is_bit_exact_dropout_included(tmp_path, ema):
    model, optimizer, step, checkpoints = setting(tmp_path, **ema)
    for number in range(3):
        step(*batch(number))
    checkpoints.save(Progress(3, {"mlm_loss": 1.25}, 7.5))
    for number in range(3, 6):
        step(*batch(number))

    resumed, other, step, checkpoints = setting(tmp_path, **ema)
    assert checkpoints.restore() == Progress(3, {"mlm_loss": 1.25}, 7.5)
    for number in range(3, 6):
        step(*batch(number))
    for one, two in zip(everything(model, optimizer), everything(resumed, other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_states_of_the_dropout_seeds_are_kept(tmp_path):
    model, _, step, checkpoints = setting(tmp_path)
    step(*batch())
    checkpoints.save(Progress(1))
    states = [v.numpy() for v in model.non_trainable_variables if "seed" in v.path]
    other, _, _, checkpoints = setting(tmp_path)
    checkpoints.restore()
    restored = [v.numpy() for v in other.non_trainable_variables if "seed" in v.path]
    assert len(states) > 3
    np.testing.assert_array_equal(states, restored)


def test_only_the_newest_are_kept(tmp_path):
    *_, checkpoints = setting(tmp_path, keep=2)
    for step in (1, 5, 12):
        checkpoints.save(Progress(step))
    assert [path.name for path in checkpoints.files()] == ["step-000000005.safetensors", "step-000000012.safetensors"]
    assert checkpoints.restore().step == 12


def test_nothing_saved_is_the_beginning(tmp_path):
    *_, checkpoints = setting(tmp_path / "none")
    assert checkpoints.restore() == Progress()


def test_what_a_kill_left_half_written_is_not_read(tmp_path):
    *_, checkpoints = setting(tmp_path)
    checkpoints.save(Progress(4))
    (tmp_path / ".step-000000009.safetensors.x1y2").write_bytes(b"half")
    assert checkpoints.restore().step == 4


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, caplog):
    model, *_, checkpoints = setting(tmp_path)
    checkpoints.save(Progress(4))
    kept = [variable.numpy() for variable in model.variables]
    newest = checkpoints.save(Progress(7))
    newest.write_bytes(newest.read_bytes()[:100])
    for variable in model.trainable_variables:
        variable.assign(variable + 1)
    assert checkpoints.restore().step == 4
    assert "step-000000007.safetensors is damaged" in caplog.text
    assert "going on from the one before it" in caplog.text
    for variable, value in zip(model.variables, kept, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_no_run_begins_anew_because_its_checkpoints_are_damaged(tmp_path):
    *_, checkpoints = setting(tmp_path)
    for step in (4, 7):
        path = checkpoints.save(Progress(step))
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BertKerasError, match="000007.*damaged.*000004.*damaged.*no whole checkpoint.*begin anew"):
        checkpoints.restore()


def test_a_checkpoint_cut_off_or_changed_anywhere_is_found_out(tmp_path):
    *_, checkpoints = setting(tmp_path)
    checkpoints.save(Progress(4))
    path = checkpoints.save(Progress(7))
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for place in random.integers(0, len(whole), 100):
        path.write_bytes(whole[:place])
        assert checkpoints.restore().step == 4, place
    for place in random.integers(0, len(whole), 100):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << random.integers(8)]) + whole[place + 1 :])
        assert checkpoints.restore().step == 4, place
    path.write_bytes(whole)
    assert checkpoints.restore().step == 7


def test_the_state_is_copied_before_it_is_written_in_the_background(tmp_path, monkeypatch):
    model, _, step, checkpoints = setting(tmp_path)
    go_on, write = threading.Event(), checkpoints._write
    monkeypatch.setattr(checkpoints, "_write", lambda *options: (go_on.wait(10), write(*options)))
    step(*batch())
    then = [variable.numpy().copy() for variable in model.variables]
    checkpoints.save(Progress(1), background=True)
    step(*batch(1))
    assert not checkpoints.files()
    go_on.set()
    assert checkpoints.restore().step == 1
    for variable, value in zip(model.variables, then, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_a_checkpoint_that_cannot_be_written_is_told_at_the_latest_by_the_next(tmp_path):
    *_, checkpoints = setting(tmp_path / "runs")
    checkpoints.save(Progress(1))
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "runs").write_text("in the way")
    checkpoints.save(Progress(2), background=True)
    with pytest.raises(BertKerasError, match="cannot write .*step-000000002"):
        checkpoints.save(Progress(3), background=True)


def test_a_checkpoint_of_other_options_is_refused(tmp_path):
    setting(tmp_path)[-1].save(Progress(4))
    *_, checkpoints = setting(tmp_path, use_ema=True)
    with pytest.raises(BertKerasError, match="other options"):
        checkpoints.restore()
