import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from bertkeras import BertKerasError
from bertkeras.training.cluster import Cluster, cluster_from_environment
from bertkeras.training.distribution import STRATEGIES, WORKS_ON, Distribution, choose_distribution
from bertkeras.training.virtual import Shares, check_virtual_devices, sum_in_pairs
from tests.distribution.processes import environment

BACKEND = keras.backend.backend()


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "auto" and s not in WORKS_ON[BACKEND]])
def test_a_pair_that_cannot_work_names_what_does(strategy):
    other = next(name for name, strategies in WORKS_ON.items() if strategy in strategies)
    with pytest.raises(BertKerasError, match=f"{strategy}.*does not work on {BACKEND}.*KERAS_BACKEND={other}"):
        choose_distribution(strategy)


def test_every_pair_is_either_refused_or_in_the_table_of_tests():
    from tests.distribution.test_equal import TABLE

    tested = {(backend, cell["strategy"]) for backend, cell in TABLE}
    assert tested | {("jax", "tpu")} == {(backend, name) for backend, names in WORKS_ON.items() for name in names}


@pytest.mark.parametrize("strategy", ["single", "mirrored"])
def test_one_process_among_several_must_take_part(strategy):
    if strategy not in WORKS_ON[BACKEND]:
        pytest.skip(f"not on {BACKEND}")
    with pytest.raises(BertKerasError, match="one process, and the environment names 2"):
        choose_distribution(strategy, cluster=Cluster(("a:1", "b:1")))


def test_bad_names_and_shards():
    with pytest.raises(BertKerasError, match="strategy must be one of auto, single"):
        choose_distribution("horovod")
    with pytest.raises(BertKerasError, match="model_shards is for strategy model_parallel"):
        choose_distribution("auto", model_shards=2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="strategies of TensorFlow")
def test_strategies_that_find_too_few():
    with pytest.raises(BertKerasError, match="multi_worker.*needs several processes.*bertkeras launch"):
        choose_distribution("multi_worker")
    with pytest.raises(BertKerasError, match="mirrored.*finds one device.*BERTKERAS_CPU_DEVICES=2"):
        choose_distribution("mirrored")


def say(backend, code, **options):
    result = subprocess.run(
        [sys.executable, "-c", f"from bertkeras.training.distribution import *\n{code}"],
        env=environment(backend, **options),
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    ("devices", "strategy", "shards", "words"),
    [
        (1, "tpu", None, "finds no TPU, but cpu devices"),
        (4, "model_parallel", 3, "model_shards=3 does not divide the 4 devices"),
        (2, "auto", None, "data_parallel on jax: 2 devices"),
        (1, "auto", None, "single on jax: 1 device"),
    ],
)
def test_jax_says_what_it_finds(devices, strategy, shards, words):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    code = f"print(choose_distribution({strategy!r}, model_shards={shards}))"
    assert words in say("jax", code, devices=devices)


def test_a_layout_that_did_not_match_is_an_error():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    code = """
import keras
from bertkeras import BertConfig, BertPretrainer
from bertkeras.training import AdamW, make_train_step
distribution = choose_distribution("model_parallel")
model = BertPretrainer(BertConfig(97, 1, 24, 4, 40, 19))  # outside of the scope
make_train_step(model, AdamW(), distribution=distribution)
"""
    assert "the layout did not reach" in say("jax", code, devices=4)


def test_a_number_of_devices_that_is_none():
    assert "BERTKERAS_CPU_DEVICES must be a number" in say(
        "tensorflow", "choose_distribution('mirrored')", devices="two"
    )


def test_batches_that_devices_do_not_divide():
    distribution = Distribution()
    distribution.replicas = 4
    distribution.check_batch(24, 3)
    with pytest.raises(
        BertKerasError, match="4 devices and accumulation=3 do not divide batch_size=32; .*multiple of 12"
    ):
        distribution.check_batch(32, 3)


