"""Recorded counts, and what a new one means beside them."""

from dataclasses import dataclass, field
from pathlib import Path

HEAD = """\
# User instructions for one operation of each row of `scripts/instructions`. A line is moved in a commit of its own
# that says why (CONTRIBUTING.md); `scripts/instructions --record [ROW...]` writes it.
"""
COMPILER = "compiler"
WITHIN = 0.05


@dataclass
class Bounds:
    # Counts depend on it.
    compiler: str = ""
    counts: dict = field(default_factory=dict)

    @classmethod
    def read(cls, path):
        bounds = cls()
        lines = Path(path).read_text().splitlines() if Path(path).exists() else []
        for line in lines:
            name, _, value = line.partition(" ")
            if name == COMPILER:
                bounds.compiler = value.strip()
            elif name and not name.startswith("#"):
                bounds.counts[name] = float(value)
        return bounds

    def write(self, path):
        width = max(map(len, [COMPILER, *self.counts]))
        lines = [f"{COMPILER:{width}}  {self.compiler}"]
        lines += [f"{name:{width}} {count:>8.0f}" for name, count in self.counts.items()]
        Path(path).write_text(HEAD + "\n".join(lines) + "\n")


def judge(count, bound, within=WITHIN):
    """Whether a count passes, and what is to be said of it."""
    if bound is None:
        return False, "has no bound: --record"
    if count > bound * (1 + within):
        return False, f"GREW by more than {within:.0%}"
    if count < bound * (1 - within):
        return True, f"shrank by more than {within:.0%}: move the bound"
    return True, ""
