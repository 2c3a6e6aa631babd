"""The page itself: one file, which asks no network for anything."""

import json
from pathlib import Path
from typing import Any

from codec.errors import install

try:
    from plotly.offline import get_plotlyjs
except ImportError:
    raise SystemExit(f"error: a report needs plotly: {install('report')}") from None

_FOLDER = Path(__file__).resolve().parent


def html(data: dict[str, Any]) -> str:
    """The page of `data`, plain containers without nan or infinity.

    `about`, a line; `labels`, of qualities; `chosen`, by kind, the codecs that are shown at first; `points`,
    `tables`, `sweeps` as `gather` makes them; `pictures` as `pictures` does, or None.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    parts = {"style": _read("page.css"), "plotly": get_plotlyjs(), "data": text, "script": _read("page.js")}
    page = _read("page.html")
    for name, part in parts.items():
        before, after = page.split(f"{{{{{name}}}}}")
        page = before + part + after
    return page


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
