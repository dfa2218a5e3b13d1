import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from report_samples import BANNER, write_notebook

from lsce.machine import paths
from lsce.report import site

pytest_plugins = ["report_fixtures"]

PARAMETERS = new_code_cell(
    "epsilon: float | None = None\nseeds = [0, 1]\nname = None", metadata={"tags": ["parameters"]}
)


def printed(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return "".join(o.text for c in cells for o in c.get("outputs", []) if o.get("name") == "stdout")


class Loads(HTMLParser):
    """Every address that a page makes the browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "source", "object", "video", "audio"}:
            self.found += [v for k, v in attrs if k in {"src", "href", "srcset", "data"} and v]


# Execution


@pytest.mark.slow
def test_execute_runs_quietly_on_this_python_whatever_kernels_are_installed(
    tmp_path, monkeypatch, capfd
):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "another", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    (folder := tmp_path / "a folder").mkdir()
    prints = "import os, sys\nprint(sys.executable, os.getcwd(), epsilon, seeds, name, sep='|')"
    cells = [PARAMETERS, new_code_cell(prints), new_code_cell("print('aside', file=sys.stderr)")]
    notebook = write_notebook(cells, folder / "n.ipynb", kernel="mine")
    output = tmp_path / "new" / "n.ipynb"
    site.execute(notebook, {"epsilon": 0.3, "seeds": [4]}, output)
    assert printed(output) == f"{sys.executable}|{folder}|0.3|[4]|None\n"
    assert [path.name for path in output.parent.iterdir()] == ["n.ipynb"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_failing_cell_is_one_sentence_and_leaves_the_notebook(tmp_path):
    cells = [new_code_cell("print('so far')"), new_code_cell("raise KeyError('no\\nsuch run')")]
    notebook = write_notebook(cells, tmp_path / "04_fails.ipynb")
    output = tmp_path / "out" / "04_fails.ipynb"
    with pytest.raises(site.NotebookFailed) as failure:
        site.execute(notebook, {}, output)
    partial = output.with_name("04_fails.partial.ipynb")
    assert not output.exists()
    assert printed(partial) == "so far\n"
    message = str(failure.value)
    assert message.startswith("04_fails.ipynb stopped with KeyError: ")
    assert str(partial) in message and "\n" not in message and "\x1b" not in message


@pytest.mark.slow
def test_a_dying_kernel_is_one_sentence(tmp_path):
    notebook = write_notebook([new_code_cell("import os; os._exit(1)")], tmp_path / "dies.ipynb")
    with pytest.raises(site.NotebookFailed, match=r"^dies\.ipynb stopped with Dead") as failure:
        site.execute(notebook, {}, tmp_path / "out.ipynb")
    assert "\n" not in str(failure.value)


def test_an_unknown_parameter_is_named_with_the_known_ones(tmp_path):
    notebook = write_notebook([PARAMETERS], tmp_path / "n.ipynb")
    sentence = "^n.ipynb has no parameter 'epsilom'; it has 'epsilon', 'name', 'seeds'.$"
    with pytest.raises(ValueError, match=sentence):
        site.execute(notebook, {"epsilom": 0.3, "name": "x"}, tmp_path / "out.ipynb")
    bare = write_notebook([new_code_cell("epsilon = 1")], tmp_path / "bare.ipynb")
    with pytest.raises(ValueError, match="no parameter 'epsilon'; it has none"):
        site.execute(bare, {"epsilon": 0.3}, tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("x: int | None = None\ny: 'list[int]' = [1]  # words", ["x", "y"]),
        ("a = b = 1\n# c = 2\n%matplotlib inline\n!ls\nd = {\n 'e': 1}", ["a", "b", "d"]),
        ("", []),
    ],
)
def test_parameters_are_read_as_python_reads_them(source, names, tmp_path):
    cell = new_code_cell(source, metadata={"tags": ["parameters"]})
    notebook = write_notebook([cell, new_code_cell("z = 1")], tmp_path / "n.ipynb")
    assert site.parameters(notebook) == names


# The site


def test_links_of_jupyter_become_those_of_the_site():
    text = "[The figure below](#fig-a) and [the loss](01_loss.ipynb), [how](../report/how_to.md)."
    assert site._in_myst(text) == "{numref}`fig-a` and [the loss](01_loss), [how](how_to)."
    cited = 'So ([A & B 2019](https://x.org/1 "ab2019"), [C 2020](https://x.org/2 "c2020")).'
    assert site._in_myst(cited) == "So {cite}`ab2019,c2020`."
    assert site._in_myst("[a site](https://x.org)") == "[a site](https://x.org)"


def test_a_figure_has_its_caption_and_then_its_downloads(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    (tmp_path / "figures" / "quick").mkdir(parents=True)
    (tmp_path / "figures" / "quick" / "a.csv").write_text("x\n1\n")
    link = '<p><a href="../figures/quick/a.csv" download>CSV</a> <a href="01_x.ipynb#b">b</a></p>'
    outputs = [
        new_output("display_data", {"image/svg+xml": "<svg/>"}),
        new_output("display_data", {"text/html": link}),
    ]
    about = {"mystnb": {"figure": {"name": "fig-a"}}}
    cells = [
        new_code_cell("draw()", metadata=about, outputs=outputs),
        new_markdown_cell("**Figure.** Means.", metadata={"tags": ["caption"]}),
        new_markdown_cell("Text."),
    ]
    notebook = write_notebook(cells, tmp_path / "n.ipynb")
    code, downloads, text = site._publishable(notebook, tmp_path / "static").cells
    assert code.metadata["mystnb"]["figure"] == {"name": "fig-a", "caption": "Means."}
    assert len(code.outputs) == 1 and text.source == "Text."
    assert 'href="_static/figures/quick/a.csv"' in downloads.source
    assert 'href="01_x.html#b"' in downloads.source
    assert (tmp_path / "static" / "figures" / "quick" / "a.csv").read_text() == "x\n1\n"

    (tmp_path / "figures" / "quick" / "a.csv").unlink()
    with pytest.raises(FileNotFoundError, match="a.csv"):
        site._publishable(notebook, tmp_path / "static")
    astray = write_notebook([cells[1]], tmp_path / "n.ipynb")
    with pytest.raises(ValueError, match="n.ipynb: no figure before the caption '\\*\\*Figure"):
        site._publishable(astray, tmp_path / "static")


@pytest.mark.slow
def test_every_page_has_the_banner_and_loads_nothing_from_outside(site):
    pages = sorted(site.glob("*.html"))
    assert {"index.html", "01_sample_loss.html", "03_missing.html"} <= {p.name for p in pages}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert f"<p>{html.escape(BANNER)}</p>" in text, page.name
        loads = Loads()
        loads.feed(text)
        assert loads.found
        outside = [found for found in loads.found if re.match(r"(https?:)?//", found)]
        assert not outside, page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style.name


@pytest.mark.slow
def test_pages_hold_what_the_notebooks_computed(site):
    first = (site / "01_sample_loss.html").read_text(encoding="utf-8")
    assert re.search(r"The gap is <span[^>]*>2.50</span> here", first)
    assert "Müller" in first
    assert re.search(r"<img[^>]*src=\"_images/[^\"]*\.svg\"", first)
    assert '<table border="1" class="dataframe">' in first
    assert "noise for nobody" not in first
    assert first.count("Show code") >= 4
    second = (site / "02_sample_study.html").read_text(encoding="utf-8")
    assert re.search(r'href="01_sample_loss.html#fig-sample"><span[^>]*>Fig. 1</span>', second)
    assert 'href="01_sample_loss.html"' in second and ".ipynb" not in second.split("</nav>")[-1]
    assert re.search(r"\[<a[^>]*>Guo <em>et al.</em>, 2017</a>, <a[^>]*>Krizhevsky, 2009", second)
    assert "A sample figure." in first and "Figure.</strong>" not in first
    listed = (site / "bibliography.html").read_text(encoding="utf-8")
    assert "On calibration of modern neural networks" in listed and "Rethinking" not in listed
    assert "Nothing is recorded for it yet." in (site / "03_missing.html").read_text()


@pytest.mark.slow
def test_pages_are_listed_by_file_name_and_hold_no_paths_of_this_machine(site, executed):
    menu = (site / "bibliography.html").read_text(encoding="utf-8").split("bd-links")[1]
    menu = menu.split("</nav>")[0]
    names = ["01_sample_loss", "02_sample_study", "03_missing", "how_to", "parameters", "api", "#"]
    assert re.findall(r'href="([^"]*?)(?:\.html)?"', menu) == names
    folder = str(executed[0].parent)
    for file in site.rglob("*"):
        if file.suffix in {".html", ".ipynb", ".txt"}:
            assert folder not in file.read_text(encoding="utf-8"), file.name


@pytest.mark.slow
def test_the_site_is_small_and_keeps_what_mathjax_loads(site):
    assert sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) < 15e6
    mathjax = site / "_static" / "mathjax"
    assert (mathjax / "tex-chtml.js").is_file() and not (mathjax / "tex-svg.js").exists()
    assert sorted(path.name for path in site.parent.iterdir()) == ["html", "source"]
    assert not (site / "old.html").exists()


@pytest.mark.slow
def test_a_warning_fails_the_build_and_keeps_the_report_that_was_there(tmp_path):
    notebook = write_notebook([new_markdown_cell("# T\n\n{cite}`nobody`")], tmp_path / "01_x.ipynb")
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "index.html").write_text("the old report")
    with pytest.raises(RuntimeError, match='could not find bibtex key "nobody"'):
        site.build([notebook], tmp_path / "html")
    assert (tmp_path / "html" / "index.html").read_text() == "the old report"
    assert {path.name for path in tmp_path.iterdir()} == {"01_x.ipynb", "html", "source"}


def test_build_wants_pages_of_different_names(tmp_path):
    with pytest.raises(ValueError, match="one or more files"):
        site.build([], tmp_path / "html")
    with pytest.raises(ValueError, match="different names"):
        site.build([tmp_path / "a" / "01_x.ipynb", tmp_path / "01_x.md"], tmp_path / "html")
