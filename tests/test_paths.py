"""Paths mean what users mean by them, whatever characters they hold."""

import json
import os
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import xla_flags

import fcnn
from fcnn.paths import path_of
from fcnn.training import CheckpointError, CheckpointFailedWarning

NET, KEY = fcnn.Dense(3), jax.random.key(0)
X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
SETTINGS = {
    "data": (X, np.arange(32) % 3),
    "optimizer": optax.adam(0.1),
    "key": KEY,
    "progress": False,
    "batch_size": 16,
}

checkpoints = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("orbax") is None, reason="checkpoints need orbax-checkpoint"
)


def kernel(epochs, **more):
    return fcnn.fit(NET, epochs=epochs, **SETTINGS, **more).params["kernel"].tobytes()


@pytest.fixture(scope="module")
def whole():
    return kernel(3)


@checkpoints
@pytest.mark.parametrize(
    "name",
    [
        "[!a]b[1]*?{1}**", "a\\b%41%s:$HOME", "#a;b&c|d'e\"f", "sp ace\nline", "trail/", "rel/../rel2",
        unicodedata.normalize("NFC", "é") + "/" + unicodedata.normalize("NFD", "é"),
        "/".join(["x" * 200] * 5), "step_00000001",
    ],
    ids=lambda name: ascii(name[:20]),
)  # fmt: skip
def test_a_run_goes_on_from_any_folder(tmp_path, monkeypatch, name, whole):
    if sys.platform == "win32" and not name.isalnum():
        pytest.skip("a name that Windows does not have")
    monkeypatch.chdir(tmp_path)
    kernel(1, checkpoint=name)
    assert sorted(path.name for path in (tmp_path / name).glob("step_*")) == ["step_00000002"]
    assert kernel(3, checkpoint=name, resume=True) == whole


@checkpoints
def test_links_homes_and_folders_that_change(tmp_path, monkeypatch, whole):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    kernel(1, checkpoint=tmp_path / "link")
    assert kernel(3, checkpoint=tmp_path / "real", resume=True) == whole
    monkeypatch.setenv("HOME", str(tmp_path))
    kernel(1, checkpoint="~/runs/a")
    assert (tmp_path / "runs" / "a" / "step_00000002").is_dir()
    assert kernel(3, checkpoint=tmp_path / "runs" / "a", resume=True) == whole
    # a relative folder is where the program was when fit was called
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    kernel(2, checkpoint="runs/b", callbacks=[lambda moment: os.chdir(tmp_path / "elsewhere")])
    assert (tmp_path / "runs" / "b" / "step_00000004").is_dir()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@checkpoints
def test_the_folder_of_the_newest_checkpoint_stands_for_the_run(tmp_path, whole):
    kernel(1, checkpoint=tmp_path)
    kernel(2, checkpoint=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"continues from the newest, step_00000004; give .*, or copy"):
        kernel(3, checkpoint=tmp_path / "step_00000002", resume=True)
    assert kernel(3, checkpoint=tmp_path / "step_00000004", resume=True) == whole
    assert (tmp_path / "step_00000006").is_dir()
    with pytest.raises(CheckpointError, match="holds checkpoints of an earlier run"):
        kernel(3, checkpoint=tmp_path / "step_00000006")


@checkpoints
@pytest.mark.parametrize(
    ("folder", "error", "message"),
    [
        ("gs://bucket/run", ValueError, "is a URL"),
        (Path("s3://bucket/run"), ValueError, "is a URL"),
        ("", ValueError, "is empty"),
        ("~nobody-of-this-name/run", ValueError, "there is no such user"),
        (b"run", TypeError, "must be a folder"),
        ("file", CheckpointError, "give another folder"),
        ("file/run", CheckpointError, "give another folder"),
        ("x" * 300, CheckpointError, "File name too long"),
        ("y/" * 3000, CheckpointError, "File name too long"),
    ],
    ids=lambda value: ascii(str(value)[:12]),
)
def test_folders_that_cannot_be_are_said_before_training(tmp_path, monkeypatch, folder, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(error, match=message):
        kernel(1, checkpoint=folder, callbacks=[lambda moment: pytest.fail("it trained")])


@checkpoints
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="whoever may everything may write")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="Permission denied"):
        kernel(1, checkpoint=tmp_path)


