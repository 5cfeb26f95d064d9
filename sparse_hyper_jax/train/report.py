"""The page ``report.html`` of a run: its configuration, final figures, curves and pictures.

One file without any link to another or to a network, so that it can be sent and kept. Colours of
curves and words follow the reader's choice of light or dark; pictures stand on white, as drawn.
"""

import base64
import io
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparse_hyper_jax.train.json_files import replace_text
from sparse_hyper_jax.train.run_folder import RunFolder

REPORT = "report.html"
"""Name of the file in the run folder."""

KINDS = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}
LONG = 60
"""Characters of a value that are shown before the reader asks for more."""

_INK, _CURVE = "#010203", "#040506"  # taken out of a drawing again, for colours of the page
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark;
  --ink: #1c2733; --page: #fff; --line: #d5dbe1; --curve: #1f5f99; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #dfe6ec; --page: #14191f; --line: #3a444e; --curve: #7cb8ee; }}
}}
body {{ margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--ink);
  background: var(--page); font: 1rem/1.5 system-ui, sans-serif; }}
h1, h2 {{ font-weight: 500; line-height: 1.2; }}
.tables, .curves {{ display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }}
.tables > section {{ min-width: 0; }}
table {{ width: 100%; border-collapse: collapse; font-size: .875rem; }}
th, td {{ padding: .25rem .5rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }}
th {{ font-weight: 400; width: 45%; }}
td {{ font-variant-numeric: tabular-nums; }}
figure {{ margin: 0; }}
figcaption {{ font-size: .875rem; }}
svg {{ width: 100%; height: auto; }}
.pictures figure {{ margin-bottom: 1.5rem; }}
.pictures img {{ max-width: 100%; background: #fff; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def write_report(
    folder: RunFolder, *, title: str, settings: Mapping[str, Any], figures: Mapping[str, Any]
) -> None:
    """Write ``report.html`` into the folder of a run.

    Curves are those of the run and of its parts, drawn wherever a metric has two values or more;
    pictures are all that lie in the folder.

    Args:
        folder: of the run, which is over.
        title: what the run is called at the top.
        settings: names and values of its configuration.
        figures: names and values of its results.
    """
    if not folder.writes:
        return
    body = [
        '<div class="tables">',
        _section("Result", _table(figures)),
        _section("Configuration", _table(settings)),
        "</div>",
        _section("Curves", "\n".join(_curves(folder)), "curves"),
        _section("Pictures", "\n".join(_pictures(folder.path)), "pictures"),
    ]
    page = _PAGE.format(title=escape(title), body="\n".join(body))
    replace_text(folder.path / REPORT, page)


def _section(title: str, content: str, kind: str = "") -> str:
    inner = f'<div class="{kind}">\n{content}\n</div>' if kind else content
    return f"<section>\n<h2>{title}</h2>\n{inner}\n</section>" if content else ""


def _table(values: Mapping[str, Any]) -> str:
    rows = (f"<tr><th>{escape(name)}</th><td>{_cell(x)}</td></tr>" for name, x in values.items())
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if len(text) <= LONG:
        return escape(text)
    return f"<details><summary>{escape(text[:LONG])} …</summary>{escape(text)}</details>"


def _curves(folder: RunFolder) -> Iterator[str]:
    parts = sorted(path.parent.name for path in folder.path.glob("*/metrics.jsonl"))
    for one, prefix in [(folder, ""), *((folder.part(name), f"{name}: ") for name in parts)]:
        lines = one.metrics()
        for name in dict.fromkeys(name for line in lines for name in line):
            points = [(line["step"], line[name]) for line in lines if _is_number(line.get(name))]
            if name not in ("step", "seconds") and len(points) >= 2:
                caption = f"<figcaption>{escape(prefix + name)}</figcaption>"
                yield f"<figure>{caption}{_draw(np.array(points, np.float64))}</figure>"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw(points: np.ndarray) -> str:
    """Draw a curve as an SVG element in the colours of the page."""
    style: Any = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK),
        **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.2, 2.4), layout="constrained")
        axes = figure.subplots()
        axes.plot(*points.T, color=_CURVE, lw=1.5, marker="." if len(points) < 30 else "")
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step")
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    drawn = file.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r'<g id="[a-z0-9.]+_\d+">', "<g>", drawn)  # every drawing has the same
    return drawn.replace(_INK, "currentColor").replace(_CURVE, "var(--curve)")


def _pictures(path: Path) -> Iterator[str]:
    for picture in sorted(path.iterdir()):
        if picture.suffix in KINDS:
            data = base64.b64encode(picture.read_bytes()).decode()
            name = escape(picture.name)
            yield (
                f'<figure><img alt="{name}" src="data:{KINDS[picture.suffix]};base64,{data}">'
                f"<figcaption>{name}</figcaption></figure>"
            )
