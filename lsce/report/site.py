"""From notebooks to a web site: execute them with papermill, render them with Sphinx.

Nothing here knows what the notebooks are about. The site needs no network and no server: it is
opened from disk.
"""

import ast
import html
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
import zmq
from ipykernel.kernelspec import get_kernel_dict
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from lsce.machine import paths
from lsce.report import reference

#: Tags by which a notebook's author says what becomes of a cell's code; without one it is folded.
CODE_TAGS = {"show-input", "hide-input", "remove-input", "hide-cell", "remove-cell"}

#: What pages load of MathJax, which is copied whole (24 MB) into every site.
MATHJAX = ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts")

#: Links to a figure of the page; to other pages, in Markdown and HTML; and to what is cited: the
#: title of such a link is its key in the bibliography.
_TO_FIGURE = re.compile(r"\[[^\]]*\]\(#(fig-[\w-]+)\)")
_TO_PAGE = re.compile(r"(\]\(\w+)\.ipynb\)")
_CITATION = r'\[[^\]]*\]\(\S+ "\w+"\)'
_CITATIONS = re.compile(rf"\({_CITATION}(?:, {_CITATION})*\)")
_KEY = re.compile(r' "(\w+)"\)')

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class NotebookFailed(RuntimeError):
    """A notebook did not run to its end; the message is one sentence for whoever started it."""


class _ThisPython(AsyncKernelManager):
    """Starts the kernel on the running interpreter, whatever kernel `python3` a user installed."""

    @default("transport_encryption")
    def _encrypt(self) -> str:
        # Without it every kernel warns, on the terminal, that its local sockets are readable.
        return "auto" if zmq.has("curve") else "disabled"

    @property
    def kernel_spec(self) -> KernelSpec:
        # A kernel that is told to end now and then logs that as an error.
        return KernelSpec(**get_kernel_dict(["--log-level=CRITICAL"]))


def execute(notebook: Path, parameters: Mapping[str, Any], output: Path) -> None:
    """Execute `notebook` with `parameters` in its own folder and write the result to `output`.

    `output` appears only when every cell has run; until then, and after a failure, the notebook
    lies beside it as `<name>.partial.ipynb`.

    Raises:
        ValueError: a parameter that the notebook's cell tagged `parameters` does not set.
        NotebookFailed: a cell raised, or the kernel died.
    """
    check_parameters(notebook, parameters)
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".partial.ipynb")
    try:
        papermill.execute_notebook(
            notebook.resolve(),
            partial,
            dict(parameters),
            kernel_name="python3",
            kernel_manager_class=_ThisPython,
            progress_bar=False,
            cwd=notebook.resolve().parent,
        )
    except PapermillExecutionError as error:
        reason = f"{error.ename}: {_last_line(error.evalue)}".removesuffix(": ")
    except (DeadKernelError, CellTimeoutError) as error:
        reason = f"{type(error).__name__}: {_last_line(str(error))}"
    else:
        partial.replace(output)
        return
    raise NotebookFailed(
        f"{notebook.name} stopped with {reason.rstrip('.')}; what it did so far is in {partial}."
    )


def parameters(notebook: Path) -> list[str]:
    """The names that the notebook's cell tagged `parameters` sets, annotated or not."""
    names = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            for line in ast.parse(TransformerManager().transform_cell(cell.source)).body:
                targets = getattr(line, "targets", None) or [getattr(line, "target", None)]
                names += [node.id for node in targets if isinstance(node, ast.Name)]
    return names


def check_parameters(notebook: Path, names: Iterable[str]) -> None:
    """Raise ValueError for a parameter that the notebook's cell tagged `parameters` lacks."""
    known = sorted(parameters(notebook))
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(
            f"{notebook.name} has no parameter {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(map(repr, known)) or 'none'}."
        )


def _last_line(message: str) -> str:
    return ["", *_ANSI.sub("", message).strip().splitlines()][-1].strip()


def stub(name: str, title: str, message: str, output: Path) -> Path:
    """Write the page `output/name.md`, which holds a notebook's place where nothing is recorded."""
    output.mkdir(parents=True, exist_ok=True)
    page = output / f"{name}.md"
    page.write_text(f"# {title}\n\n:::{{note}}\n{message}\n:::\n", encoding="utf-8")
    return page


