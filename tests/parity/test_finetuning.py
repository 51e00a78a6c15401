"""Fine-tuning learns what PyTorch's AdamW learns: the losses of 30 steps, with warm-up, decay and clipping."""

import json

import keras
import numpy as np
import pytest

from bertkeras.models import BertTextClassifier, BertTokenClassifier
from bertkeras.training import AdamW, WarmupLinearDecay
from bertkeras.training.fitting import layer_factors
from bertkeras.training.task_step import make_task_step
from tests.checks import small_config

for library in ("torch", "transformers"):
    pytest.importorskip(library, reason=f"{library} is not installed")
if keras.backend.backend() != "tensorflow":
    pytest.skip("finetune runs on TensorFlow", allow_module_level=True)

STEPS, WARMUP, PEAK, CLASSES = 30, 5, 3e-3, 3


@pytest.mark.parametrize(
    ("head", "kind", "model_class"),
    [("sequence", "single_label", BertTextClassifier), ("token", "", BertTokenClassifier)],
)
def test_losses_are_those_of_pytorch(head, kind, model_class, tmp_path):
    from benchmarks.tasks_peer import training

    random = np.random.default_rng(0)
    config = small_config(activation="gelu")
    model = model_class(config, num_classes=CLASSES)
    model.save_to_hugging_face(tmp_path / "model")
    batches = []
    for _ in range(STEPS):
        shape = (4, int(random.integers(3, 9)))
        mask = np.arange(shape[1]) < random.integers(2, shape[1] + 1, shape[0])[:, None]
        ids = random.integers(5, config.vocabulary_size, shape).astype("int32")
        inputs = {"token_ids": ids, "segment_ids": np.zeros(shape, "int32"), "padding_mask": mask}
        # to be learnt: the class of a piece, or of the first piece, is its number modulo 3
        labels = np.where(mask, ids % CLASSES, -1) if head == "token" else ids[:, 0] % CLASSES
        batches.append((inputs, labels.astype("int32")))
    arrays = {
        f"{step}/{name}": array
        for step, (inputs, labels) in enumerate(batches)
        for name, array in {**inputs, "labels": labels}.items()
    }
    np.savez(tmp_path / "batches.npz", **arrays)
    plan = {
        "model": str(tmp_path / "model"),
        "head": head,
        "kind": kind,
        "num_labels": CLASSES,
        "total": STEPS,
        "peak": PEAK,
        "warmup_share": WARMUP / STEPS,
        "weight_decay": 0.01,
        "clip_norm": 0.5,
        "head_factor": 3.0,
        "seed": 0,
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    theirs, _ = training(tmp_path)
    schedule = WarmupLinearDecay(PEAK, WARMUP, STEPS)
    factors = layer_factors(model, head_factor=3.0)
    ours = make_task_step(model, AdamW(schedule, weight_decay=0.01, global_clipnorm=0.5, factors=factors))
    losses = np.array([(float(ours(*batch)), theirs(step)) for step, batch in enumerate(batches)])
    assert losses[-5:, 0].mean() < losses[:5, 0].mean(), "something is learnt"
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-4)
