"""Where two networks begin to differ, layer by layer, and why: every planted difference is found and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn
from fcnn import interop, models

torch = pytest.importorskip("torch", reason="PyTorch is the other framework: pip install torch==2.13.0")

nn = torch.nn
NET = fcnn.serial(
    fcnn.Conv(6, 3, stride=2, padding=1), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(3, stride=2, padding=1),
    fcnn.residual(fcnn.serial(fcnn.Conv(6, 3, padding=1), fcnn.BatchNorm(), jax.nn.relu6)),
    fcnn.Flatten(), fcnn.Dense(8), jax.nn.relu, fcnn.Dropout(0.5), fcnn.Dense(3),
)  # fmt: skip
SHAPE = (17, 16, 2)


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, 2, 1)
        self.bn1 = nn.BatchNorm2d(6)
        self.act1 = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(6)
        self.act2 = nn.ReLU6()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(6 * 5 * 4, 8)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        x = self.pool(self.act1(self.bn1(self.conv1(x))))
        x = x + self.act2(self.bn2(self.conv2(x)))
        return self.fc2(self.dropout(torch.relu(self.fc1(self.flatten(x)))))  # one ReLU without a module


def theirs():
    torch.manual_seed(0)
    module = Module().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            torch.manual_seed(1)
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.01, 0.02)
            part.weight.data.uniform_(0.5, 1.5)
        if getattr(part, "bias", None) is not None:
            torch.manual_seed(2)
            part.bias.data.normal_(0, 0.3)
    return module


def ours(module):
    return interop.from_torch(NET, module, shape=SHAPE)


X = 2 * np.random.default_rng(0).normal(size=(3, *SHAPE)).astype("float32")


def test_equal_networks_do_not_differ_and_functions_without_a_module_have_no_counterpart():
    found = interop.compare(NET, *ours(theirs()), X, theirs())
    assert found.ok, str(found)
    assert found.first is None
    # the second ReLU has no module there; in use dropout gives what the ReLU gives, so either of the two is its pair
    assert {pair.path: pair.name for pair in found.pairs if pair.path and pair.path not in ("relu2", "dropout1")} == {
        "conv1": "conv1", "batch_norm1": "bn1", "relu1": "act1", "max_pool1": "pool", "residual1/body/conv1": "conv2",
        "residual1/body/batch_norm1": "bn2", "residual1/body/relu61": "act2", "flatten1": "flatten", "dense1": "fc1",
        "dense2": "fc2",
    }  # fmt: skip
    assert sorted(pair.name for pair in found.pairs if pair.path in ("relu2", "dropout1")) == ["", "dropout"]
    assert max(pair.difference for pair in found.pairs if pair.difference is not None) < 1e-5


DIFFERENT = {
    "padding": (
        {"conv1": nn.Sequential(nn.ZeroPad2d((0, 1, 1, 1)), nn.Conv2d(2, 6, 3, 2))},
        "conv1",
        "padding: 1 here, SAME there, at stride 2",
    ),
    "epsilon": ({"bn1": nn.BatchNorm2d(6, eps=1e-3)}, "batch_norm1", "epsilon: 1e-05 here, 0.001 there"),
    "activation": ({"act1": nn.SiLU()}, "relu1", "SiLU there for jax.nn.relu here"),
    "ReLU6": ({"act2": nn.ReLU()}, "residual1/body/relu61", "ReLU there for jax.nn.relu6 here"),
    "pooling": ({"pool": nn.AvgPool2d(3, 2, 1)}, "max_pool1", None),
    "dilation": ({"conv2": nn.Conv2d(6, 6, 3, padding=2, dilation=2)}, "residual1/body/conv1", None),
    "no bias": ({"conv2": nn.Conv2d(6, 6, 3, padding=1, bias=False)}, "residual1/body/conv1", "no bias there"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_found_where_it_begins_and_its_cause_is_named(name):
    other, path, cause = DIFFERENT[name]
    module = theirs()
    params, state = ours(module)
    for place, part in other.items():
        old = getattr(module, place)
        target = part[-1] if isinstance(part, nn.Sequential) else part
        if hasattr(old, "weight") and hasattr(target, "weight"):
            known = target.state_dict()
            target.load_state_dict({k: v for k, v in old.state_dict().items() if k in known})
        setattr(module, place, part)
    found = interop.compare(NET, params, state, X, module.eval())
    assert not found.ok
    assert found.first.path == path, str(found)
    assert cause is None or cause in found.causes, str(found)
    assert path in str(found)


def test_statistics_of_the_batch_are_named():
    module = theirs()
    params, state = ours(module)
    module.train()
    found = interop.compare(NET, params, state, X, module)
    assert found.first.path == "batch_norm1"
    assert "module.eval()" in found.causes[0]


def test_the_order_of_a_dense_layers_inputs_is_named():
    module = theirs()
    params, state = ours(module)
    kernel = params["dense1"]["kernel"]
    wrong = jnp.moveaxis(kernel.reshape(5, 4, 6, 8), 2, 0).reshape(kernel.shape)  # as if nothing had been reordered
    found = interop.compare(NET, params | {"dense1": params["dense1"] | {"kernel": wrong}}, state, X, module)
    assert found.first.path == "dense1"
    assert "axes of the dense kernel" in found.causes[0]


def test_a_kernel_that_is_turned_is_named():
    module = theirs()
    params, state = ours(module)
    turned = params | {"conv1": params["conv1"] | {"kernel": jnp.flip(params["conv1"]["kernel"], (0, 1))}}
    found = interop.compare(NET, turned, state, X, module)
    assert (found.first.path, found.causes) == ("conv1", ("the kernel is turned by 180 degrees there",))


def test_a_module_more_at_the_end_is_a_difference():
    module = theirs()
    params, state = ours(module)
    longer = nn.Sequential(module, nn.Softmax(-1))
    found = interop.compare(NET, params, state, X, longer)
    assert (found.first.name, found.causes) == ("1", ("it has no counterpart here, and changes the output",))
    assert interop.compare(NET, params, state, X, nn.Sequential(module, nn.Identity())).ok


def test_another_stride_is_found_though_no_later_shape_is_the_same():
    net = fcnn.serial(fcnn.Conv(4, 3, padding=1), jax.nn.relu, fcnn.Conv(4, 3, padding=1), jax.nn.relu)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())
    params, state = interop.from_torch(net, module, shape=(8, 9, 2))
    x = np.random.default_rng(0).normal(size=(2, 8, 9, 2)).astype("float32")
    found = interop.compare(net, params, state, x, module)
    assert (found.first.path, found.causes) == ("conv2", ("stride: 1 here, 2 there",))


def test_what_nothing_known_explains_is_said_so():
    module = theirs()
    params, state = ours(module)
    other = params | {"conv1": params["conv1"] | {"kernel": 3 * params["conv1"]["kernel"] ** 2}}
    found = interop.compare(NET, other, state, X, module)
    assert (found.first.path, found.causes) == ("conv1", ())
    assert "none of the usual causes" in str(found)


def test_copies_of_a_repeated_block_are_compared_one_by_one():
    net = fcnn.repeat(fcnn.serial(fcnn.Conv(4, 3, padding=1), jax.nn.relu), 3)
    torch.manual_seed(0)
    module = nn.Sequential(*(part for _ in range(3) for part in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())))
    params, state = interop.from_torch(net, module, shape=(5, 6, 4))
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype("float32")
    found = interop.compare(net, params, state, x, module)
    assert found.ok, str(found)
    assert [pair.name for pair in found.pairs] == [str(n) for n in range(6)]
    module[2].weight.data.mul_(2)
    assert interop.compare(net, params, state, x, module).first.path == "conv1[1]"


def test_a_whole_network_is_compared():
    net = models.resnet(8, 5, cifar=True)
    import torch_networks

    torch.manual_seed(0)
    module = torch_networks.small_resnet(8, 5).eval()
    params, state = interop.from_torch(net, module)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    assert interop.compare(net, params, state, x, module).ok


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ([1.0], TypeError, "compare: theirs is a list; give a PyTorch module, or a dict"),
        ({}, ValueError, "compare: theirs has no arrays"),
    ],
)
def test_mistakes_are_explained(given, kind, words):
    params, state = ours(theirs())
    with pytest.raises(kind, match=words):
        interop.compare(NET, params, state, X, given)
