import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.making_it_fast import SIZE, VOCABULARY, needed_flops
from bertkeras import BertConfig, BertPretrainer
from bertkeras.cli import main
from bertkeras.models.pretrainer import pretraining_loss, pretraining_sums
from bertkeras.training.devices import PUBLISHED, Device, find_device, measure_cpu
from bertkeras.training.memory import kept_elements, step_memory
from bertkeras.training.plan import (
    count_parameters,
    extra_flops,
    make_plan,
    ring_seconds,
    step_flops,
)
from bertkeras.training.pretrain_config import PretrainConfig

ROWS, LENGTH, ASKED, PIECES = 3, 11, 5, 97
SHAPES = {"num_layers": 3, "hidden_dim": 14, "num_heads": 2, "intermediate_dim": 26, "max_sequence_length": LENGTH}
# a device of round numbers: 1 TFLOP/s, 1 GB, 10 GB/s, joined by 5 GB/s
ROUND = Device("round", 1e12, 2e12, 1e9, 1e10, 5e9, 8)


def config_of(**options):
    return BertConfig(PIECES, **{**SHAPES, "dropout": 0.0, "attention_dropout": 0.0, **options})


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tie_embeddings": False},
        {"norm_first": True},
        {"positions": "rotary", "gated_feed_forward": True},
        {"num_layers": 1, "num_segments": 3},
    ],
    ids=str,
)
def test_parameters_are_those_of_the_model(options, pairs):
    config = config_of(**options)
    assert count_parameters(config, pairs) == BertPretrainer(config, next_sentence=pairs).count_params()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", ["tiny", "mini", "small"])
def test_parameters_of_named_sizes(size, tied):
    config = BertConfig.from_size(size, 1009, max_sequence_length=67, tie_embeddings=tied)
    assert count_parameters(config, True) == BertPretrainer(config).count_params()


def test_parameters_of_bert_base():
    # 109,482,240 of BertModel with its pooler (transformers), and 592,700 of the two heads: 768^2 + 768, 2 * 768,
    # 30,522 biases and 2 * 768 + 2 of the pairs
    heads = 768**2 + 768 + 2 * 768 + 30_522 + 2 * 768 + 2
    assert count_parameters(BertConfig.from_size("base", 30_522), True) == 109_482_240 + heads


def products_in_graph(function, *arguments):
    """`2 a b c` for each matrix product that the outputs of a function need in TensorFlow's graph of it."""
    total, graph = 0, tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    found, waiting = set(), [output.op for output in graph.outputs]
    while waiting:  # the derivative by a one-hot matrix is in the graph too, and nobody asks for it
        operation = waiting.pop()
        if operation in found:
            continue
        found.add(operation)
        waiting += [tensor.op for tensor in operation.inputs]
        if operation.type in ("MatMul", "BatchMatMulV2"):
            transposed = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
            summed = operation.inputs[0].shape[-2 if transposed else -1]
            total += 2 * int(np.prod(operation.outputs[0].shape)) * summed
    return total


@pytest.mark.parametrize("kind", ["nsp", "none", "packed"])
@pytest.mark.parametrize("tied", [True, False])
def test_flops_are_those_of_the_graph(kind, tied):
    pairs = kind == "nsp"
    config = config_of(tie_embeddings=tied)
    model = BertPretrainer(config, next_sentence=pairs)
    inputs = {"token_ids": tf.ones((ROWS, LENGTH), tf.int32), "mask_positions": tf.ones((ROWS, ASKED), tf.int32)}
    if kind == "packed":
        inputs |= {"sequence_ids": inputs["token_ids"], "position_ids": inputs["token_ids"]}
    else:
        inputs |= {"padding_mask": tf.ones((ROWS, LENGTH), tf.bool), "segment_ids": inputs["token_ids"]}
    labels = {"mlm_labels": tf.ones((ROWS, ASKED), tf.int32), "mlm_weights": tf.ones((ROWS, ASKED))}
    if pairs:
        labels["nsp_labels"] = tf.ones(ROWS, tf.int32)

    def gradient(inputs, labels):
        with tf.GradientTape() as tape:
            sums = pretraining_sums(model(inputs, training=True), labels)
            loss = pretraining_loss(sums, sums)
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    shape = (config, ROWS, LENGTH, ASKED, pairs)
    planned = sum(step_flops(*shape).values()) + extra_flops(*shape, kind == "packed")
    assert products_in_graph(gradient, inputs, labels) == planned


