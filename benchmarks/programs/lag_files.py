"""CSV files whose true lags are known, for the benchmark ``lags_files``."""

from pathlib import Path

import numpy as np

ROWS = 6000


def write(path: Path, kind: str, seed: int) -> tuple[str, ...]:
    """Write a file with a column ``target``; give the names of the columns to predict it from."""
    columns, inputs = KINDS[kind](np.random.default_rng(seed))
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(f"{value:.6g}" for value in row) for row in rows)]
    path.write_text("\n".join(lines))
    return inputs


def slow(generator: np.random.Generator, correlation: float) -> np.ndarray:
    """Draw an autoregression of order 1 with variance 1."""
    shocks = generator.normal(size=ROWS)
    values = [shocks[0]]
    for shock in shocks[1:]:
        values.append(correlation * values[-1] + (1 - correlation**2) ** 0.5 * shock)
    return np.array(values)


def delays(generator: np.random.Generator) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """A vessel: it keeps half of its temperature, feed comes after 12 rows, heating after 31."""
    feed, heating, other = (slow(generator, one) for one in (0.95, 0.9, 0.98))
    drive = 0.6 * np.tanh(1.5 * np.roll(feed, 12)) + 0.5 * np.maximum(np.roll(heating, 31), 0)
    target = np.zeros(ROWS)
    for row in range(1, ROWS):
        target[row] = 0.5 * target[row - 1] + drive[row] + 0.1 * generator.normal()
    columns = {"feed": feed, "heating": heating, "other": other, "target": target}
    return columns, tuple(columns)


def product(generator: np.random.Generator) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """A product of two white inputs, neither of which tells anything alone."""
    a, b = generator.normal(size=(2, ROWS))
    target = np.roll(a, 5) * np.roll(b, 20) + 0.3 * generator.normal(size=ROWS)
    return {"a": a, "b": b, "target": target}, ("a", "b")


def period(generator: np.random.Generator) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """A wave with a little noise: what lies 3 rows back lies 27 and 51 rows back too."""
    wave = np.sin(2 * np.pi * np.arange(ROWS) / 24) + 0.1 * generator.normal(size=ROWS)
    target = np.roll(wave, 3) + 0.3 * generator.normal(size=ROWS)
    return {"wave": wave, "target": target}, ("wave",)


def white(generator: np.random.Generator) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Inputs and a target that have nothing to do with each other."""
    a, b, target = generator.normal(size=(3, ROWS))
    return {"a": a, "b": b, "target": target}, ("a", "b")


def unrelated(generator: np.random.Generator) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The same, but all change slowly."""
    a, b, target = (slow(generator, 0.98) for _ in range(3))
    return {"a": a, "b": b, "target": target}, ("a", "b")


KINDS = {
    "a vessel: delays of two inputs": delays,
    "a product without a linear part": product,
    "inputs with a period of 24": period,
    "unrelated, white": white,
    "unrelated, slow": unrelated,
}
