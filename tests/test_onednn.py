"""Convolutions by oneDNN: the definition and both gradients, every transformation, and where it is not called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_algorithms import TRANSFORMATIONS, by_definition, close, drawn_problem, with_gradients

import fcnn
from fcnn.ops.convolution import Geometry, convolve, onednn, onednn_use, use_algorithm
from fcnn.ops.convolution.choice import Problem, choose, refusal

here = pytest.mark.skipif(onednn_use.unusable() is not None, reason=f"oneDNN: {onednn_use.unusable()}")
CALL = "__onednn$convolution"


@pytest.fixture
def blocks_of_few(monkeypatch):
    """Kernel gradients in parts already for small arrays."""
    for name, value in {"_BLOCK": 2000, "_LARGEST": 3000, "_FEWEST": 2, "_FEW": 2, "_CHANNELS": 1}.items():
        monkeypatch.setattr(onednn, name, value)


def drawn(seed):
    """A random problem that oneDNN takes, in float32, and the definition's answers."""
    for attempt in range(50):
        x, kernel, g, how = drawn_problem("onednn", 100 * seed + attempt)
        x, kernel, g = (a.astype("float32") for a in (x, kernel, g))
        how = how.plain
        if refusal("onednn", Problem("forward", x.shape, kernel.shape, how, "float32", "cpu", onednn=True)) is None:
            return x, kernel, g, how
    raise AssertionError("no problem that oneDNN takes")


@here
@pytest.mark.parametrize("seed", range(40))
def test_it_computes_the_definition_and_its_gradients(seed):
    x, kernel, g, how = drawn(seed)
    defined = (by_definition(x, kernel, how), *by_definition(x, kernel, how, g))
    function = jax.jit(with_gradients(lambda x, kernel: convolve(x, kernel, how, "onednn")))
    close(function(x, kernel, g), defined, 1e-5)
    assert CALL in function.lower(x, kernel, g).as_text()


