"""The recipes run as they stand, and do what they are for."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fcnn

TEXT = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
RECIPES = dict(re.findall(r"^## (.*?)$.*?```python\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_runs(title, tmp_path):
    if "PyTorch" in title and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch: pip install torch==2.13.0")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RECIPES[title]], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    if title.startswith("Transfer"):
        assert float(re.search(r"'accuracy': ([0-9.]+)", printed).group(1)) > 0.8  # of five classes, thirty pictures
    if title.startswith("Segmentation"):
        assert float(printed) > 0.7
    if title.startswith("Several"):
        assert float(re.search(r"'accuracy/digit': (?:np\.float64\()?([0-9.]+)", printed).group(1)) > 0.9
    if "variational" in title:
        x = fcnn.data.digits().train[0]
        mean = x.mean(0).clip(1e-6, 1 - 1e-6)
        always_the_mean = -(x * np.log(mean) + (1 - x) * np.log(1 - mean)).sum((1, 2, 3)).mean()
        assert float(printed.split()[0]) < always_the_mean - 2  # nats
    if title.startswith("Deployment"):
        assert float(printed) < 1e-5


def test_every_kind_of_recipe_is_there():
    kinds = ["Transfer", "Segmentation", "Several tasks", "adversarial", "variational", "PyTorch", "Deployment"]
    assert [kind for kind in kinds if not any(kind in title for title in RECIPES)] == []
