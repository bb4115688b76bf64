"""``fit`` over the devices of a mesh gives what it gives on one; eight virtual devices, in a process of their own."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("orbax.checkpoint", reason="checkpoints need orbax-checkpoint")

#: seconds after which the child is taken to hang
LIMIT = 300

CODE = """
import json, logging, os, re, signal, sys
import jax, jax.numpy as jnp, numpy as np, optax, fcnn
from jax.sharding import AxisType
from fcnn.data import augment
from fcnn.training import Checkpoints, compiled_loop
from fcnn.training.sharding import Sharding

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_enable_x64", True)
numbers = np.random.default_rng(0)
x, y = numbers.normal(size=(40, 8, 8, 2)), numbers.integers(0, 3, 40).astype(np.int32)
net = fcnn.serial(
    fcnn.Conv(4, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2), fcnn.Dropout(0.2),
    fcnn.Conv(8, 3), fcnn.Flatten(), fcnn.Dense(3),
)
begin = jax.tree.map(
    lambda a: np.asarray(a, np.float64), (net.init(jax.random.key(5), (8, 8, 2)), net.init_state((8, 8, 2)))
)
momentum = optax.sgd(0.1, momentum=0.9)
crop = augment.compose(augment.Affine(translate=1))
eight = jax.make_mesh((8,), ("batch",))

def fit(mesh=None, data=None, dtype=np.float64, **more):
    data = (x.astype(dtype), y) if data is None else data
    params, state = jax.tree.map(lambda a: a.astype(dtype), begin)
    given = {"optimizer": momentum, "epochs": 2, "batch_size": 16, "key": jax.random.key(1), "progress": False, **more}
    return fcnn.fit(net, data, mesh=mesh, params=params, state=state, **given)

def leaves(run):
    history = {name: values for name, values in run.history.items() if name != "seconds"}
    tree = run.params, run.state, run.train.optimizer_state, run.train.step, history
    return [np.asarray(a) for a in jax.tree.leaves(tree)]

def difference(one, other):  # over leaves, the largest, in parts of the largest value of the leaf
    pairs = zip(leaves(one), leaves(other), strict=True)
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(a))) for a, b in pairs)

said = {}

# arrays, with everything that draws random numbers or looks at the whole batch; the last 3 of 19 are a batch of 3
full = {"augment": crop, "validation": (x[:19], y[:19])}
compiled = []
class Compiled(logging.Handler):
    def emit(self, record):
        compiled.extend(re.findall(r"Finished XLA compilation of jit\\((many|one)\\)", record.getMessage()))
log = logging.getLogger("jax")
log.addHandler(Compiled())
log.propagate = False
one = fit(**full)
jax.config.update("jax_log_compiles", True)
many = fit(eight, **full)
jax.config.update("jax_log_compiles", False)
said["programs"] = compiled
said["arrays"] = difference(one, many)
kinds = {kind.name: jax.make_mesh((8,), ("batch",), axis_types=(kind,)) for kind in (AxisType.Auto, AxisType.Explicit)}
for name, mesh in kinds.items():
    said[name] = difference(one, fit(mesh, **full))
said["two_axes"] = difference(one, fit(jax.make_mesh((4, 2), ("hosts", "chips")), **full))
said["everywhere"] = all(len(a.sharding.device_set) == 8 for a in jax.tree.leaves(many.params))
parts = fcnn.evaluate(net, jax.device_put(one.params, jax.devices()[0]), (x, y), state=one.state, mesh=eight)
whole = fcnn.evaluate(net, one.params, (x, y), state=one.state)
said["evaluate"] = max(abs(parts[name] - whole[name]) for name in whole)

batches = lambda epoch: [(x[i : i + 16], y[i : i + 16]) for i in (0, 16, 24)]
said["batches"] = difference(fit(data=batches), fit(eight, batches))
said["accumulate"] = difference(fit(accumulate=2), fit(eight, accumulate=2))

# a run that is stopped after its first epoch and taken up
folder = Checkpoints(sys.argv[1], every_seconds=None, every_steps=1)
try:
    fit(eight, **full, checkpoint=folder, callbacks=[lambda info: os.kill(os.getpid(), signal.SIGTERM)])
except SystemExit as end:
    said["stopped"] = end.code
resumed = fit(eight, **full, checkpoint=folder, resume=True)
said["resumed"] = all(a.tobytes() == b.tobytes() for a, b in zip(leaves(many), leaves(resumed), strict=True))

def error(call):
    try:
        call()
    except Exception as failure:
        return f"{type(failure).__name__}: {failure}"
said["errors"] = [
    error(lambda: fit(eight, batch_size=20)), error(lambda: fit(eight, [(x[:12], y[:12])])), error(lambda: fit(8)),
]

# what a device computes, and what devices tell each other
wide = fcnn.serial(fcnn.Conv(32, 3, padding="SAME"), fcnn.BatchNorm(), fcnn.Conv(32, 3), fcnn.Flatten(), fcnn.Dense(3))
jax.config.update("jax_enable_x64", False)
sharding = Sharding.over(eight)
train = sharding.replicate(fcnn.training.start(wide, momentum, jax.random.key(0), (8, 8, 2)))
step = fcnn.training.make_step(wide, momentum)
data = jax.device_put(((x.astype("float32"),), y, np.arange(40, dtype="int32")), sharding.replicated)
scalars = [np.int32(0)] * 3
text = compiled_loop.resident(step, 16, sharding, False, False).lower(train, *data, *scalars).compile().as_text()
said["outputs"] = re.findall(r" = f32\\[(\\d+),[68],[68],32\\]\\S* convolution\\(", text)
said["gathers"] = re.findall(r"all-gather|all-to-all|collective-permute", text)
said["reduces"] = len(re.findall(r"all-reduce(?:-start)?\\(", text))

one, many = (fit(mesh, dtype=np.float32, **full, epochs=1) for mesh in (None, eight))
said["float32"] = difference(one, many)
one, many = (fit(mesh, dtype=np.float32, epochs=1, precision="bfloat16") for mesh in (None, eight))
said["bfloat16"] = difference(one, many)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the child process said."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CODE, str(tmp_path_factory.mktemp("run") / "kept")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["arrays", "batches", "accumulate", "Auto", "Explicit", "two_axes", "evaluate"])
def test_eight_devices_train_as_one_does(said, what):
    assert said[what] < 1e-12


def test_eight_devices_train_as_one_does_in_single_and_in_half_precision(said):
    assert said["float32"] < 2 * 1e-6  # two steps
    assert said["bfloat16"] < 2**-5  # eight bits are left, and sums over the batch are rounded in another order


def test_a_run_on_a_mesh_goes_on_bit_for_bit(said):
    assert (said["stopped"], said["resumed"]) == (143, True)


def test_a_run_is_one_program_and_its_params_are_on_every_device(said):
    assert said["programs"].count("many") == 1
    assert said["everywhere"]


def test_every_device_computes_its_part_and_only_sums_travel(said):
    assert said["outputs"]
    assert set(said["outputs"]) == {"2"}  # of 16
    assert said["gathers"] == []
    assert said["reduces"] > 0


def test_what_cannot_be_shared_is_an_error(said):
    size, batch, mesh = said["errors"]
    assert "ValueError: fit: a batch of 20 examples cannot be shared equally by the 8 devices" in size
    assert "a batch of 12 examples cannot be shared equally by the 8 devices of the mesh" in batch
    assert mesh.startswith("TypeError: fit: mesh must be a mesh of devices")
