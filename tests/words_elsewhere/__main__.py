from pathlib import Path

from .page import PAGE, page

(Path(__file__).parents[2] / PAGE).write_text(page())
