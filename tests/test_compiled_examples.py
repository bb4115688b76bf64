"""The examples keep what they compiled, several at once, and take what is damaged for nothing."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
CODE = """
import sys
sys.path.insert(0, sys.argv[1])
import compiled, jax
print(compiled.keep())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
events = []
jax.monitoring.register_event_listener(lambda name, **more: events.append(name))
print(jax.jit(lambda x: (x * 3 + 1).sum())(jax.numpy.ones(7)).item())
print("hit" if "/jax/compilation_cache/cache_hits" in events else "compiled")
"""


def start(**variables):
    kept = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(EXAMPLES)], env={**kept, **variables}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_programs_are_kept_and_what_is_damaged_is_compiled_again(tmp_path):
    def lines(process):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out.splitlines()

    two = [start(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2)]
    (folder, value, _), (other, _, _) = map(lines, two)
    assert Path(folder).parent == tmp_path / "fcnn" / "xla"
    assert (other, value) == (folder, "28.0")
    entries = list(Path(folder).glob("*-cache"))
    assert entries
    assert lines(start(XDG_CACHE_HOME=str(tmp_path))) == [folder, "28.0", "hit"]
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:20])
    assert lines(start(XDG_CACHE_HOME=str(tmp_path)))[:2] == [folder, "28.0"]
    # switched off, and JAX's own variable
    (tmp_path / "empty").mkdir()
    off = start(XDG_CACHE_HOME=str(tmp_path / "empty"), FCNN_COMPILATION_CACHE="0")
    own = start(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert lines(off) == ["None", "28.0", "compiled"]
    assert lines(own)[0] == str(tmp_path / "own")
    assert list((tmp_path / "empty").iterdir()) == []


def test_every_example_that_trains_keeps_them():
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text()
        if "__main__" in text or path.name == "own_loop.py":
            assert "compiled.keep()" in text, path.name