def test_flops_of_xla():
    """XLA's own count also has what is no product, so it is somewhat more; of a wide model hardly."""
    jax = pytest.importorskip("jax")
    width, inner, rows = 512, 2048, 8

    def block(x, up, down):
        return jax.numpy.sum(((x @ up) @ down) ** 2)

    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((rows, width), (width, inner), (inner, width))]
    counted = jax.jit(jax.value_and_grad(block, (0, 1, 2))).lower(*shapes).compile().cost_analysis()
    config = BertConfig(7, num_layers=2, hidden_dim=width, num_heads=1, intermediate_dim=inner)
    counted = (counted[0] if isinstance(counted, list) else counted)["flops"]
    assert counted == pytest.approx(step_flops(config, 1, rows, 0, False)["feed_forward"], rel=0.02)


def test_flops_by_hand():
    # one layer, d = 2, f = 3, V = 5; 1 row of 4, 1 asked, no pairs. Products, forward, as multiplications:
    # keys and values 4 * 2 * 2 * 2 = 32; query and mix of one position 2 * 2 * 2 = 8; scores and average of one
    # 2 * 4 * 2 = 16; feed-forward of one 2 * 2 * 3 = 12; head 2 * 2 + 2 * 5 = 14. Each is two operations, and three
    # times in training.
    config = BertConfig(5, num_layers=1, hidden_dim=2, num_heads=1, intermediate_dim=3, max_sequence_length=4)
    assert step_flops(config, 1, 4, 1, False) == {
        "attention": 6 * 56, "feed_forward": 6 * 12, "head": 6 * 14, "embeddings": 0,
    }  # fmt: skip


def test_flops_are_those_of_the_benchmarks():
    config = BertConfig.from_size(SIZE, VOCABULARY)
    planned = sum(step_flops(config, 32, 128, 20, False).values())
    assert planned == pytest.approx(needed_flops(np.full(32, 128), 32 * 20))


def test_six_operations_for_each_weight_of_a_large_model():
    config = BertConfig.from_size("large", 30_522, max_sequence_length=128)
    flops = sum(step_flops(config, 1, 128, 128, False).values()) / 128  # every position asked for
    kernels = 24 * 12 * 1024**2 + 1024**2 + 1024 * 30_522
    assert flops == pytest.approx(6 * kernels + 24 * 12 * 1024 * 128)


def test_memory_by_hand():
    # d = 2, f = 3, h = 1, two layers, 1 row of 4, 1 asked and no pairs: T = 4 in the first block, 1 in the last
    config = BertConfig(5, num_layers=2, hidden_dim=2, num_heads=1, intermediate_dim=3, max_sequence_length=4)
    kept = kept_elements(config, 1, 4, 1, False)
    assert kept == {
        "sums": 2 * (2 * 4 + 4 * 4 + 3 + 5),
        "projections": 2 * (4 * 4 + 2 * 4 + 2),
        "inner": 3 * 3 * (4 + 1),
        "scores": 2 * 4 * (4 + 1) + 2 * 4,
        "logits": 5,
    }
    parameters = count_parameters(config, False)
    memory = step_memory(config, 1, 4, 1, parameters, next_sentence=False, ema=True)
    assert memory.weights == 4 * parameters
    assert memory.optimizer == 2 * memory.weights == 2 * memory.ema
    assert memory.gradients == 4 * parameters + 4 * 5 * 2  # of a tied table two
    assert memory.activations == 4 * (sum(kept.values()) - 5)
    assert memory.logits == 3 * 4 * 5
    # fullest when the gradient of the table, 5 x 2, is beside two copies of the logits
    assert memory.peak == 4 * memory.weights + memory.activations + 4 * (2 * 5 + 5 * 2)


