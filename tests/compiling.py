"""How the suite compiles: cheaply, once, and from one run to the next.

Nearly all of the suite's time is compiling, so the default is XLA without its expensive passes, and
a cache of compiled programs on disk. With `pytest --full` everything is compiled as users do.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile

# The variable that names the folder of compiled programs, or "off".
CACHE = "SPARSE_HYPER_TEST_CACHE"
LARGEST_CACHE = 2 * 1024**3

# Flags that make compiling cheaper, by the jaxlib that knows them: XLA aborts on those it does not.
# A program that is compiled in one part costs less altogether: every part is a module of its own.
ONE_PART = "--xla_cpu_parallel_codegen_split_count=1"
CHEAP_FLAGS = {"0.10": f"--xla_cpu_use_fusion_emitters=false {ONE_PART}", "0.12": ONE_PART}

# What users have, whatever the environment says.
FULL = {"jax_disable_most_optimizations": False, "jax_enable_compilation_cache": False}


def with_cheap_flags(environment: Mapping[str, str], jaxlib: str) -> str:
    """XLA_FLAGS of an environment, and those that make this version of jaxlib compile faster."""
    cheap = CHEAP_FLAGS.get(".".join(jaxlib.split(".")[:2]), "")
    chosen = environment.get("XLA_FLAGS", "").split()
    names = {flag.split("=")[0] for flag in chosen}
    return " ".join([*chosen, *(flag for flag in cheap.split() if flag.split("=")[0] not in names)])


def cheap_settings() -> dict[str, object]:
    """JAX's settings for programs that are compiled fast and run once."""
    # Set by hand, JAX_DISABLE_MOST_OPTIMIZATIONS=0 keeps the passes and still uses the cache.
    chosen = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    settings: dict[str, object] = {
        "jax_disable_most_optimizations": chosen.lower() not in ("0", "false", ""),
    }
    folder = cache_folder()
    if folder is None:
        return settings | {"jax_enable_compilation_cache": False}
    return settings | {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }


def cache_folder() -> Path | None:
    """The folder of compiled programs, made where needed; none where nothing can be written."""
    named = os.environ.get(CACHE)
    if named == "off":
        return None
    try:
        folder = (Path(named) if named else default_cache()) / f"jaxlib-{version('jaxlib')}"
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # a home that is read-only, full or unknown
        return None


def default_cache() -> Path:
    """The user's cache, as desktops define it."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "sparse_hyper_jax" / "tests"


@contextmanager
def programs_compiled() -> Iterator[list[str]]:
    """List an entry for every program that is compiled inside."""
    import jax  # set up by then

    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    try:
        yield compiled
    finally:
        jax.monitoring.clear_event_listeners()


def trim(folder: Path, largest: int = LARGEST_CACHE) -> None:
    """Delete the oldest programs below a folder until `largest` bytes are left."""
    files = [(path.stat(), path) for path in folder.glob("jaxlib-*/*-cache")]
    size = 0
    for stat, path in sorted(files, key=lambda pair: -pair[0].st_mtime):
        size += stat.st_size
        if size > largest:
            path.unlink(missing_ok=True)
