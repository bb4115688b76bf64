"""Timm's names and shapes of two networks, in the order in which they are computed."""


def norm(name, n, running=True):
    """The arrays of a normalisation."""
    found = {f"{name}.weight": (n,), f"{name}.bias": (n,)}
    if running:
        found |= {f"{name}.running_mean": (n,), f"{name}.running_var": (n,), f"{name}.num_batches_tracked": ()}
    return found


def layer(name, out, *rest):
    """The arrays of a convolution or a dense layer with a bias."""
    return {f"{name}.weight": (out, *rest), f"{name}.bias": (out,)}


def efficientnet_b0(classes):
    stages = [
        (1, 16, 1, 3), (6, 24, 2, 3), (6, 40, 2, 5), (6, 80, 3, 3), (6, 112, 3, 5), (6, 192, 4, 5), (6, 320, 1, 3),
    ]  # fmt: skip
    found, before = {"conv_stem.weight": (32, 3, 3, 3), **norm("bn1", 32)}, 32
    for i, (factor, out, count, kernel) in enumerate(stages):
        for j in range(count):
            at, inner, squeezed = f"blocks.{i}.{j}", factor * before, before // 4
            depthwise = {f"{at}.conv_dw.weight": (inner, 1, kernel, kernel)}
            gate = layer(f"{at}.se.conv_reduce", squeezed, inner, 1, 1)
            gate |= layer(f"{at}.se.conv_expand", inner, squeezed, 1, 1)
            if factor == 1:
                found |= depthwise | norm(f"{at}.bn1", inner) | gate
                found |= {f"{at}.conv_pw.weight": (out, inner, 1, 1)} | norm(f"{at}.bn2", out)
            else:
                found |= {f"{at}.conv_pw.weight": (inner, before, 1, 1)} | norm(f"{at}.bn1", inner)
                found |= depthwise | norm(f"{at}.bn2", inner) | gate
                found |= {f"{at}.conv_pwl.weight": (out, inner, 1, 1)} | norm(f"{at}.bn3", out)
            before = out
    return found | {"conv_head.weight": (1280, 320, 1, 1)} | norm("bn2", 1280) | layer("classifier", classes, 1280)


def convnext_tiny(classes):
    found, before = layer("stem.0", 96, 3, 4, 4) | norm("stem.1", 96, running=False), 96
    for i, (count, n) in enumerate(zip((3, 3, 9, 3), (96, 192, 384, 768), strict=True)):
        if i:
            at = f"stages.{i}.downsample"
            found |= norm(f"{at}.0", before, running=False) | layer(f"{at}.1", n, before, 2, 2)
        for j in range(count):
            at = f"stages.{i}.blocks.{j}"
            found |= layer(f"{at}.conv_dw", n, 1, 7, 7) | norm(f"{at}.norm", n, running=False)
            found |= layer(f"{at}.mlp.fc1", 4 * n, n) | layer(f"{at}.mlp.fc2", n, 4 * n) | {f"{at}.gamma": (n,)}
        before = n
    return found | norm("head.norm", 768, running=False) | layer("head.fc", classes, 768)


def as_registered(names):
    """The names in the order of timm's state dict, in which a block's own parameters come before its layers."""
    found = []
    for name in names:
        if name.endswith(".gamma"):
            first = next(i for i, one in enumerate(found) if one.startswith(name.removesuffix("gamma")))
            found.insert(first, name)
        else:
            found.append(name)
    return found
