"""Makes the pages of the API reference: one for each room, which lists its public names."""

import importlib
import inspect
import re
import shutil
from pathlib import Path

ROOMS = {
    "Learned positions": {
        "ops": "raw parameters to output: the core",
        "sort": "soft sort, ranks, top-k; quicksort; losses and metrics",
        "glimpse": "windows of an image at learned places",
        "attention": "self-attention at learned lags, streaming",
        "conv": "convolutions at learned lags and offsets, delays, streaming",
        "graph": "sums over given or learned edges, exact gains of absent ones",
        "memory": "reads at learned addresses, embeddings of few rows, optimizers by rows",
        "explain": "what was learned: descriptions, ablation, agreement of runs, edges",
    },
    "Gradients and weights": {
        "estimators": "gradients through discrete choices",
        "diagnostics": "bias and variance of an estimated gradient",
        "backprop": "sparse backpropagation with memory",
        "reparam": "weights as powers of what is trained",
        "pruning": "masks, densities, schedules, sparse training",
        "continual": "many tasks in one network",
        "recurrent": "truncation through time, checkpointed scans, online rules",
        "remat": "a gradient within a budget of memory",
        "local": "objectives of their own for the parts of a network",
        "spiking": "spikes, and rules that learn while time runs",
    },
    "Layers and devices": {
        "nn": "Flax NNX modules",
        "dist": "many devices, the numbers of one",
    },
}


def public_names(room: str) -> list[str]:
    """Names that a room exports, or defines where it has no list of that."""
    module = importlib.import_module(f"sparse_hyper_jax.{room}")
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def page_of(room: str, summary: str) -> str:
    """The room's docstring, which draws its flow, and a page for every name."""
    constants = [name for name in public_names(room) if page_of_constant(room, name)]
    names = "\n".join(f"   {name}" for name in public_names(room) if name not in constants)
    pages = "\n".join(f"   {room}/sparse_hyper_jax.{room}.{name}" for name in constants)
    tree = f"\n.. toctree::\n\n{pages}\n" if constants else ""
    return f"""# {room}

{summary[0].upper()}{summary[1:]}.

```{{eval-rst}}
.. automodule:: sparse_hyper_jax.{room}

.. currentmodule:: sparse_hyper_jax.{room}

.. autosummary::
   :toctree: {room}
   :nosignatures:

{names}
{tree}```
"""


def page_of_constant(room: str, name: str) -> str | None:
    """A page for what is no function or class: its docstring stands where it is assigned."""
    module = importlib.import_module(f"sparse_hyper_jax.{room}")
    value = getattr(module, name)
    if inspect.isfunction(value) or inspect.isclass(value):
        return None
    for path in sorted(Path(module.__file__).parent.glob("*.py")):
        if re.search(rf"^{name}\b[^=]*= ", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            place = f"sparse_hyper_jax.{room}.{path.stem}"
            line = "=" * len(name)
            return f"{name}\n{line}\n\n.. autodata:: {place}.{name}\n"
    raise LookupError(f"{room}.{name} is assigned nowhere in its room")


def write(folder: Path) -> None:
    """Write all pages anew, so that none outlives its name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    index = ["# API reference\n"]
    for storey, rooms in ROOMS.items():
        table = "\n".join(f"| [{room}]({room}.md) | {text} |" for room, text in rooms.items())
        entries = "\n".join(rooms)
        index += [f"## {storey}\n", f"| room | what lives there |\n|---|---|\n{table}\n"]
        index += [f"```{{toctree}}\n:hidden:\n:maxdepth: 2\n\n{entries}\n```\n"]
        for room, text in rooms.items():
            (folder / f"{room}.md").write_text(page_of(room, text), encoding="utf-8")
            for name in public_names(room):
                page = page_of_constant(room, name)
                if page is not None:
                    (folder / room).mkdir(exist_ok=True)
                    path = folder / room / f"sparse_hyper_jax.{room}.{name}.rst"
                    path.write_text(page, encoding="utf-8")
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")
