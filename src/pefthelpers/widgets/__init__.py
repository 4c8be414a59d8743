"""Interactive parts: ipywidgets where a kernel runs, a figure and a page of HTML elsewhere."""

from pefthelpers.widgets.chooser import method_chooser
from pefthelpers.widgets.memory import memory_calculator

__all__ = ["memory_calculator", "method_chooser"]
