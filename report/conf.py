"""Sphinx configuration of the report; `lsce.report.site.build` copies it beside the notebooks."""

project = "Label smoothing cross entropy"
author = "The lsce authors"
html_title = project

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
    "sphinx_design",
]
root_doc = "index"
language = "en"
numfig = True

# Notebooks arrive executed.
nb_execution_mode = "off"
nb_output_stderr = "remove"
nb_merge_streams = True
nb_code_prompt_show = "Show code"
nb_code_prompt_hide = "Hide code"
# The default loads widget scripts from outside.
nb_ipywidgets_js = {}
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
# In docstrings, `names` are code.
default_role = "code"

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "alpha"

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_favicon = "_static/logo.svg"
html_show_sphinx = False
html_show_copyright = False
# The browser does not let a page opened from disk read the other pages for excerpts.
html_show_search_summary = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
        "alt_text": "",
        "text": project,
    },
    "search_bar_text": "Search the report",
    # The theme's own layout already has a search box.
    "navbar_persistent": [],
    "show_toc_level": 2,
    "footer_content_items": ["extra-footer.html"],
    "extra_footer": "lsce: a reproducible report on label smoothing cross entropy. MIT License.",
}
