"""Tables for readers: headings in words with units, and in bold what matters.

They have no colours of their own, so that they are legible on whatever the page is shown.
"""

import html
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import display

# of columns, of levels, and of measures that stand in rows
HEADINGS = {
    "n_total_pct": "non-zero weights [%]",
    "n_linear_pct": "non-zero linear weights [%]",
    "n_conv_pct": "non-zero kernels [%]",
    "val_acc_pct": "validation accuracy [%]",
    "test_acc_pct": "test accuracy [%]",
    "train_acc_pct": "training accuracy [%]",
    "target_pct": "wanted density [%]",
    "flops_pct": "FLOPs [% of dense]",
    "l1_norm": "ℓ1 norm",
    "ssim": "SSIM",
    "ssim_inside": "SSIM inside",
    "degraded_ssim": "SSIM before",
    "psnr": "PSNR [dB]",
    "degraded_psnr": "PSNR before [dB]",
    "seconds": "time [s]",
    **{f"active_neurons_{i}": f"active neurons, layer {i}" for i in range(1, 8)},
    "artifact": "where",
    "label": "run",
    "std": "± over seeds",
    # settings keep their name in the code, for those who try their own
    "lr": "τ (lr)",
    "lam": "λ (lam)",
    "lam_conv": "λ of kernels (lam_conv)",
    "skip_lam": "μ (skip_lam)",
    "momentum": "β (momentum)",
    "density": "r (density)",
    "mini": "small set (mini)",
    "train_size": "training images (train_size)",
}
# what no value means, where that is not nothing
ABSENT = {"train_size": "all", "autocast": "float32", "skip_lam": "forbidden"}


def tabulate(
    table: "pd.DataFrame | pd.Series[Any]",
    digits: int | None = 2,
    strong: Iterable[bool] = (),
    caption: str = "",
) -> None:
    """Show a table.

    Args:
        table: its index is shown unless it only counts the rows; of a level with one value that
            value stands above.
        digits: decimals of its numbers; None for as many as they need.
        strong: for each row, whether it is in bold.
        caption: what stands above it; where the output is folded, that is all of it to be seen.
    """
    table = table.to_frame() if isinstance(table, pd.Series) else table
    while table.index.nlevels > 1 and table.index.get_level_values(0).nunique() == 1:
        caption = ", ".join(filter(None, [caption, str(table.index[0][0])]))
        table = table.droplevel(0)
    cells = table.astype(object).apply(lambda column: column.map(_cells(column.name, digits)))
    bold = [*strong] or [False] * len(table)
    marked = cells.map(html.escape)
    marked[bold] = "<strong>" + marked[bold] + "</strong>"
    index = table.index.names != [None] or not isinstance(table.index, pd.RangeIndex)
    with pd.option_context("display.max_colwidth", None):
        text = _named(marked, html.escape).to_html(border=0, escape=False, index=index)
        plain = _named(cells).to_string(index=index)
    above = f"{caption}:\n" if caption else ""
    display({"text/html": html.escape(above) + text, "text/plain": above + plain}, raw=True)


def settings(table: pd.DataFrame, caption: str = "") -> None:
    """Show the hyper-parameters of runs: as a table where they differ, below it what all share.

    Args:
        table: of ``Experiment.parameter_table``.
        caption: as for ``tabulate``.
    """
    differ = [name for name in table if table[name].map(str).nunique() > 1]
    tabulate(table[differ], digits=None, caption=caption)
    words = ", ".join(
        f"{_heading(name)} {_cells(name, None)(table[name].iloc[0]) or 'none'}"
        for name in table.columns.drop(differ)
    )
    shared = f"All of them: {words}."
    display({"text/html": f"<p>{html.escape(shared)}</p>", "text/plain": shared}, raw=True)


def _named(table: pd.DataFrame, escape: Callable[[str], str] = str) -> pd.DataFrame:
    def name(value: Any) -> str:
        return escape(_heading(value))

    table = table.rename(index=name, columns=name)
    for axis in (table.index, table.columns):
        axis.names = [None if level is None else name(level) for level in axis.names]
    return table


def _heading(name: Any) -> str:
    if isinstance(name, float):
        return f"{name:g}"
    words = str(name).replace("_", " ").replace("lam=", "λ=").replace("beta =", "β =")
    return HEADINGS.get(name, words)


def _cells(column: Any, digits: int | None) -> Callable[[Any], str]:
    """From the values of a column to words."""

    def words(value: Any) -> str:
        if isinstance(value, bool | np.bool_):
            return "yes" if value else "no"
        if pd.isna(value):
            return ABSENT.get(column, "")
        if isinstance(value, float | np.floating):
            number = float(value)
            # below the last digit it is not nothing
            few = digits is None or 0 < abs(number) < 0.5 * 10.0**-digits
            return f"{number:.4g}" if few else f"{number:,.{digits}f}"
        return f"{value:,}" if isinstance(value, int | np.integer) else str(value)

    return words
