"""Interactive parts: ipywidgets where a kernel runs, a figure and a page of HTML elsewhere."""

from peftguide.pages.chooser import method_chooser
from peftguide.pages.memory import memory_calculator

__all__ = ["memory_calculator", "method_chooser"]
