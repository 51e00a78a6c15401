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


def test_a_damaged_checkpoint_is_named(tmp_path):
    *_, checkpoints = setting(tmp_path)
    path = checkpoints.save(Progress(4))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BertKerasError, match="step-000000004.safetensors is damaged.*before it"):
        checkpoints.restore()


def test_a_checkpoint_of_other_options_is_refused(tmp_path):
    setting(tmp_path)[-1].save(Progress(4))
    *_, checkpoints = setting(tmp_path, use_ema=True)
    with pytest.raises(BertKerasError, match="other options"):
        checkpoints.restore()
