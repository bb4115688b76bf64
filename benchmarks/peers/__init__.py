"""One file for each library that is timed, written as that library's own guides write it.

A file defines `PACKAGES` (the distributions whose versions are reported), `device()`, `wait(value)` (until it is
computed), `device_peak_mb()` (None without an accelerator), and of these what its library takes part in:

- `Training(network, dtype, variant)`: `step()` trains once and returns the loss, `scan(n)` returns a function that
  trains n times in one compiled loop, or None; `parameters` counts them.
- `Published(network, dtype, variant)`: a network of the literature; `step()` as above, None where a library does not
  train; `inferences()` gives functions by name that put the batch through, after training.
- `per_example(network, dtype, variant)`: a function that computes the gradient of every example by itself.
- `max_pool(pool, dtype, variant)` and `convolution(conv, dtype, variant)`: named functions without arguments.
"""

#: library -> (module, variant)
LIBRARIES = {
    "fcnn": ("fcnn_", "default"),
    "flax": ("flax_nnx", "default"),
    "equinox": ("equinox_", "default"),
    "haiku": ("haiku_", "default"),
    "keras": ("keras_jax", "default"),
    "lax": ("lax_", "default"),
    "onnxruntime": ("onnxruntime_", "default"),
    "pytorch": ("pytorch", "default"),
    "pytorch_channels_last": ("pytorch", "channels_last"),
    "pytorch_autocast": ("pytorch", "autocast"),
    "pytorch_compile": ("pytorch", "compile"),
}
