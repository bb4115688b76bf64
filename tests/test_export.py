"""Exported programs run in a process that has no fcnn, for any number of examples, and are made for other platforms."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn import interop, models

pytest.importorskip("flatbuffers", reason="exported programs are written with flatbuffers: pip install 'fcnn[interop]'")

RUN = """
import sys
sys.modules["fcnn"] = None  # an import of it would fail
import jax, numpy as np
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
given = np.load(sys.argv[2])
np.savez(sys.argv[3], **{name: program.call(given[name]) for name in given})
"""

NETWORKS = {
    "lenet5": (models.lenet5(), (28, 28, 1)),
    "resnet": (models.resnet(8, 10, cifar=True), (32, 32, 3)),
    "unet": (models.unet(3, widths=(4, 8)), (16, 20, 1)),
    "sound": (models.m5(5, width=8), (2000, 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fresh_process_without_fcnn_computes_the_same_for_any_batch(name, tmp_path):
    net, shape = NETWORKS[name]
    params, state = net.init(jax.random.key(0), shape), net.init_state(shape)
    path = tmp_path / "net.stablehlo"
    program = interop.export(net, params, state, shape, path=path)
    assert program.platforms == ("cpu", "cuda", "rocm", "tpu")
    batches = {str(n): np.random.default_rng(n).normal(size=(n, *shape)).astype("float32") for n in (1, 3)}
    np.savez(tmp_path / "given.npz", **batches)
    command = [sys.executable, "-c", RUN, str(path), str(tmp_path / "given.npz"), str(tmp_path / "made.npz")]
    subprocess.run(command, check=True, timeout=300)
    with np.load(tmp_path / "made.npz") as made:
        for count, x in batches.items():
            wanted = jax.jit(net.apply)(params, jnp.asarray(x), state=state)
            np.testing.assert_allclose(made[count], wanted, rtol=1e-4, atol=1e-5)


def test_several_inputs_and_outputs_and_a_batch_that_is_known():
    net = models.siamese(fcnn.serial(fcnn.Flatten(), fcnn.Dense(3)))
    params = net.init(jax.random.key(0), (4, 4, 1), (4, 4, 1))
    program = interop.export(net, params, None, (4, 4, 1), (4, 4, 1), batch=2, platforms=("cpu",))
    a, b = jnp.ones((2, 4, 4, 1)), jnp.zeros((2, 4, 4, 1))
    np.testing.assert_allclose(program.call(a, b), net.apply(params, a, b), rtol=1e-6)
    with pytest.raises(ValueError, match="2"):
        program.call(a[:1], b[:1])


MISTAKES = {
    "platform": (
        {"platforms": ("gpu",)},
        ((28, 28, 1),),
        ValueError,
        "export: platform 'gpu' is unknown; use some of 'cpu'",
    ),
    "no shape": ({}, (), ValueError, "export: there is no shape"),
    "another shape": ({}, ((4, 4, 1),), ValueError, "conv2: kernel"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained_and_nothing_is_written(name, tmp_path):
    options, shapes, kind, words = MISTAKES[name]
    net = models.lenet5()
    params = net.init(jax.random.key(0), (28, 28, 1))
    with pytest.raises(kind, match=words):
        interop.export(net, params, None, *shapes, path=tmp_path / "a" / "net", **options)
    assert not list(tmp_path.iterdir())
