"""Paths as users write them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any


def path_of(given: Any, what: str = "path") -> Path:
    """Convert a user's path to an absolute one, which stays valid after ``os.chdir``; ``~`` is expanded.

    Args:
        given: the path, a string or a value that ``os.fspath`` accepts.
        what: its name in messages.

    Returns:
        The absolute path; links are not resolved.

    Raises:
        TypeError: not a path.
        ValueError: an empty path, a URL such as gs://bucket/run, or the home folder of an unknown user.

    Example:
        >>> path_of("~/runs") == Path.home() / "runs", path_of("runs").is_absolute()
        (True, True)
    """
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"{what} must be a path such as 'runs/digits', not {given!r}")
    text = os.fspath(given)
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a path as text, not as bytes: {given!r}")
    if not text:
        raise ValueError(f"{what} is empty; '.' is the current folder")
    if "\0" in text:
        raise ValueError(f"{what} contains a null character, which a path cannot: {given!r}")
    # pathlib collapses two slashes into one, so gs:/ is matched as well
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|(gs|s3|hdfs|abfs|https?|file):/", text):
        raise ValueError(f"{what} is a URL, {text!r}, but must be a path; mount it, or copy the files")
    if text.startswith("~"):
        try:
            text = os.fspath(Path(text).expanduser())
        except RuntimeError:
            if Path(text.split("/")[0]).exists():  # a file of such a name
                pass
            elif text.split("/")[0] == "~":
                raise ValueError(f"{what} is {given!r}, but this user has no home folder") from None
            else:
                raise ValueError(
                    f"{what} is {given!r}, but there is no such user; a file of that name is {'./' + text!r}"
                ) from None
    return Path(text).absolute()  # keep "..": after a symbolic link it is not the parent that the text shows