@here
@pytest.mark.parametrize("shape", [(9, 7, 6, 3), (2, 30, 9, 4), (5, 40, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_kernel_gradients_in_parts_are_the_same(shape, stride, blocks_of_few):
    rank = len(shape) - 2
    ones = (1,) * rank
    how = Geometry((stride,) * rank, ((2, 1),) * rank, (2,) * rank, 1, ones, ones)
    draw = np.random.default_rng(0)
    x, kernel = draw.normal(size=shape), draw.normal(size=(*(3, 2)[:rank], shape[-1], 5))
    g = draw.normal(size=(shape[0], *how.out(shape[1:-1], kernel.shape[:-2]), 5))
    arrays = [a.astype("float32") for a in (x, kernel, g)]
    found = jax.jit(lambda x, g: onednn.kernel_gradient(x, g, how, kernel.shape[:-2]))(arrays[0], arrays[2])
    close(found, by_definition(x, kernel, how, g)[1], 1e-5)


KINDS = {
    "dense": Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1, (1, 1), (1, 1)),
    "strided": Geometry((2, 2), ((1, 1), (0, 1)), (1, 1), 1, (1, 1), (1, 1)),
    "grouped": Geometry((1, 1), ((1, 1), (1, 1)), (1, 2), 2, (1, 1), (1, 1)),
    "transposed": Geometry((1, 1), ((1, 2), (2, 1)), (1, 1), 1, (2, 2), (1, 1)),
}


@here
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_it_keeps_every_transformation(name, kind):
    how, transformation, draw = KINDS[kind], TRANSFORMATIONS[name], np.random.default_rng(1)
    x, kernel = draw.normal(size=(2, 5, 6, 4)), draw.normal(size=(3, 3, 4 // how.groups, 4))
    arrays = [jnp.asarray(a, "float32") for a in (x, kernel, *(draw.normal(size=a.shape) for a in (x, kernel)))]
    found, wanted = (
        jax.jit(lambda *a, algorithm=algorithm: transformation(lambda x, k: convolve(x, k, how, algorithm), *a))(
            *arrays
        )
        for algorithm in ("onednn", "direct")
    )
    close(found, wanted, 3e-5)


@here
def test_half_precision_is_summed_in_float32():
    draw = np.random.default_rng(2)
    x, kernel = (jnp.asarray(draw.normal(size=s), "bfloat16") for s in ((2, 8, 8, 16), (3, 3, 16, 8)))
    how = KINDS["dense"]
    y = convolve(x, kernel, how, "onednn")
    wanted = by_definition(np.asarray(x, float), np.asarray(kernel, float), how)
    assert y.dtype == "bfloat16"
    np.testing.assert_allclose(np.asarray(y, float), wanted, rtol=0.51 * 2**-7, atol=1e-4)


def text_of(function, *arrays):
    return jax.jit(function).lower(*arrays).as_text()


NET = fcnn.serial(fcnn.Conv(32, 3, padding="SAME"), jax.nn.relu, fcnn.Conv(32, 3, stride=2))
SHAPE = (16, 16, 24)


@here
def test_an_ordinary_network_calls_it_and_its_export_does_not():
    params = NET.init(jax.random.key(0), SHAPE)
    x = jnp.ones((2, *SHAPE))
    assert text_of(NET.apply, params, x).count(CALL) == 2
    with use_algorithm("direct"):
        assert CALL not in text_of(lambda params, x: NET.apply(params, x), params, x)
    assert CALL not in jax.export.export(jax.jit(lambda params, x: NET.apply(params, x)))(params, x).mlir_module()


TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
import fcnn
net = fcnn.serial(fcnn.Conv(32, 3, padding="SAME"), jax.nn.relu, fcnn.Conv(32, 3, stride=2))
params = net.init(jax.random.key(0), (16, 16, 24))
x = jax.random.normal(jax.random.key(1), (4, 16, 16, 24))
mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
spread = jax.device_put(x, NamedSharding(mesh, P("batch")))
whole = jax.device_put(params, NamedSharding(mesh, P()))
one, both = jax.jit(net.apply), jax.jit(lambda params, x: net.apply(params, x))
mapped = jax.jit(jax.shard_map(lambda params, x: net.apply(params, x), mesh=mesh, in_specs=(P(), P("batch")),
                               out_specs=P("batch")))
calls = ["__onednn$convolution" in f.lower(p, a).as_text() for f, p, a in
         ((one, params, x), (both, whole, spread), (mapped, whole, spread))]
y = one(params, x)
for other in (both(whole, spread), mapped(whole, spread)):
    np.testing.assert_allclose(y, other, rtol=1e-5, atol=1e-5)
print(calls)
"""


@here
def test_a_program_of_several_devices_calls_it_only_where_each_computes_by_itself():
    variables = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES], env=variables, capture_output=True, text=True)
    assert done.stdout == "[True, False, True]\n", done.stderr


# Where it may be called.


def test_the_switch_and_versions_that_were_not_tried(monkeypatch, tmp_path):
    variables = {"XDG_CACHE_HOME": str(tmp_path)}
    assert "FCNN_ONEDNN is 0" in onednn_use._unusable({**variables, "FCNN_ONEDNN": "0"})
    monkeypatch.setattr(onednn_use, "_version", lambda: "9.9.9")
    assert "jaxlib 9.9.9" in (onednn_use._unusable(variables) or "") or sys.platform != "linux"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "x86 Linux alone" in onednn_use._unusable(variables)


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A machine of which nothing is known yet."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(onednn_use, "_version", lambda: onednn_use.TESTED[0])
    monkeypatch.setattr(onednn_use, "_processor", lambda: "some processor with avx2")
    return {"XDG_CACHE_HOME": str(tmp_path)}


def test_known_answers_are_computed_once_for_a_machine(elsewhere, monkeypatch):
    tried = []
    monkeypatch.setattr(onednn_use, "_tried", lambda environment: tried.append(1))
    assert onednn_use._unusable(elsewhere) is None
    assert onednn_use._unusable(elsewhere) is None
    assert len(tried) == 1
    monkeypatch.setattr(onednn_use, "_processor", lambda: "another with avx2")
    assert onednn_use._unusable(elsewhere) is None
    assert len(tried) == 2
    (record,) = Path(elsewhere["XDG_CACHE_HOME"]).rglob("*.json")
    assert len(json.loads(record.read_text())) == 2
    record.write_text("{")  # as a full disk leaves it
    assert onednn_use._unusable(elsewhere) is None
    assert len(tried) == 3


def test_a_process_that_fails_is_believed(elsewhere, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho could not permute >&2\nexit 134\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert "status 134: could not permute" in onednn_use._unusable(elsewhere)
    python.write_text("#!/bin/sh\nexit 0\n")
    assert "status 134" in onednn_use._unusable(elsewhere)  # remembered


def test_where_nothing_can_be_remembered_it_is_tried_each_time(elsewhere, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    tried = []
    monkeypatch.setattr(onednn_use, "_tried", lambda environment: tried.append(1))
    for _ in range(2):
        assert onednn_use._unusable({"XDG_CACHE_HOME": str(tmp_path / "file")}) is None
    assert len(tried) == 2


@here
def test_a_wrong_answer_would_be_noticed(monkeypatch):
    onednn_use.known_answers()
    right = onednn.forward
    monkeypatch.setattr(onednn, "forward", lambda *given: right(*given) + 1)
    with pytest.raises(AssertionError, match="wrong for x"):
        onednn_use.known_answers()


def test_refusals_say_why():
    def asked(x=(2, 8, 8, 4), kernel=(3, 3, 4, 4), operation="forward", dtype="float32", onednn=True, **options):
        ones = {"stride": (1, 1), "dilation": (1, 1), "input_dilation": (1, 1), "groups": 1} | options
        how = Geometry(ones["stride"], ((1, 1),) * 2, ones["dilation"], ones["groups"], ones["input_dilation"], (1, 1))
        return Problem(operation, x, kernel, how, dtype, "cpu", onednn=onednn)

    assert refusal("onednn", asked()) is None
    assert "no float64" in refusal("onednn", asked(dtype="float64"))
    assert "stride 1 and dilation 1" in refusal("onednn", asked(input_dilation=(2, 2), dilation=(2, 2)))
    assert "one group" in refusal("onednn", asked(operation="kernel", groups=2, kernel=(3, 3, 2, 4)))
    assert "onednn" in refusal("onednn", asked(onednn=False))
    assert choose(asked(kernel=(3, 3, 64, 64), x=(2, 8, 8, 64))).algorithm == "onednn"
    assert choose(asked(kernel=(3, 3, 64, 64), x=(2, 8, 8, 64), onednn=False)).algorithm == "winograd"