TF_CONFIG = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}
WITH_CHIEF = {"cluster": {"chief": ["c:3"], "worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_JOB_ID": "70007", "SLURM_STEP_NODELIST": "gpu[08-10],login"}


@pytest.mark.parametrize(
    ("variables", "workers", "index"),
    [
        ({}, ("localhost:0",), 0),
        ({"BERTKERAS_WORKERS": "a:1,[::1]:2", "BERTKERAS_WORKER": "1"}, ("a:1", "[::1]:2"), 1),
        ({"TF_CONFIG": json.dumps(TF_CONFIG)}, ("a:1", "b:2"), 1),
        ({"TF_CONFIG": json.dumps(WITH_CHIEF)}, ("c:3", "a:1", "b:2"), 2),
        (SLURM, ("gpu08:12362", "gpu09:12362", "gpu10:12362", "login:12362"), 2),
        ({**SLURM, "SLURM_STEP_NODELIST": "n[1,3]"}, ("n1:12362", "n1:12363", "n3:12362", "n3:12363"), 2),
        ({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"}, ("localhost:0",), 0),
        ({**SLURM, "SLURM_NTASKS": "1"}, ("localhost:0",), 0),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, ("localhost:0",), 0),
        (
            {**SLURM, "SLURM_NTASKS": "3", "SLURM_STEP_NODELIST": "a[1-2]-ib,b"},
            ("a1-ib:12362", "a2-ib:12362", "b:12362"),
            2,
        ),
    ],
)
def test_the_processes_are_read_from_the_environment(variables, workers, index):
    assert cluster_from_environment(variables) == Cluster(workers, index)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"BERTKERAS_WORKERS": "a:1,b:2"}, "BERTKERAS_WORKER must be a number, got None"),
        ({"BERTKERAS_WORKERS": "a:1,b:2", "BERTKERAS_WORKER": "2"}, "process 2 of 2; they are counted from 0"),
        ({"BERTKERAS_WORKERS": "a,b", "BERTKERAS_WORKER": "0"}, "'a' is no address.*host:port"),
        ({"TF_CONFIG": "{"}, "TF_CONFIG must be like"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "TF_CONFIG must be like"),
        ({"TF_CONFIG": json.dumps({**TF_CONFIG, "cluster": {"worker": ["a:1"], "ps": ["b:1"]}})}, "names worker, ps"),
        ({**SLURM, "SLURM_NTASKS": "6"}, "6 tasks on 4 nodes"),
        ({**SLURM, "SLURM_STEP_NODELIST": "n[1-2,x]"}, "cannot read SLURM_STEP_NODELIST"),
    ],
)
def test_an_environment_that_cannot_be_read_is_told_in_one_line(variables, words):
    with pytest.raises(BertKerasError, match=words) as caught:
        cluster_from_environment(variables)
    assert "\n" not in str(caught.value)


def test_processes_of_one_host_are_counted():
    workers = ("a:1", "b:1", "b:2", "[::1]:3")
    found = [(Cluster(workers, index).shares_host, Cluster(workers, index).place_on_host) for index in range(4)]
    assert found == [(False, 0), (True, 0), (True, 1), (False, 0)]


def test_tensorflow_gets_the_cluster_as_it_reads_it():
    assert json.loads(Cluster(("a:1", "b:2"), 1).tf_config()) == TF_CONFIG


def test_virtual_devices_that_the_real_ones_cannot_share_out():
    distribution = Distribution()
    distribution.replicas = 3
    with pytest.raises(BertKerasError, match="3 devices cannot share out virtual_devices=8; take a power of two"):
        check_virtual_devices(8, distribution=distribution)
    distribution.replicas, distribution.name = 1, "model_parallel"
    with pytest.raises(BertKerasError, match="does not go with strategy model_parallel"):
        check_virtual_devices(8, distribution=distribution)


@pytest.mark.parametrize(("hosts", "devices"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 2), (8, 1)])
def test_every_row_lies_in_one_part_and_the_parts_are_those_of_one_device(hosts, devices):
    rows, parts = np.arange(24), 8
    found = {}
    for host in range(hosts):
        distribution = Distribution()
        distribution.replicas, distribution.part = hosts * devices, (host, hosts)
        shares = Shares(parts, distribution)
        for local in range(devices):
            replica = shares.replica(local)
            assert shares.place(replica) == host * devices + local
            for number in shares.numbers(replica):
                first, every = shares.among_rows_here(number)
                found[number] = rows[host::hosts][first::every].tolist()
    assert found == {number: rows[number::parts].tolist() for number in range(parts)}


def test_sums_in_pairs_are_the_same_wherever_the_parts_lie():
    def tree(parts):
        return sum_in_pairs(parts, str, lambda one, other: f"({one}+{other})")

    assert tree(range(8)) == "(((0+4)+(2+6))+((1+5)+(3+7)))"
    halves = [tree(range(8)[replica::2]) for replica in range(2)]
    assert f"({halves[0]}+{halves[1]})" == tree(range(8))
