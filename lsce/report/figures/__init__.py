"""One function a figure, one style for all; every figure is drawn from a tidy table of numbers.

`publish` shows a figure and saves it as SVG and PNG with those numbers as CSV beside it.
"""

from lsce.report.figures.lines import against as against
from lsce.report.figures.lines import against_epsilon as against_epsilon
from lsce.report.figures.lines import budgets as budgets
from lsce.report.figures.lines import curves as curves
from lsce.report.figures.lines import distributions as distributions
from lsce.report.figures.lines import estimators as estimators
from lsce.report.figures.lines import histories as histories
from lsce.report.figures.lines import projections as projections
from lsce.report.figures.lines import reliability as reliability
from lsce.report.figures.lines import slopes as slopes
from lsce.report.figures.lines import targets as targets
from lsce.report.figures.publishing import publish as publish
from lsce.report.figures.rows import arms as arms
from lsce.report.figures.rows import beside_published as beside_published
from lsce.report.figures.rows import cases as cases
from lsce.report.figures.rows import effects as effects
from lsce.report.figures.rows import speed as speed
from lsce.report.figures.style import use_style as use_style
