"""The algorithm that the user asks for, in the context in which JAX traces.

JAX keeps what it has traced and compiled for its context, and a context that is made is a part of it from then on. This
one is made when the library is imported; made with the first convolution, it would have the first program of every
process traced and compiled twice.
"""

import jax

forced = jax.make_user_context(None)
