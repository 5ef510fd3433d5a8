"""How pages for people look: templates with one base, plots as SVG, lines that differ in colour and in shape."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sparkrec.errors import EnvironmentMismatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#1f77b4", "#d95f02", "#2a8a3c", "#c43c39", "#7b55b0", "#8c564b", "#c9529d", "#6b6b6b", "#8f8f00", "#118a9c")
_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "*": "★"}
"""Of lines in the plots and of names in the legends, which thus differ on paper without colours, too."""


@dataclass(frozen=True)
class Line:
    """What a plot shows in one colour, and how a legend names it."""

    label: str
    color: str
    marker: str

    @classmethod
    def numbered(cls, at: int, label: str) -> Line:
        """The line of a number, from 0 on: as different from those before as may be."""
        return cls(label, _COLORS[at % len(_COLORS)], [*_MARKERS][at % len(_MARKERS)])

    @property
    def glyph(self) -> str:
        return _MARKERS[self.marker]


def require_drawing() -> None:
    """Raise EnvironmentMismatch without matplotlib and Jinja (`pip install sparkrec[plot]`)."""
    if not (find_spec("matplotlib") and find_spec("jinja2")):
        raise EnvironmentMismatch(
            "a page needs matplotlib and jinja2, which are not installed: sparkrec[plot] has them"
        )


def render(template: str, **values: Any) -> str:
    """A page of a template of this package."""
    from jinja2 import Environment, FunctionLoader

    folder = resources.files(__package__)
    environment = Environment(autoescape=True, loader=FunctionLoader(lambda name: folder.joinpath(name).read_text()))
    environment.filters |= {"duration": duration, "bytes": _bytes}
    return environment.get_template(template).render(**values)


def svg(draw: Callable[[Axes], None], height: float = 3.2) -> str:
    """A plot, 4.4 inches wide."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Text stays text: it can be searched and read aloud, and is as sharp on paper as the rest.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparkrec", "font.family": "sans-serif"}):
        figure = Figure(figsize=(4.4, height), layout="constrained")
        axis = figure.subplots()
        axis.spines[["top", "right"]].set_visible(False)
        draw(axis)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def duration(seconds: float | None) -> str:
    """For people; of None, nothing."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
