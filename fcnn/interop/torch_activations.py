"""What every module of a PyTorch network makes of an input."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np


def torch_activations(module: Any, *inputs: Any) -> dict[str, np.ndarray]:
    r"""Call a PyTorch module and keep the outputs of all modules inside that have no modules of their own.

    Args:
        module: a ``torch.nn.Module``; call its ``eval()`` before, where inference is to be compared.
        inputs: arrays (batch, \*space, channels); the module gets them with the channels first.

    Returns:
        The outputs as PyTorch has them, (batch, channels, \*space), by the names of the modules, in the order of
        computation; of one that is called several times the second is ``"name#2"``. Outputs that are no single tensor
        are left out.

    Raises:
        TypeError: no PyTorch module.
        ImportError: torch is not installed.
    """
    if not callable(getattr(module, "named_modules", None)):
        raise TypeError(f"torch_activations: {module!r} is no PyTorch module")
    torch: Any = importlib.import_module("torch")  # by name: it need not be there, for type checkers either

    found: dict[str, np.ndarray] = {}
    calls: dict[str, int] = {}

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                calls[name] = calls.get(name, 0) + 1
                label = name if calls[name] == 1 else f"{name}#{calls[name]}"
                found[label] = output.detach().cpu().numpy().copy()  # a module may work in place

        return hook

    handles = [
        part.register_forward_hook(keep(name or "output"))
        for name, part in module.named_modules()
        if not list(part.children())
    ]
    try:
        kind = next((p for p in module.parameters()), torch.zeros(()))
        given = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1))).to(kind) for x in inputs]
        with torch.no_grad():
            module(*given)
    finally:
        for handle in handles:
            handle.remove()
    return found
