"""matplotlib, imported so that neither the environment nor the user's files can stop or change it.

Only this module imports matplotlib; other modules import its names from here.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from unittest import mock

from maml_cli.errors import FileError


@contextlib.contextmanager
def _without_user_settings() -> Iterator[None]:
    """Import matplotlib without MPLBACKEND and MATPLOTLIBRC, and without warnings about its cache directory.

    matplotlib reads both at import and fails on a backend that is not installed, such as the one that notebooks
    export to their child processes.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with mock.patch.dict(os.environ):
            for name in ("MPLBACKEND", "MATPLOTLIBRC"):
                os.environ.pop(name, None)
            yield
    except UnicodeDecodeError:
        raise FileError("matplotlibrc: not a text file; remove it from this directory or from ~/.config") from None
    finally:
        logger.setLevel(level)


with _without_user_settings():
    import matplotlib
    import matplotlib.font_manager
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm, get_named_colors_mapping, to_rgb
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text
    from matplotlib.textpath import text_to_path
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

__all__ = [
    "Artist",
    "Axes",
    "Figure",
    "FigureCanvasAgg",
    "FixedLocator",
    "FontProperties",
    "FuncFormatter",
    "LogLocator",
    "LogNorm",
    "MaxNLocator",
    "NullFormatter",
    "NullLocator",
    "Text",
    "get_named_colors_mapping",
    "matplotlib",
    "text_to_path",
    "to_rgb",
]
