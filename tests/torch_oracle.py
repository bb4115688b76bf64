"""PyTorch's operations in the layout of fcnn, and the comparison with them.

Tensors have their channels last and kernels are (*kernel, channels // groups, features), so torch's own autograd
gives its gradients in that layout too and nothing is converted by hand afterwards.
"""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install torch==2.13.0")
F = torch.nn.functional
#: each example runs once, so the time goes into compiling it
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def assert_agrees(ours, theirs, *arrays):
    """Assert that two functions have the same values and the same gradients, by a random cotangent, in float64."""
    inputs = [torch.tensor(array, requires_grad=True) for array in arrays]
    expected = theirs(*inputs)
    cotangent = np.random.default_rng(1000).normal(size=expected.shape)  # a seed of no test's data
    gradients = torch.autograd.grad(expected, inputs, torch.tensor(cotangent))

    def value_and_gradients(cotangent, *arrays):
        value, pullback = jax.vjp(ours, *arrays)
        kinds = [(y.shape, y.dtype) for y in (value, cotangent)]
        assert kinds[0] == kinds[1], f"the value has shape and dtype {kinds[0]}, torch has {kinds[1]}"
        return value, pullback(cotangent)

    with jax.enable_x64(True):
        value, pulled = jax.jit(value_and_gradients, compiler_options=QUICKLY)(cotangent, *arrays)
    assert_close(value, expected, "the value")
    for place, (gradient, its_truth) in enumerate(zip(pulled, gradients, strict=True)):
        assert_close(gradient, its_truth, f"the gradient of argument {place}")


def assert_close(actual, expected, what="the value", tolerance=1e-10):
    """Assert that the largest error is small beside the largest value of the truth."""
    actual, expected = np.asarray(actual), expected.detach().numpy()
    kinds = [(y.shape, y.dtype) for y in (actual, expected)]
    assert kinds[0] == kinds[1], f"{what} has shape and dtype {kinds[0]}, torch has {kinds[1]}"
    error, size = np.max(np.abs(actual - expected)), np.max(np.abs(expected))
    assert error <= tolerance * size, f"{what} is off by {error}, the largest of torch is {size}"


def channels_first(x):
    return x.movedim(-1, 1)


def channels_last(y):
    return y.movedim(1, -1)


MODES = {"CIRCULAR": "circular", "REFLECT": "reflect", "EDGE": "replicate"}


def pad(x, padding, spans, strides, value=0.0):
    """Add to x (batch, channels, *space) what the documentation of fcnn says that ``padding`` means."""
    mode = None
    if padding in MODES:
        mode, padding = padding, [((span - 1) // 2, span // 2) for span in spans]
    elif isinstance(padding, tuple) and padding[0] in MODES:
        mode, padding = padding
    if padding == "VALID":
        return x
    if padding == "CAUSAL":
        pairs = [(span - 1, 0) for span in spans]
    elif padding in ("SAME", "SAME_LOWER"):
        pairs = [same(*axis) for axis in zip(x.shape[2:], spans, strides, strict=True)]
        pairs = pairs if padding == "SAME" else [pair[::-1] for pair in pairs]
    else:
        pairs = [(padding, padding)] * len(spans) if isinstance(padding, int) else padding
    amounts = [amount for pair in reversed(pairs) for amount in pair]
    if mode is not None:
        return F.pad(x, amounts, MODES[mode])
    return F.pad(x, amounts, value=value)


def same(size, span, stride):
    """TensorFlow's rule for padding="SAME" along one axis; the odd sample goes after."""
    total = max(span - (size % stride or stride), 0)
    return total // 2, total - total // 2


def reach(kernel, dilation):
    """Samples from the first to the last of a window along each axis."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def windows(x, kernel, stride, dilation):
    """What each window sees: x (batch, channels, *space) to (batch, channels, *out, *kernel)."""
    for axis, (span, step, distance) in enumerate(zip(reach(kernel, dilation), stride, dilation, strict=True)):
        x = x.unfold(2 + axis, span, step)[..., ::distance]
    return x


def conv(x, kernel, bias=None, *, stride, padding, dilation, groups):
    x, rank = channels_first(x), len(stride)
    by_torch = padding if isinstance(padding, int) else 0  # elsewhere it is padded beforehand
    if not by_torch:
        x = pad(x, padding, reach(kernel.shape[:rank], dilation), stride)
    weight = kernel.movedim((-1, -2), (0, 1)).contiguous()
    return channels_last(getattr(F, f"conv{rank}d")(x, weight, bias, stride, by_torch, dilation, groups))


def conv_transpose(x, kernel, bias=None, *, stride, padding=0, dilation, groups, output_padding=0):
    weight = transposed_weight(kernel, groups)
    function = getattr(F, f"conv_transpose{len(stride)}d")
    y = function(channels_first(x), weight, bias, stride, padding, output_padding, groups, dilation)
    return channels_last(y)


def transposed_weight(kernel, groups):
    """The kernel (*kernel, channels // groups, features) as torch has it: (channels, features // groups, *kernel)."""
    split = kernel.unflatten(-1, (groups, -1))
    return split.movedim((-2, -3, -1), (0, 1, 2)).flatten(0, 1).contiguous()


def gradient_of_conv(x, kernel, space, *, stride, padding, dilation, groups):
    """The gradient of a strided convolution with respect to its input of size ``space``, at the cotangent x."""
    features, rank = kernel.shape[-1], len(stride)
    weight = transposed_weight(kernel, groups)
    start = torch.zeros(x.shape[0], features, *space, dtype=x.dtype, requires_grad=True)
    padded = pad(start, padding, reach(kernel.shape[:rank], dilation), stride)
    y = getattr(F, f"conv{rank}d")(padded, weight, None, stride, 0, dilation, groups)
    (gradient,) = torch.autograd.grad(y, start, channels_first(x), create_graph=True)
    return channels_last(gradient)


def locally_connected(x, kernel, bias, *, stride, padding, dilation, groups):
    rank = len(stride)
    sizes = kernel.shape[rank : 2 * rank]
    seen = windows(pad(channels_first(x), padding, reach(sizes, dilation), stride), sizes, stride, dilation)
    out = "xyz"[:rank]
    outputs = [
        torch.einsum(f"nc{out}...,{out}...cf->n{out}f", part, weight)
        for part, weight in zip(seen.chunk(groups, 1), kernel.chunk(groups, -1), strict=True)
    ]
    return torch.cat(outputs, -1) + bias


def pool(kind, x, *arguments, **options):
    """A pooling function of torch for the rank of x, such as pool("max_pool", x, 2)."""
    return channels_last(getattr(F, f"{kind}{x.ndim - 2}d")(channels_first(x), *arguments, **options))


def whole_windows(x, count, window, stride, dilation):
    """``count`` windows along each axis of x (batch, channels, *space), with zeros where they look past the end."""
    spans = reach(window, dilation)
    sizes = zip(count, stride, spans, x.shape[2:], strict=True)
    missing = [(n - 1) * step + span - size for n, step, span, size in sizes]
    x = F.pad(x, [amount for more in reversed(missing) for amount in (0, more)])
    return windows(x, window, stride, dilation)
