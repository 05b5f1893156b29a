"""The example of curves of the user's own: temperatures of weather stations that do not exist.

The temperature of a station on day d of the year, in degrees Celsius, is

    mean + amplitude cos(2 pi (d - warmest) / 365.25) + second cos(4 pi (d - second_warmest) / 365.25) + 2 e

with mean ~ N(10, 6), amplitude ~ U(3, 15), warmest ~ N(200, 10), second ~ U(0, 2) and second_warmest ~ U(0, 182.625) of
the station, and e ~ N(0, 1) of the day. A station reports on 60 to 140 days of the year, in order. `python -m
maml_cli.dev.station_curves` writes the table.
"""

import math
import random
from pathlib import Path
from statistics import NormalDist

from maml_cli.config import presets

NUM_STATIONS = 240
YEAR = 365.25
NOISE = 2.0


def table() -> str:
    """The text of the table: a row for each station and day."""
    stream, normal = random.Random(0), NormalDist()

    def gauss(mean: float, std: float) -> float:
        return mean + std * normal.inv_cdf(max(stream.random(), 1e-12))

    rows = ["station,day,celsius"]
    for station in range(NUM_STATIONS):
        mean, amplitude, warmest = gauss(10, 6), 3 + 12 * stream.random(), gauss(200, 10)
        second, second_warmest = 2 * stream.random(), YEAR / 2 * stream.random()
        num_days = 60 + int(81 * stream.random())
        for day in sorted(sorted(range(1, 366), key=lambda _: stream.random())[:num_days]):
            angle = 2 * math.pi / YEAR
            celsius = mean + amplitude * math.cos(angle * (day - warmest))
            celsius += second * math.cos(2 * angle * (day - second_warmest)) + gauss(0, NOISE)
            rows.append(f"s{station:03d},{day},{celsius:.1f}")
    return "\n".join(rows) + "\n"


def file() -> Path:
    """The committed table, beside the presets."""
    return presets.directory() / "own-curves.csv"


if __name__ == "__main__":
    file().write_text(table(), encoding="utf-8")