def test_memory_and_time_with_blocks_computed_again():
    """Of five blocks before the last, one is held whole and of four the input; a third forward pass comes on top."""
    config = BertConfig(5, num_layers=6, hidden_dim=2, num_heads=1, intermediate_dim=3, max_sequence_length=4)
    two = BertConfig(5, num_layers=2, hidden_dim=2, num_heads=1, intermediate_dim=3, max_sequence_length=4)
    again, kept = kept_elements(config, 1, 4, 1, False, recompute=True), kept_elements(two, 1, 4, 1, False)
    assert again == {**kept, "sums": kept["sums"] + 4 * 4 * 2}
    plain, more = (make_plan(PretrainConfig(size="base", recompute=on), PUBLISHED["h100"]) for on in (False, True))
    blocks = plain.flops["attention"] + plain.flops["feed_forward"]
    assert more.product_seconds / plain.product_seconds == pytest.approx(1 + blocks / 3 / sum(plain.flops.values()))
    assert more.extra_flops == pytest.approx(plain.extra_flops + blocks / 3)
    assert more.memory.peak < plain.memory.peak


def test_memory_by_kind():
    config = BertConfig.from_size("mini", 997, max_sequence_length=64)

    def memory(**options):
        return step_memory(config, 8, 64, 10, 1e6, **options)

    plain, split, short = memory(), memory(model_shards=2), memory(precision="mixed_bfloat16")
    assert memory(packed=True).activations - plain.activations == 4 * 2 * 8 * 64 * 64
    assert memory(accumulated=True).peak > plain.peak
    assert plain.activations / 2 < split.activations < plain.activations  # residual sums are on both
    assert split.logits == plain.logits
    assert memory(head_chunks=5).logits == plain.logits / 5
    assert memory(head_chunks=99).logits == plain.logits / 10  # no part has less than a prediction
    assert short.weights == plain.weights
    assert plain.activations / 2 < short.activations - 2e6 < plain.activations  # less the short copy of the weights


def test_micro_batches_save_activations_alone():
    config = PretrainConfig(size="mini", batch_size=64, max_sequence_length=128)
    plans = [make_plan(dataclasses.replace(config, accumulation=parts), ROUND) for parts in (1, 4, 64)]
    assert plans[0].memory.peak > plans[1].memory.peak > plans[2].memory.peak
    last = plans[2].memory
    assert last.peak == last.weights + last.optimizer + last.accumulated + last.gradients
    assert len({plan.step_seconds for plan in plans}) == 1


def test_time_by_hand():
    config = PretrainConfig(batch_size=16, ema=0.99)
    plan = make_plan(config, ROUND, 4, tokens=1e6, fill=0.5, mfu=0.25, price=3.0)
    parameters = plan.parameters
    assert plan.step_tokens == 16 * 64 / 2
    assert plan.steps == 1954  # 1e6 / 512, and the rest
    assert plan.product_seconds == pytest.approx(sum(plan.flops.values()) / (4 * 1e12 * 0.25))
    assert plan.update_seconds == pytest.approx(40 * parameters / 1e10)
    assert plan.reduce_seconds == pytest.approx(2 * 3 / 4 * 4 * parameters / 5e9)
    assert plan.model_parallel_seconds == 0
    assert plan.device_hours == pytest.approx(4 * plan.hours)
    assert plan.money == pytest.approx(3 * plan.device_hours)
    assert make_plan(dataclasses.replace(config, precision="mixed_bfloat16"), ROUND, 4, mfu=0.25).product_seconds == (
        pytest.approx(plan.product_seconds / 2)
    )


def test_devices_that_share_layers():
    config = PretrainConfig(size="mini", batch_size=16)
    alone, shared = make_plan(config, ROUND, 4), make_plan(config, ROUND, 4, model_shards=2)
    assert shared.memory.weights == alone.memory.weights / 2
    assert shared.reduce_seconds == pytest.approx(2 * 1 / 2 * 2 * alone.parameters / 5e9)
    assert shared.model_parallel_seconds == pytest.approx(4 * 8 * (16 * 64 * 256 + 10 * 8000) / 5e9)  # 8 rows on a pair
    assert shared.product_seconds == alone.product_seconds


