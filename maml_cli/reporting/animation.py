"""Animations: a figure drawn frame by frame, as a GIF, or as an MP4 through ffmpeg."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from maml_cli.errors import ConfigError, FileError
from maml_cli.reporting.canvas import Figure, figure_settings
from maml_cli.reporting.figure_layout import fit_to_style
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.matplotlib_import import AbstractMovieWriter, FFMpegWriter, PillowWriter
from maml_cli.runs import write_atomic

DOTS_PER_INCH = 100
EVEN = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
"""Options of ffmpeg: sizes that every player takes, and no version of ffmpeg in the file."""


class Animation(NamedTuple):
    """A figure that changes.

    figure: with its first frame.
    draw_frame: changes the figure to the frame of a number from 0.
    num_frames: number of frames.
    frames_per_second: rate of the frames.
    """

    figure: Figure
    draw_frame: Callable[[int], None]
    num_frames: int
    frames_per_second: int


def check_format(file_format: str) -> None:
    """Raises ConfigError for a format that needs a program which is not on this machine."""
    if file_format == "mp4" and not FFMpegWriter.isAvailable():
        raise ConfigError("--format mp4: needs the program ffmpeg, which is not on the PATH; install it, or give gif")


def save_animation(draw: Callable[[], Animation], file: Path, style: FigureStyle = DEFAULT_STYLE) -> Path:
    """Draw an animation in `style` and write it to `file`; its suffix chooses the format, .gif or .mp4.

    Equal frames give equal bytes of a GIF. Raises ConfigError without ffmpeg for an MP4, or if the figure is too small
    for its text.
    """
    check_format(file.suffix.lower()[1:])
    with figure_settings(style), tempfile.TemporaryDirectory() as folder:
        animation = draw()
        fit_to_style(animation.figure, style)
        animation.figure.draw_without_rendering()
        animation.figure.set_layout_engine("none")  # panels keep their places, and are not computed again
        target = Path(folder) / f"animation{file.suffix.lower()}"
        writer: AbstractMovieWriter = (
            PillowWriter(fps=animation.frames_per_second)
            if target.suffix == ".gif"
            else FFMpegWriter(fps=animation.frames_per_second, codec="h264", extra_args=EVEN)
        )
        try:
            with writer.saving(animation.figure, str(target), DOTS_PER_INCH):
                for frame in range(animation.num_frames):
                    animation.draw_frame(frame)
                    if style.title is not None:
                        animation.figure.suptitle(style.title)
                    writer.grab_frame()
            contents = target.read_bytes()
        except (OSError, RuntimeError) as error:
            raise FileError(f"{file}: the animation cannot be written: {str(error).splitlines()[0]}") from None
    write_atomic(file, contents)
    return file
