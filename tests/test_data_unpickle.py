"""Pickles are read without running anything that they name."""

import contextlib
import io
import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fcnn.data.unpickle import plain_dict


@pytest.mark.parametrize("protocol", range(5))
def test_arrays_lists_and_words_are_read(protocol):
    written = {"rows": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [0, 9], "deep": [[1], {"a": (2, None)}]}
    written["columns"] = np.asfortranarray(written["rows"])
    found = plain_dict(pickle.dumps(written, protocol))
    for name in ("rows", "columns"):
        np.testing.assert_array_equal(found.pop(name), [[0, 1, 2], [3, 4, 5]])
    assert found == {"labels": [0, 9], "deep": [[1], {"a": (2, None)}]}


def test_a_pickle_as_python_2_wrote_it_is_read():
    # opcode by opcode as the original batches: short byte strings (U) for keys and raw data, numpy's old module
    raw = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x04\x86cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x04\x07\x08\xfe\xfftbU\x06labelsq\x06]q\x07K\x05au."
    )
    pickletools.dis(raw, out=io.StringIO())  # it is a whole pickle
    found = plain_dict(raw)
    assert found["labels"] == [5]
    np.testing.assert_array_equal(found["data"], np.array([[7, 8, 254, 255]], np.uint8))


class Calls:
    """A pickle that calls what it is told to when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def malicious(mark):
    shout = f"touch {mark}"
    text = f"__import__('os').system({shout!r})"
    asks = [Calls(os.system, shout), Calls(eval, text), Calls(exec, text), Calls(open, mark, "w")]
    return [pickle.dumps({"data": ask, "labels": [1]}, protocol) for ask in asks for protocol in (0, 2, 5)] + [
        b"cos\nsystem\n(V" + shout.encode() + b"\ntR.",  # nothing but the call
        b"\x80\x02cnumpy\nload\nU" + bytes([len(mark)]) + mark.encode() + b"\x85R.",
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nVtofile\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.dump\x93.",  # a name with a dot leads to attributes
        b"cnumpy\nndarray\n)R.",  # even ndarray itself is not called
        b"c_codecs\nencode\n(Vabc\nVzip\ntR.",
        b"P0\n.",  # an object from outside the pickle
    ]


def test_a_malicious_pickle_is_refused_and_nothing_of_it_runs(tmp_path):
    mark = str(tmp_path / "ran")
    for raw in malicious(mark):
        with pytest.raises(pickle.UnpicklingError):
            plain_dict(raw)
        assert not Path(mark).exists()
    pickle.loads(malicious(mark)[1])  # the trap is one: the ordinary reader walks into it
    assert Path(mark).exists()


def test_truncated_and_altered_pickles_never_fail_otherwise():
    raw = pickle.dumps({"data": np.zeros((3, 100), np.uint8), "labels": [1, 2, 3], "words": ["a"]}, 2)
    made = np.random.default_rng(1)
    for _ in range(300):
        changed = bytearray(raw[: made.integers(len(raw))] if made.random() < 0.3 else raw)
        for _ in range(made.integers(1, 4)):
            if changed:
                changed[made.integers(min(len(changed), 300))] = made.integers(256)
        with contextlib.suppress(pickle.UnpicklingError):
            assert isinstance(plain_dict(bytes(changed)), dict)


BOMB = b"\x80\x02}r\xff\xff\xff\x7f."  # an empty dict, to be remembered under the number 2,147,483,647

BOUNDED = """
import resource, sys
from fcnn.data.unpickle import plain_dict
raw = bytes.fromhex(sys.argv[1])
used = resource.getpagesize() * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)
print(plain_dict(raw))
try:
    bytearray(8 * 2**31)
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on memory, as Linux has it")
def test_a_pickle_that_asks_for_a_huge_memo_is_read_in_little_memory():
    pickletools.dis(BOMB, out=io.StringIO())  # it is a whole pickle
    command = [sys.executable, "-c", BOUNDED, BOMB.hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    # and a place for each number below, as the reader in C may want them, is more than the limit allows
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\nMemoryError\n", "")