def test_a_ring_sends_nothing_alone_and_nearly_twice_the_sum_among_many():
    assert ring_seconds(7.0, 1, 0.0) == 0
    assert ring_seconds(8.0, 2, 4.0) == 2
    assert ring_seconds(1.0, 1000, 1.0) == pytest.approx(1.998)


def test_more_micro_batches_where_the_batch_does_not_fit():
    config = PretrainConfig(size="base", batch_size=256, max_sequence_length=128)
    plan = make_plan(config, PUBLISHED["t4"])
    assert not plan.fits
    assert plan.needed_accumulation > 1
    fitting = make_plan(dataclasses.replace(config, accumulation=plan.needed_accumulation), PUBLISHED["t4"])
    assert fitting.fits
    assert fitting.needed_accumulation == plan.needed_accumulation


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_devices(name):
    device, count = find_device(f"{name.removeprefix('tpu-')}:3", "float32")
    assert (device, count) == (PUBLISHED[name], 3)
    assert device.rate("float32") <= device.rate("mixed_bfloat16")
    assert 0 < device.link < device.bandwidth
    assert device.memory >= 16e9


def test_the_cpu_is_measured():
    device = measure_cpu(seconds=0.01, side=64)
    assert device.name == "cpu"
    assert min(device.float32, device.bandwidth, device.memory) > 1e6
    assert device.joined == 1


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("unknown device 'h300'; known are cpu, t4, v100", ["--device", "h300"]),
        ("number of devices must be 1 or more, got 'h200:0'", ["--device", "h200:0"]),
        ("number of devices must be 1 or more, got 'h200:-2'", ["--device", "h200:-2"]),
        ("number of devices must be 1 or more, got 'h200:'", ["--device", "h200:"]),
        ("tokens must be more than 0, got -3e+09", ["--tokens=-3e9"]),
        ("tokens must be more than 0, got nan", ["--tokens", "nan"]),
        ("price must be more than 0, got -1", ["--price=-1"]),
        ("mfu must be a share, more than 0 and at most 1, got 35", ["--mfu", "35"]),
        ("fill must be a share", ["--fill", "0"]),
        ("give --tokens or --steps, not both", ["--tokens", "1e6", "--steps", "10"]),
        ("the link of h200 joins 8, not 16; give --link", ["--device", "h200:16", "--batch-size", "64"]),
        ("model_shards=3 does not divide 8 devices", ["--device", "h200:8", "--model-shards", "3"]),
        ("model_shards=4 does not divide the 2 heads", ["--device", "h200:8", "--model-shards", "4"]),
        ("batch_size=32 does not divide by 64", ["--device", "tpu-v4:64"]),
        ("does not fit: a step may fill 90% of the 16 GB of t4", ["--size", "large", "--hidden-dim", "4096"]),
    ],
)
def test_bad_input_is_told_in_one_line(message, arguments, capsys):
    device = [] if "--device" in arguments else ["--device", "t4"]
    assert main(["plan", *device, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_command(capsys):
    arguments = ["plan", "--size", "base", "--tokens", "3e9", "--device", "h200:8", "--precision", "mixed_bfloat16"]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 1_464_844  # 3e9 pieces in batches of 32 rows of 64
    assert plan["devices"] == 8
    assert plan["device"]["name"] == "h200"
    assert plan["money"] is None
    assert plan["fits"] is True
    assert main(arguments) == 0
    table = capsys.readouterr().out
    for words in (
        "1,464,844  of 2,048 real pieces",
        "at 35% of 989.5 TFLOP/s",
        "head, masked positions only",
        "  fits ",
    ):
        assert words in table
    assert "money" not in table
    assert main([*arguments, "--price", "2.5"]) == 0
    assert "at 2.5 for a device and hour" in capsys.readouterr().out


def test_the_command_reads_a_run(tmp_path, capsys):
    path = tmp_path / "config.toml"
    path.write_text(PretrainConfig(size="mini", batch_size=64, pairs="packed").to_toml())
    assert main(["plan", "--config", str(path), "--device", "l4:2", "--accumulation", "4"]) == 0
    assert "2 x l4" in capsys.readouterr().out
