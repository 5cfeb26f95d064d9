"""Characters of a text: of a file, or of what scikit-learn says about the data sets it brings."""

import importlib.resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data.copying import TokenSequences
from sparse_hyper_jax.train.reading import read_bytes, reading

ENDINGS = (".txt", ".txt.gz")
KIND, CHANGE = "text in UTF-8", "restore the file, or pass another --data-dir"


class TextParts(NamedTuple):
    """A text in three parts, each cut into rows side by side, and the number of characters."""

    train: TokenSequences
    validation: TokenSequences
    test: TokenSequences
    tokens: int


def read_text(folder: Path | None) -> str:
    """Read the only text of a folder, a file ``*.txt`` or ``*.txt.gz``; without one, the bundled.

    Raises:
        ValueError: no such file, or several; one that is no text.
        OSError: the system refuses the file.
        ImportError: no folder, and scikit-learn is not installed.
    """
    if folder is None:
        return bundled_text()
    found = [path for path in _files(folder) if path.name.endswith(ENDINGS)]
    require(
        len(found) == 1,
        f"{len(found)} texts in {folder}",
        f"one file that ends in {' or '.join(ENDINGS)}",
        "pass the folder of one text as --data-dir DIR",
    )
    (path,) = found
    content = read_bytes(path, KIND, CHANGE)
    with reading(path, KIND, CHANGE):
        return content.decode("utf-8")


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def bundled_text() -> str:
    """Give some 40,000 characters: the descriptions of data sets that scikit-learn brings.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        folder = importlib.resources.files("sklearn.datasets.descr")
    except ImportError as error:
        raise ImportError(
            "found no scikit-learn; expected it to be installed, for it brings the text; run pip"
            ' install "sparse_hyper_jax[train]", or pass --data-dir DIR'
        ) from error
    pages = sorted((one for one in folder.iterdir() if one.name.endswith(".rst")), key=str)
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def text_sequences(text: str, *, batch: int, length: int | None) -> TextParts:
    """Cut a text into 90 % for training and 5 % each for validation and test, in rows.

    The target of a character is the next one.

    Args:
        text: any; its different characters, in their order, are the tokens.
        batch: rows side by side.
        length: most steps of a row of training; None for all that there are.

    Returns:
        :class:`TextParts`.

    Raises:
        ValueError: a part has not two characters for each row.
    """
    alphabet, tokens = np.unique(list(text), return_inverse=True)
    first, second = (len(tokens) * cut // 20 for cut in (18, 19))
    require(
        second - first >= 2 * batch and len(tokens) - second >= 2 * batch,
        f"--batch {batch} with {len(tokens)} characters",
        "at least 40 for every row",
        "lower --batch, or pass the folder of a longer text as --data-dir DIR",
    )
    train, validation, test = np.split(tokens.astype(np.int32), [first, second])
    return TextParts(
        _rows(train, batch, length),
        _rows(validation, batch, None),
        _rows(test, batch, None),
        len(alphabet),
    )


def _rows(tokens: np.ndarray, batch: int, length: int | None) -> TokenSequences:
    steps = (len(tokens) - 1) // batch
    steps = steps if length is None else min(steps, length)
    # Rows begin at equal distances, so that a shorter length still reads from everywhere.
    starts = np.arange(batch) * ((len(tokens) - 1) // batch)
    places = np.arange(steps)[:, None] + starts
    return TokenSequences(tokens[places], tokens[places + 1])
