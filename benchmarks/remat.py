"""Memory of a gradient with recomputation: the built-in ways, and plans under a budget.

Each function is measured in a process of its own, on the version of JAX that runs the benchmark;
before 0.11.1 with the flag without which XLA for the CPU takes the barriers of checkpoints away.
``part=memory``: one line for every variant with bytes of temporaries and operations as the
compiler counts them, the bytes by which one run raises the peak of its process, those of its
results, the scratch that the dearest of its products takes when it runs alone, and the seconds of
planning. ``part=time``: milliseconds, all variants in turn,
and their ratio to plain backpropagation. The variants: plain; ``jax.checkpoint`` around the whole
function, around each block, around the whole with the policy ``dots_saveable``; and the plans of
``remat.plan(points=6)``, each the one that some budgets choose.
"""

from collections.abc import Iterator

from benchmarks.lines import Facts, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import markdown

MODELS = (
    "residual MLP",
    "U-Net",
    "residual network",
    "transformer",
    "recurrence",
    "soft sorts",
    "hyperlayers",
)
BUILT_IN = ("whole", "per block", "dots saveable")
PLANS = tuple(f"plan {number}" for number in range(1, 6))
WAYS = ("kept with a flag", "kept")


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give all functions, for the version of JAX that runs."""
    from benchmarks.programs.remat import barriers

    yield from grid(barriers=[barriers()], part=["memory", "time"], model=MODELS)


def write(lines: Lines) -> str:
    """Write what each function takes at best, what every plan takes, and what processes take.

    Lines of before scratch was measured have no part in the last.
    """
    best, plans, processes = [], [], []
    for model in MODELS:
        for way in WAYS:
            found = lines.where(model=model, barriers=way)
            memory = {line["variant"]: line for line in found.where(part="memory")}
            times = {line["variant"]: line["ratio"] for line in found.where(part="time")}
            if memory:
                name = [model, memory["plain"]["jax"]]
                best.append([*name, *_best(memory, times)])
                plans.append([*name, *(_cell(memory, times, plan) for plan in PLANS)])
                if "result_bytes" in memory["plain"]:
                    processes.append([*name, *_process(memory)])
    heads = ["function", "JAX", "plain", *BUILT_IN, "leanest plan", "less", "operations", "time"]
    heads += ["nodes", "planned in"]
    parts = ["results", "scratch", "process, plain", "of the sum", "leanest plan", "of the sum"]
    return "\n\n".join(
        [
            markdown(heads, best),
            markdown(["function", "JAX", *PLANS], plans),
            markdown(["function", "JAX", *parts, "all nine"], processes),
        ]
    )


def _mebibytes(line: dict, field: str = "temporary_bytes") -> str:
    return f"{line[field] / 2**20:.3g}"


def _leanest(memory: dict) -> str:
    return min(
        (plan for plan in PLANS if plan in memory), key=lambda p: memory[p]["temporary_bytes"]
    )


def _best(memory: dict, times: dict) -> list[str]:
    """Compare the leanest plan with the rest."""
    plain, plan = memory["plain"], _leanest(memory)
    taken = memory[plan]
    saved = 1 - taken["temporary_bytes"] / plain["temporary_bytes"]
    return [
        _mebibytes(plain),
        *(_mebibytes(memory[name]) for name in BUILT_IN),
        _mebibytes(taken),
        f"{100 * saved:.0f} %",
        f"{taken['gigaflops'] / plain['gigaflops']:.2f}",
        f"{times[plan]:.2f}" if plan in times else "-",
        str(plain["nodes"]),
        f"{plain['plan_seconds']:.1f} s",
    ]


def _process(memory: dict) -> list[str]:
    """Compare the peak of a process with temporaries, results and scratch together."""

    def share(line: dict) -> float:
        fields = ("temporary_bytes", "result_bytes", "scratch_bytes")
        return line["process_bytes"] / sum(line[field] for field in fields)

    plain, taken = memory["plain"], memory[_leanest(memory)]
    shares = [100 * share(line) for line in memory.values()]
    return [
        *(_mebibytes(plain, field) for field in ("result_bytes", "scratch_bytes")),
        *(
            cell
            for line in (plain, taken)
            for cell in (_mebibytes(line, "process_bytes"), f"{100 * share(line):.0f} %")
        ),
        f"{min(shares):.0f} to {max(shares):.0f} %",
    ]


def _cell(memory: dict, times: dict, plan: str) -> str:
    """Write MiB, operations and time of one plan; the last two are ratios to plain."""
    if plan not in memory:
        return "-"
    work = memory[plan]["gigaflops"] / memory["plain"]["gigaflops"]
    ratio = f"{times[plan]:.2f}" if plan in times else "-"
    return f"{_mebibytes(memory[plan])}, {work:.2f}, {ratio}"


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("remat"),
    tiny=list(grid(part=["memory", "time"], model=["residual MLP"])),
    table=write,
    repeats=10,
)
