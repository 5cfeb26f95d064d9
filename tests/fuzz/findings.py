"""What went wrong, a few examples of each kind."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

EXAMPLES = 3


@dataclass
class Findings:
    """Counts by room, and examples by what they have in common."""

    counts: defaultdict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    examples: defaultdict[tuple[str, str], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def count(self, room, kind, number=1):
        """Count cases of a room: ``cases``, ``illegal``, ``mismatches``, ``nan``, ..."""
        self.counts[room][kind] += number

    def add(self, room, kind, about, example):
        """Count one that went wrong, and keep it if it is among the first of its kind."""
        self.count(room, kind)
        seen = self.examples[room, f"{kind}: {about}"]
        if len(seen) < EXAMPLES:
            seen.append(example)

    def total(self, kind):
        """Count over all rooms."""
        return sum(counts[kind] for counts in self.counts.values())

    def lines(self):
        """Say everything that went wrong."""
        for (room, about), examples in self.examples.items():
            yield f"{room}: {about}"
            yield from (f"    {example}" for example in examples)
