"""A batch spread over devices gives the results of one device; eight virtual devices, in a process of their own."""

import functools
import os
import subprocess
import sys

import pytest
import xla_flags

CODE = """
import sys, jax, jax.numpy as jnp, numpy as np, fcnn
from jax.sharding import NamedSharding, PartitionSpec

jax.config.update("jax_enable_x64", True)
net = fcnn.serial(
    fcnn.Conv(4, 3, padding="SAME"), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2), fcnn.Dropout(0.2),
    fcnn.Conv(8, 3, groups=2), fcnn.AvgPool(2), fcnn.Flatten(), fcnn.Dense(3),
)
params, state = net.init(jax.random.key(0), (8, 8, 2)), net.init_state((8, 8, 2))
x = jax.random.normal(jax.random.key(1), (16, 8, 8, 2))

def training(params, state, x):
    def loss(p):
        y, new = net.apply_train(p, x, key=jax.random.key(2), state=state)
        return jnp.mean(y**2), (y, new)
    return jax.grad(loss, has_aux=True)(params)

def use(params, state, x):
    return jax.value_and_grad(lambda x: jnp.sum(net.apply(params, x, state=state) ** 2))(x)

def each_example(params, state, x):
    def loss(p, one):
        return jnp.sum(net.apply(p, one[None], state=state) ** 2)
    return jax.vmap(jax.grad(loss), (None, 0))(params, x)

def each_example_by_lax(params, state, x):
    def loss(kernel, one):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jnp.sum(jax.lax.conv_general_dilated(one[None], kernel, (1, 1), "SAME", dimension_numbers=numbers) ** 2)
    return jax.vmap(jax.grad(loss), (None, 0))(params["conv1"]["kernel"], x)

kind = getattr(jax.sharding.AxisType, sys.argv[1])
mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
everywhere = jax.device_put((params, state), NamedSharding(mesh, PartitionSpec()))
for name in sys.argv[2:]:
    function = jax.jit(globals()[name])
    one, many = function(params, state, x), function(*everywhere, spread)
    try:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), one, many)
    except AssertionError as error:
        print(f"{name}: {error}", file=sys.stderr)
    else:
        print(f"{name}: {len(spread.sharding.device_set)} devices agree with one")
"""

FAULT = (
    "XLA partitions the kernel gradient of a vmapped convolution wrongly (jax 0.10.2, all backends share the "
    "partitioner); fcnn.ops.conv computes it by products instead. Where this passes, the detour is no longer needed"
)


#: what is compared under axes of either kind
COMPARED = {"Auto": ("training", "use", "each_example", "each_example_by_lax"), "Explicit": ("training", "use")}


@functools.cache
def compare(axes):
    """Run CODE on eight virtual devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags.known()} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CODE, axes, *COMPARED[axes]]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("function", "axes"),
    [("training", "Auto"), ("use", "Auto"), ("each_example", "Auto"), ("training", "Explicit"), ("use", "Explicit")],
)
def test_a_batch_on_eight_devices_gives_what_one_device_gives(function, axes):
    done = compare(axes)
    assert f"{function}: 8 devices agree with one" in done.stdout.splitlines(), done.stderr


@pytest.mark.xfail(reason=FAULT, raises=AssertionError, strict=True)
def test_the_gradients_of_each_example_by_plain_lax():
    done = compare("Auto")
    agrees = "each_example_by_lax: 8 devices agree with one" in done.stdout.splitlines()
    if done.returncode or not (agrees or "Mismatched elements" in done.stderr):
        raise RuntimeError(done.stderr)  # not the fault
    assert agrees, done.stderr
