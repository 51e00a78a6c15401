import pytest

from bertkeras.training.metrics import MetricsLog, means, read_metrics


def test_means_are_sums_over_counts():
    sums = {
        "mlm_loss": 12.0,
        "mlm_accuracy": 3.0,
        "mlm_count": 6.0,
        "nsp_loss": 1.0,
        "nsp_accuracy": 1.0,
        "nsp_count": 4.0,
    }
    assert means(sums) == {"mlm_loss": 2.0, "mlm_accuracy": 0.5, "nsp_loss": 0.25, "nsp_accuracy": 0.25}
    assert means({"mlm_loss": 0.0, "mlm_accuracy": 0.0, "mlm_count": 0.0}) == {"mlm_loss": 0.0, "mlm_accuracy": 0.0}


def test_rows_come_back_and_reach_tensorboard(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(4, {"mlm_loss": 2.5})
        log.write(8, {"mlm_loss": 1.5})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 4, "mlm_loss": 2.5}, {"step": 8, "mlm_loss": 1.5}]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Tensors("mlm_loss")] == [4, 8]


def test_rows_after_the_checkpoint_are_written_anew(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in (4, 8, 12):
            log.write(step, {"mlm_loss": 9.0})
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 16, "mlm_l')  # a kill in the middle of a line
    with MetricsLog(tmp_path, step=8) as log:
        log.write(12, {"mlm_loss": 1.0})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["mlm_loss"]) for row in rows] == [(4, 9.0), (8, 9.0), (12, 1.0)]


def test_no_file_is_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_file_is_closed_after_an_error(tmp_path):
    log = MetricsLog(tmp_path)
    with pytest.raises(KeyError), log:
        raise KeyError
    assert log.file.closed
