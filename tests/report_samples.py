"""Two small notebooks for the tests of the report's tools."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

BANNER = 'Built-in data, <not> "CIFAR-100".'

FIRST = [
    new_markdown_cell(
        "# Sample loss\n\nAs {cite:t}`muller2019` says, with $\\epsilon = 0.1$,\n\n"
        "$$\n\\mathcal{L}(\\mathbf{z}, y) = (1 - \\epsilon)\\,H(\\delta_y, p) + "
        "\\frac{\\epsilon}{K - 1} \\sum_{k \\ne y} H(\\delta_k, p) = -\\sum_{k=1}^{K} q_k "
        "\\log \\frac{\\exp z_k}{\\sum_{j=1}^{K} \\exp z_j} "
        "\\quad \\boldsymbol{q} \\in \\Delta\n$$\n\n"
        "The gap is {glue:text}`gap:.2f` here. A word to search for: wombat.\n\n"
        "| name | value |\n| --- | ---: |\n| a | 1.25 |\n| b | 11.50 |"
    ),
    new_code_cell("epsilon = 0.1\nrows = 4", metadata={"tags": ["parameters", "remove-input"]}),
    new_code_cell(
        "import sys\nimport matplotlib.pyplot as plt\nimport pandas as pd\n"
        "from myst_nb import glue\n"
        "%config InlineBackend.figure_formats = ['svg']\n"
        "glue('gap', float(epsilon) * 10, display=False)\n"
        "print('noise for' + ' nobody', file=sys.stderr)"
    ),
    new_code_cell(
        "fig, ax = plt.subplots(figsize=(7, 3))\nax.plot([0, 1, 2], [0, 1, 4])\n"
        "ax.set_xlabel('epsilon');",
        metadata={"mystnb": {"figure": {"name": "fig-sample"}}},
    ),
    new_markdown_cell("**Figure.** A sample figure.", metadata={"tags": ["caption"]}),
    new_code_cell(
        "wide = pd.DataFrame({f'a long column {i}': [1.5 + i + j for j in range(rows)] "
        "for i in range(12)})\nwide"
    ),
    new_code_cell("wide.style.format(precision=2).background_gradient(cmap='Blues', axis=None)"),
]

SECOND = [
    new_markdown_cell(
        "# Sample study\n\n[The figure](#fig-sample) of [the loss](01_sample_loss.ipynb), as in "
        '([Guo et al. 2017](https://arxiv.org/abs/1706.04599 "guo2017"), '
        '[Krizhevsky 2009](../report/bibliography.md "krizhevsky2009")).\n\n'
        ":::{admonition} Verdict\n:class: tip\nIt holds.\n:::\n\n## A second heading\n\nText."
    ),
    new_code_cell("print('1.0 ' * 100)"),
]


def write_notebook(cells: list[nbformat.NotebookNode], path: Path, kernel: str = "python3") -> Path:
    kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
    cells = [nbformat.from_dict(cell) for cell in cells]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), path)
    return path