@checkpoints
def test_a_folder_that_goes_away_is_a_warning(tmp_path):
    import shutil

    with pytest.warns(CheckpointFailedWarning, match="could not be written"):
        kernel(
            2, checkpoint=tmp_path / "a", callbacks=[lambda moment: shutil.rmtree(tmp_path / "a", ignore_errors=True)]
        )


def test_the_home_folder_is_known_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    pytest.importorskip("safetensors")
    params = NET.init(KEY, (6,))
    assert fcnn.interop.save_weights("~/a[1]/net.safetensors", params) == tmp_path / "a[1]" / "net.safetensors"
    back, _ = fcnn.interop.load_weights("~/a[1]/net.safetensors")
    assert back["kernel"].tobytes() == params["kernel"].tobytes()
    image = pytest.importorskip("PIL.Image")
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(2):
            image.new("L", (4, 4), 255).save(tmp_path / "pictures" / name / f"{number}.png")
    assert fcnn.data.load_image_folder("~/pictures", size=(4, 4)).classes == ("a", "b")
    assert fcnn.data.load_image("~/pictures/a/0.png", size=(4, 4)).max() == 1
    monkeypatch.setenv("FCNN_DATA", "~/data")
    from fcnn.data import files

    assert list(files.places("mnist"))[:2] == [tmp_path / "data" / "mnist", tmp_path / "data"]


def test_paths_are_absolute_and_links_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = Path(os.path.realpath(tmp_path))
    assert path_of("a/b") == Path.cwd() / "a" / "b"
    (tmp_path / "link").symlink_to(here, target_is_directory=True)
    assert path_of(tmp_path / "link").name == "link"
    (tmp_path / "~odd").write_text("x")
    assert path_of("~odd") == Path.cwd() / "~odd"
    with pytest.raises(TypeError, match="as text, not as bytes"):
        path_of(Bytes())


class Bytes:
    def __fspath__(self):
        return b"x"


TYPED = """
import json, logging, os, signal, sys, types
import jax, numpy as np, optax, fcnn
before = logging.root.handlers[:], logging.root.level, dict(logging.Logger.manager.loggerDict)
handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
data = np.ones((32, 4), "float32"), np.zeros(32, "int32")

def stopped(name, number):
    strike = lambda moment: os.kill(os.getpid(), number) if moment.epoch == 2 else None
    try:
        fcnn.fit(fcnn.Dense(2), data, optimizer=optax.sgd(0.1), epochs=9, key=jax.random.key(0), progress=False,
                 checkpoint=f"{sys.argv[1]}/{name}", callbacks=[strike])
    except BaseException as error:
        print(json.dumps([name, f"{type(error).__name__} {error}"]))
    assert (logging.root.handlers, logging.root.level) == before[:2], logging.root.handlers
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers

stopped("script", signal.SIGINT)
sys.ps1 = ">>> "
stopped("prompt", signal.SIGINT)
stopped("prompt, SIGTERM", signal.SIGTERM)
del sys.ps1
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: 1)
stopped("notebook", signal.SIGINT)
"""


@checkpoints
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_notebook_keeps_its_kernel_and_log(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla_flags.known()}"}
    command = [sys.executable, "-c", TYPED, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    said = dict(json.loads(line) for line in done.stdout.splitlines())
    assert said["script"] == "SystemExit 130"
    assert said["prompt"].startswith("KeyboardInterrupt stopped after step 2, in epoch 3 of 9. Everything is in")
    assert said["prompt, SIGTERM"] == "SystemExit 143"
    assert said["notebook"].startswith("KeyboardInterrupt stopped after step 2")
    for name in said:
        assert list((tmp_path / name).glob("step_*")), name


@checkpoints
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_what_a_callback_raises_names_the_checkpoint(tmp_path, kind, whole):
    def fail(moment):
        raise kind("mine")

    with pytest.raises(kind, match="mine") as caught:
        kernel(3, checkpoint=tmp_path, callbacks=[fail])
    (note,) = caught.value.__notes__
    assert f"The newest checkpoint is {tmp_path / 'step_00000002'}" in note
    assert kernel(3, checkpoint=tmp_path, resume=True) == whole
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