def build(
    pages: Sequence[Path],
    out: Path = paths.HTML,
    *,
    banner: str | None = None,
    footer: str | None = None,
) -> Path:
    """Render the report and return its first page, `out/index.html`.

    `pages` are executed notebooks and stubs; the site lists them by file name. `banner` and
    `footer` are plain text for the top and the bottom of every page. A report that is already at
    `out` is replaced when the new one is complete; `out.parent/source` holds what was rendered.

    Raises:
        ValueError: no pages, or two of the same name.
        RuntimeError: Sphinx failed or warned; the message is what it said.
    """
    names = [page.stem for page in pages]
    if not pages or len(set(names)) < len(names):
        raise ValueError(f"pages must be one or more files of different names, not {names}.")
    source = out.parent / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(paths.REPORT, source, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    reference.write(source, names)
    for page in pages:
        if page.suffix == ".ipynb":
            nbformat.write(_publishable(page, source / "_static"), source / page.name)
        else:
            shutil.copy(page, source)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        new = Path(scratch, "html")
        _sphinx(source, new, {"announcement": banner, "extra_footer": footer})
        _prune(new / "_static" / "mathjax")
        if out.exists():
            out.rename(Path(scratch, "old"))
        new.rename(out)
    return out / "index.html"


def _publishable(notebook: Path, static: Path) -> NotebookNode:
    """The notebook as a page: its code folded, its prose in MyST, the files that it links to copied
    to `static`, and nothing that names this machine or needs a server."""
    node: NotebookNode = nbformat.read(notebook, as_version=4)
    node.metadata.pop("widgets", None)
    for metadata in (node.metadata, *(cell.metadata for cell in node.cells)):
        metadata.pop("papermill", None)
    node.cells = list(_figures(node.cells, notebook.name))
    for cell in node.cells:
        if cell.cell_type == "markdown":
            cell.source = _in_myst(_with_files(cell.source, static))
        elif cell.cell_type == "code":
            tags = cell.metadata.setdefault("tags", [])
            if CODE_TAGS.isdisjoint(tags):
                tags.append("hide-input")
            if "injected-parameters" in tags:
                prompts = cell.metadata.setdefault("mystnb", {})
                prompts["code_prompt_show"] = "Show parameters"
                prompts["code_prompt_hide"] = "Hide parameters"
            for data in (output.get("data", {}) for output in cell.outputs):
                for kind in {"text/html", "text/markdown"} & set(data):
                    data[kind] = _with_files(data[kind], static)
                if "text/markdown" in data:
                    data["text/markdown"] = _in_myst(data["text/markdown"])
    return node


def _figures(cells: Iterable[NotebookNode], notebook: str) -> Iterator[NotebookNode]:
    """The cells, in which each one tagged `caption` is made the caption of the figure before it,
    and what a figure's cell puts out beside the image, such as its downloads, comes after it."""
    figure = None
    for cell in cells:
        if "caption" in cell.metadata.get("tags", []):
            if figure is None:
                raise ValueError(f"{notebook}: no figure before the caption {cell.source[:40]!r}…")
            figure["caption"] = _in_myst(cell.source.removeprefix("**Figure.** "))
            continue
        figure = cell.metadata.get("mystnb", {}).get("figure")
        yield cell
        if figure:
            downloads = [output for output in cell.outputs if "text/html" in output.get("data", {})]
            cell.outputs = [output for output in cell.outputs if output not in downloads]
            yield from (new_markdown_cell(output.data["text/html"]) for output in downloads)


def _in_myst(text: str) -> str:
    """Links as they work in Jupyter, in the form that numbers figures, makes citations and leads
    from page to page."""
    text = _CITATIONS.sub(lambda links: f"{{cite}}`{','.join(_KEY.findall(links[0]))}`", text)
    text = _TO_FIGURE.sub(r"{numref}`\1`", text)
    text = text.replace("](../report/how_to.md)", "](how_to)")
    return _TO_PAGE.sub(r"\1)", text)


def _with_files(text: str, static: Path) -> str:
    """Links to other notebooks and to files of figures, as they are in the site."""

    def copied(link: re.Match[str]) -> str:
        file = (paths.NOTEBOOKS / link[1]).resolve()
        place = Path("figures", file.parent.name if file.parent != paths.FIGURES else "", file.name)
        (static / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, static / place)
        return f'href="_static/{place.as_posix()}"'

    text = re.sub(r'href="(\.\./figures/[^"]+)"', copied, text)
    return re.sub(r'href="(\w+)\.ipynb([#"])', r'href="\1.html\2', text)


def _sphinx(source: Path, out: Path, texts: Mapping[str, str | None]) -> None:
    # -E and -a: an incremental build keeps numbers glued from another notebook, stale and silent.
    options = "-m sphinx -E -a -W --keep-going -q -N -b html"
    command = [sys.executable, *options.split(), "-d", str(out.with_name("doctrees"))]
    for option, text in texts.items():
        if text is not None:
            command += ["-D", f"html_theme_options.{option}=<p>{html.escape(text)}</p>"]
    done = subprocess.run([*command, str(source), str(out)], capture_output=True, text=True)
    if done.returncode:
        message = _ANSI.sub("", done.stderr or done.stdout).strip()
        raise RuntimeError(f"Sphinx did not build the report cleanly:\n{message}")


def _prune(mathjax: Path) -> None:
    """Delete what pages do not load of MathJax."""
    whole = mathjax.rename(mathjax.with_name("mathjax-whole"))
    for name in MATHJAX:
        (mathjax / name).parent.mkdir(parents=True, exist_ok=True)
        (whole / name).rename(mathjax / name)
    shutil.rmtree(whole)
