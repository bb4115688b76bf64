"""The primitives that functions and wirings are made of, each with its derivative by hand, in NumPy.

A function such as ``lambda x: jnp.tanh(x) * 2`` is traced to JAX's primitives. Each of them has here a forward and a
backward, so the hand-written side of a gradient check does not ask autodiff for anything. They stand in families:
``elementwise``, ``arrays`` (what moves numbers about), ``indexing``, ``reductions``, ``linear``, ``loops``; and
``program`` puts them together.

Where a derivative is not unique, at ties and kinks, these take the one that JAX takes.
"""

from .program import program

__all__ = ["program"]
