"""Animations: a figure drawn frame by frame, as a GIF, or as an MP4 through ffmpeg."""

import contextlib
import io
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from PIL import Image

from maml_cli.errors import ConfigError, FileError
from maml_cli.reporting.canvas import Figure, figure_settings
from maml_cli.reporting.figure_layout import fit_to_style, wrap_title
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.matplotlib_import import Artist, FigureCanvasAgg, matplotlib
from maml_cli.runs import write_atomic

DOTS_PER_INCH = 100
PALETTE_FRAMES, PALETTE_COLOURS = 9, 255
"""Frames from which the palette of a GIF is taken, and its colours: one is left for pixels that do not change."""
SHADES = 4
"""Neighbouring values of red, green and blue that are one colour of a GIF: Pillow looks colours up in such steps."""
H264 = ["-c:v", "h264", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
"""Options of ffmpeg: pixels that every player takes, and a file that browsers play while they load it."""
NO_VERSION = ["-fflags", "+bitexact", "-flags:v", "+bitexact"]
"""Options of ffmpeg that leave its version out of the file."""

DrawFrame = Callable[[int], Image.Image]
"""The pixels of the frame of a number from 0."""


class Animation(NamedTuple):
    """A figure that changes.

    figure: with its first frame.
    draw_frame: changes the figure to the frame of a number from 0.
    moving: the artists that it changes, and those above them, in the order of drawing; all others are drawn once.
    num_frames: number of frames.
    frames_per_second: rate of the frames.
    """

    figure: Figure
    draw_frame: Callable[[int], None]
    moving: Sequence[Artist]
    num_frames: int
    frames_per_second: int


def check_format(file_format: str) -> None:
    """Raises ConfigError for a format that needs a program which is not on this machine."""
    if file_format == "mp4" and shutil.which("ffmpeg") is None:
        raise ConfigError(
            "--format mp4: needs the program ffmpeg, which is not on the PATH; install it (apt install "
            "ffmpeg, brew install ffmpeg), or give gif"
        )


def save_animation(draw: Callable[[], Animation], file: Path, style: FigureStyle = DEFAULT_STYLE) -> Path:
    """Draw an animation in `style` and write it to `file`; its suffix chooses the format, .gif or .mp4.

    Equal frames give equal bytes of a GIF. Raises ConfigError without ffmpeg for an MP4, or if the figure is too small
    for its text.
    """
    check_format(file.suffix.lower()[1:])
    with figure_settings(style):
        animation = draw()
        figure = animation.figure
        fit_to_style(figure, style)
        _make_even(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # panels keep their places, and are not computed again
        frames = _frames(animation, style)
        try:
            contents = _gif(frames, animation) if file.suffix.lower() == ".gif" else _mp4(frames, animation)
        except (OSError, RuntimeError) as error:
            raise FileError(f"{file}: the animation cannot be written: {str(error).splitlines()[0]}") from None
    write_atomic(file, contents)
    return file


def _make_even(figure: Figure) -> None:
    """Change the size of a figure to even numbers of pixels, as H.264 needs them."""
    width, height = (2 * round(DOTS_PER_INCH * inches / 2) for inches in figure.get_size_inches())
    figure.set_size_inches((width + 0.01) / DOTS_PER_INCH, (height + 0.01) / DOTS_PER_INCH)  # rounded down to pixels


def _frames(animation: Animation, style: FigureStyle) -> DrawFrame:
    """A function from the number of a frame to its pixels; the artists that do not move are drawn here, once."""
    figure = animation.figure
    colour = matplotlib.rcParams["savefig.facecolor"]
    if colour != "auto":
        figure.set_facecolor(colour)
    figure.set_dpi(DOTS_PER_INCH)
    for artist in animation.moving:
        artist.set_animated(True)
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)

    def frame(number: int) -> Image.Image:
        animation.draw_frame(number)
        if style.title is not None:
            figure.suptitle(style.title)
        wrap_title(figure)
        canvas.restore_region(background)
        for artist in animation.moving:
            figure.draw_artist(artist)
        return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")

    return frame


def _gif(frame: DrawFrame, animation: Animation) -> bytes:
    """The frames as a GIF with one palette, which repeats for ever."""
    last = animation.num_frames - 1
    colours = _palette([frame(last * index // (PALETTE_FRAMES - 1)) for index in range(PALETTE_FRAMES)])
    steps = Image.new("P", (1, 1))
    steps.putpalette([value - value % SHADES for value in colours])
    frames = []
    for number in range(animation.num_frames):
        indexed = (
            frame(number).point(lambda value: value - value % SHADES).quantize(palette=steps, dither=Image.Dither.NONE)
        )
        indexed.putpalette(colours)
        frames.append(indexed)
    buffer = io.BytesIO()
    milliseconds = 1000 // animation.frames_per_second
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, optimize=True)
    return buffer.getvalue()


def _palette(images: Sequence[Image.Image]) -> list[int]:
    """Red, green and blue of the most frequent colours of images, one of each SHADES."""
    counts = Counter[tuple[int, int, int]]()
    for image in images:
        of_image = cast(list[tuple[int, tuple[int, int, int]]], image.getcolors(image.width * image.height))
        counts.update({colour: count for count, colour in of_image})
    by_step: dict[tuple[int, ...], tuple[int, int, int]] = {}
    for colour, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        by_step.setdefault(tuple(value // SHADES for value in colour), colour)
    return [value for colour in list(by_step.values())[:PALETTE_COLOURS] for value in colour]


def _mp4(frame: DrawFrame, animation: Animation) -> bytes:
    """The frames as H.264, by ffmpeg; raises RuntimeError with its message."""
    width, height = frame(0).size
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{animation.frames_per_second}"]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "animation.mp4"
        command = ["ffmpeg", "-loglevel", "error", *source, "-i", "-", *H264, *NO_VERSION, str(target)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its message says why
                for number in range(animation.num_frames):
                    process.stdin.write(frame(number).tobytes())
            _, message = process.communicate()
        if process.returncode:
            raise RuntimeError(message.decode(errors="replace").strip() or f"ffmpeg: exit code {process.returncode}")
        return target.read_bytes()
