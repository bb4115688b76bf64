"""Weights in PyTorch's older format, and of networks that were converted to PyTorch: channels last, an axis more."""

import io
import pickle

import jax
import numpy as np
import pytest

import fcnn
from fcnn import interop

torch = pytest.importorskip("torch", reason="comparisons with PyTorch: pip install torch==2.13.0")

MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER


def save_as_before(tensors, path):
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


# The format before PyTorch 1.6


def test_tensors_of_the_older_format_are_those_that_were_saved(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "turned": base.T, "part": base[1:3, 2:5], "one": base[2, 3], "none": base[:0], "whole": base.half(),
        "bfloat16": base.bfloat16(), "count": torch.tensor(7), "parameter": torch.nn.Parameter(base.double() / 3),
    }  # fmt: skip
    save_as_before(tensors, tmp_path / "old.pt")
    assert not (tmp_path / "old.pt").read_bytes().startswith(b"PK")
    found = interop.torch_files.read_tensors(tmp_path / "old.pt")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name].astype("float64"), tensor.detach().double().numpy())
        assert str(found[name].dtype) == str(tensor.dtype).removeprefix("torch.")
    save_as_before({"epoch": 3, "state_dict": {"a": base}}, tmp_path / "wrapped.pt")
    np.testing.assert_array_equal(interop.torch_files.read_tensors(tmp_path / "wrapped.pt")["a"], base)


def test_a_big_endian_file_of_the_older_format_is_read(tmp_path):
    little, big = np.arange(6, dtype="<f4"), np.arange(6, dtype=">f4")
    torch.save({"a": torch.from_numpy(little)}, made := io.BytesIO(), _use_new_zipfile_serialization=False)
    data, (numbers, count) = made.getvalue(), ((6).to_bytes(8, "little"), (6).to_bytes(8, "big"))
    data = data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    assert data.endswith(numbers + little.tobytes())
    path = tmp_path / "big.pt"
    path.write_bytes(data[: -len(numbers + little.tobytes())] + count + big.tobytes())
    np.testing.assert_array_equal(interop.torch_files.read_tensors(path)["a"], little)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("place", range(5))
def test_no_pickle_of_an_older_file_runs_anything(place, tmp_path, capsys):
    parts = [MAGIC, 1001, {"little_endian": True}, {}, []]
    parts[place] = Evil()
    path = tmp_path / "evil.pt"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    why = r"cannot be read as tensors alone \(it names __builtin__.print\)" if place else "none of the files"
    with pytest.raises(ValueError, match=why):
        interop.torch_files.read_tensors(path)
    assert capsys.readouterr().out == ""


def test_a_damaged_file_of_the_older_format_is_refused_or_gives_tensors(tmp_path):
    path, random = tmp_path / "old.pt", np.random.default_rng(0)
    save_as_before({"a": torch.arange(50.0), "b": torch.ones(3, 2, dtype=torch.int16)}, path)
    raw = path.read_bytes()
    for size in range(0, len(raw), 13):
        path.write_bytes(raw[:size])
        with pytest.raises(ValueError, match=r"nothing in it was run|none of the files"):
            interop.torch_files.read_tensors(path)
    for _ in range(500):
        data = bytearray(raw)
        for place in random.integers(len(data), size=3):
            data[place] ^= 1 << random.integers(8)
        path.write_bytes(data)
        try:
            interop.torch_files.read_tensors(path)
        except (ValueError, TypeError):
            continue
    path.write_bytes(raw.replace(pickle.dumps(1001, protocol=2), pickle.dumps(1002, protocol=2)))
    with pytest.raises(ValueError, match="it has version 1002 of the format, 1001 is known"):
        interop.torch_files.read_tensors(path)


# Networks that were converted to PyTorch


class ChannelsLast(torch.nn.Module):
    """Transposes before it flattens, as networks do that came from TensorFlow."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 2)
        self.norm = torch.nn.BatchNorm1d(60)
        self.dense = torch.nn.Linear(60, 5)

    def forward(self, x):
        return self.dense(self.norm(self.conv(x).permute(0, 2, 3, 1).flatten(1)))


def test_a_space_that_is_flattened_with_the_channels_last_keeps_its_order(x64):
    net = fcnn.serial(fcnn.Conv(3, 2), fcnn.Flatten(), fcnn.BatchNorm(), fcnn.Dense(5))
    torch.manual_seed(0)
    module = ChannelsLast().double()
    module(torch.randn(50, 2, 5, 6, dtype=torch.float64) * torch.arange(6.0))  # statistics that differ by place
    module.eval()
    order = {"shape": (5, 6, 2), "channels_last": ("batch_norm1", "dense1")}
    params, state = interop.from_torch(net, module, **order)
    x = np.random.default_rng(0).normal(size=(3, 5, 6, 2))
    wanted = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).detach().numpy()
    np.testing.assert_allclose(net.apply(params, x, state=state), wanted, rtol=1e-12, atol=1e-13)
    as_always, other = interop.from_torch(net, module, shape=(5, 6, 2))
    assert np.abs(net.apply(as_always, x, state=other) - wanted).max() > 0.1
    back = interop.to_torch(net, params, state, like=module, **order)
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[name], tensor)
    again = interop.from_torch(net, interop.to_torch(net, params, state, **order), **order)
    jax.tree.map(np.testing.assert_array_equal, again, (params, state))


def test_a_pattern_without_a_flattened_layer_is_refused():
    net = fcnn.serial(fcnn.Conv(3, 2), fcnn.Flatten(), fcnn.Dense(5))
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.Flatten(), torch.nn.Linear(60, 5))
    why = r"^from_torch: channels_last='conv\*' matches no layer that sees a flattened space; these do: dense1$"
    with pytest.raises(ValueError, match=why):
        interop.from_torch(net, module, shape=(5, 6, 2), channels_last="conv*")
    with pytest.raises(ValueError, match=r"^to_torch: channels_last='dense2' matches no layer"):
        interop.to_torch(net, net.init(jax.random.key(0), (5, 6, 2)), shape=(5, 6, 2), channels_last=["dense2"])


@pytest.mark.parametrize("size", [(4, 1), (1, 4)])
def test_a_convolution_over_time_that_is_written_as_one_over_pictures(size, x64):
    net = fcnn.serial(fcnn.Conv(6, 4, groups=2), fcnn.Flatten(), fcnn.Dense(3))
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, size, groups=2), torch.nn.Flatten(), torch.nn.Linear(54, 3)
    ).double()
    params, _ = interop.from_torch(net, module, shape=(12, 2))
    x = np.random.default_rng(0).normal(size=(3, 12, 2))
    given = torch.from_numpy(np.moveaxis(x, -1, 1).reshape(3, 2, *(12 if n == 4 else 1 for n in size)).copy())
    np.testing.assert_allclose(net.apply(params, x), module(given).detach().numpy(), rtol=1e-12, atol=1e-13)
    back = interop.to_torch(net, params, like=module, shape=(12, 2))
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(back[name], tensor)
    turned = torch.nn.Conv2d(2, 6, (2, 2), groups=2)  # as many numbers, but an axis more
    with pytest.raises(ValueError, match=r"0.weight has shape \(6, 1, 2, 2\), conv1/kernel has \(4, 1, 6\) here"):
        interop.from_torch(net[:1], torch.nn.Sequential(turned), shape=(12, 2))
