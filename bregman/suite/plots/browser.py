"""Stored results that move where the page is shown: in JupyterLab as on the site, without a kernel.

A picture is a row of panels; a panel holds marks. Marks and panels carry tags, such as the run and
the seed, by which they are chosen or switched on and off. Of what a mark has over the epochs, or
whatever the frames are, the slider below shows the way up to one of them.
"""

import functools
import html
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Concatenate

import numpy as np
from IPython.display import display

from bregman.suite.experiments import Results
from bregman.suite.plots.grammar import NO_RUNS, Look, Measure, P

Mark = dict[str, Any]
Panel = dict[str, Any]
Tags = Mapping[str, str]
NO_TAGS: Tags = {}

_CODE = (resources.files("bregman.suite.plots") / "browser.js").read_text()


def browse(
    panels: Iterable[Panel],
    alt: str,
    *,
    frames: Sequence[Any] = (),
    label: str = "epoch",
    one: Sequence[str] = (),
    many: Sequence[str] = (),
) -> None:
    """Show panels with their controls; axes are the same whatever is switched on.

    Args:
        panels: of ``paths``, ``network`` or ``tiles``.
        alt: what is seen, also where no code runs.
        frames: what the slider goes through; it starts at the last.
        label: the name of the slider.
        one: the tags of which one value is chosen at a time.
        many: the tags whose values are switched on and off.

    Raises:
        ValueError: alt is empty, or no panel and no mark has one of the tags.
    """
    if not alt.strip():
        raise ValueError("alt must say what the picture shows, got nothing")
    panels = [*panels]
    tags = {tag for panel in panels for item in (panel, *panel["marks"]) for tag in item["tags"]}
    if unknown := {*one, *many} - tags:
        raise ValueError(f"one and many must be tags of marks, got {min(unknown)!r}")
    data = {"panels": panels, "alt": alt, "frames": [*frames], "label": label,
            "start": max(0, len(frames) - 1), "one": one, "many": many}  # fmt: skip
    text = html.escape(
        json.dumps(data, separators=(",", ":"), ensure_ascii=False), quote=False
    ).replace("'", "&#39;")
    display({
        "text/html": f"<figure data-browse='{text}' style=\"margin:0\">{html.escape(alt)} It moves "
        f"in JupyterLab, once its cell is run, and on the site.</figure><script>{_CODE}</script>",
        "text/plain": alt,
    }, raw=True)  # fmt: skip


def of_runs(
    picture: Callable[Concatenate[Results, P], None],
) -> Callable[Concatenate[Results, P], None]:
    """Let a picture of results say "no runs yet" where there are none."""

    @functools.wraps(picture)
    def shown(results: Results, *args: P.args, **kwargs: P.kwargs) -> None:
        if results.summary.empty:
            display({"text/plain": NO_RUNS}, raw=True)
        else:
            picture(results, *args, **kwargs)

    return shown


def path(
    name: str, look: Look, y: Iterable[float], x: Any = None, note: str = "", **tags: Any
) -> Mark:
    """A curve with a point for each frame, or a single point.

    Args:
        name: what is told of it.
        look: ``color``, and ``ls`` and ``mfc`` where they matter, as matplotlib has them.
        y: the numbers up.
        x: those across; the frames if None.
        note: what is told of it besides.
        tags: by which it is chosen.
    """
    dash = look.get("ls", "-")
    return {
        "name": name, "color": look["color"], "dash": dash if isinstance(dash, str) else "--",
        "hollow": "mfc" in look, "y": _short(y), "note": note,
        **({} if x is None else {"x": _short(x)}),
        "tags": {tag: str(value) for tag, value in tags.items()},
    }  # fmt: skip


def paths(marks: Iterable[Mark], x: str, y: str, tags: Tags = NO_TAGS, **axes: Any) -> Panel:
    """A panel of paths.

    Args:
        marks: of ``path``.
        x: the name of what is across.
        y: of what is up.
        tags: by which the panel is chosen.
        axes: ``log`` of "x", "y" or "xy"; ``xlim``, ``ylim``; ``diagonal``, to draw equal numbers.
    """
    return {"kind": "paths", "marks": [*marks], "x": x, "title": y, "tags": tags, **axes}


def curves(
    results: Results, measure: Measure, looks: Mapping[str, Look], tags: Tags = NO_TAGS, **axes: Any
) -> Panel:
    """A panel of what runs recorded over the epochs, one curve per run and seed.

    Args:
        results: with the runs.
        measure: what was recorded.
        looks: of the runs, by label.
        tags: as for ``paths``.
        axes: likewise.
    """
    recorded = results.by_seed(measure.split, measure.metric)
    table = measure.factor * recorded.reindex(epochs(results))
    marks = (
        path(f"{run}, seed {seed}", looks[run], values, run=run, seed=seed)
        for (run, seed), values in table.items()
    )
    finite = table.to_numpy()[np.isfinite(table.to_numpy())]
    if measure.limits is not None and finite.max(initial=-np.inf) > measure.limits[0]:
        axes["ylim"] = measure.limits
    return paths(marks, "epoch", measure.name.replace(r"$\ell_1$", "ℓ1"), tags, **axes)


def layered(nodes: Any, links: Mapping[tuple[int, int], Iterable[float]] = {}, **tags: Any) -> Mark:
    """A network as it grows.

    Args:
        nodes: frames x layers: how many neurons are active.
        links: from the numbers of two layers to the weight of what links them, over the frames.
        tags: by which it is chosen.
    """
    return {
        "nodes": np.asarray(nodes, dtype=int).tolist(),
        "links": [[*ends, _short(weights)] for ends, weights in links.items()],
        "tags": {tag: str(value) for tag, value in tags.items()},
    }


def network(title: str, marks: Iterable[Mark], names: Iterable[str]) -> Panel:
    """A panel with one network at a time: layers as bars, links as arcs.

    Args:
        title: of the panel.
        marks: of ``layered``.
        names: of the layers.
    """
    return {"kind": "network", "title": title, "marks": [*marks], "names": [*names], "tags": {}}


def epochs(results: Results) -> list[int]:
    """The epochs that were recorded."""
    return sorted(int(epoch) for epoch in results.history["epoch"].unique())


def tiles(
    title: str,
    marks: Mapping[str, np.ndarray],
    tag: str,
    columns: int,
    kernels: int | None = None,
    blank: bool = False,
) -> Panel:
    """A panel of small gray images.

    Args:
        title: of the panel.
        marks: frames x images x height x width of uint8 each, by the value of the tag; one frame
            stays for all.
        tag: by which one of them is chosen.
        columns: images side by side.
        kernels: the number of the panel with kernels, in which 128 is zero; the first image is
            correlated with each, and what comes of it is shown in its place.
        blank: leave out images that are 128 throughout.
    """
    marks_ = [{"pixels": _pixels(stack), "tags": {tag: value}} for value, stack in marks.items()]
    return {"kind": "tiles", "title": title, "marks": marks_, "columns": columns, "blank": blank,
            "kernels": kernels, "tags": {}}  # fmt: skip


def _pixels(stack: np.ndarray) -> dict[str, Any]:
    return {"bytes": b64encode(stack.astype(np.uint8).tobytes()).decode(), "shape": stack.shape}


def _short(values: Iterable[float]) -> list[float | None]:
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values]
