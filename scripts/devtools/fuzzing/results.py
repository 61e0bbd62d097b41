"""What became of the calls: counts, and a file for each call that was answered wrong."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from devtools.fuzzing.calls import Call
from devtools.fuzzing.oracle import Verdict

#: Maximum number of findings that are kept: where everything fails, more say nothing new.
MAX_FINDINGS = 50


@dataclass(frozen=True)
class Finding:
    """A call that was answered wrong.

    Attributes:
        index: with the seed, sends the call again.
        file: holds the call.
    """

    index: int
    kind: str
    problem: str
    file: str


@dataclass
class FuzzResults:
    """What became of the calls. Threads may add to it.

    Attributes:
        out: the folder for the calls that are kept.
        valid_answered: correct answers to calls that must succeed.
        problems: number of wrong answers; ``findings`` holds the first of them.
        outcomes, kinds: number of calls by outcome and by kind.
        frontend_faults: number of 5xx answers that TorchServe's frontend gives by itself, by what
            it says.
        latencies: of the calls in ``valid_answered``, in ms.
    """

    seed: int
    out: Path
    sent: int = 0
    valid_answered: int = 0
    problems: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    frontend_faults: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, index: int, call: Call, verdict: Verdict, seconds: float) -> None:
        """Count a call, and write it to a file where its answer is wrong or a new fault."""
        with self.lock:
            self.sent += 1
            self.outcomes[verdict.outcome] += 1
            self.kinds[call.kind.partition(":")[0]] += 1
            if verdict.frontend_fault:
                if not self.frontend_faults[verdict.frontend_fault]:
                    self._write(index, call, "fault")
                self.frontend_faults[verdict.frontend_fault] += 1
            if verdict.problem:
                self.problems += 1
                if len(self.findings) < MAX_FINDINGS:
                    file = self._write(index, call, "wrong")
                    self.findings.append(Finding(index, call.kind, verdict.problem, file))
            elif call.must_succeed:
                self.valid_answered += 1
                self.latencies.append(seconds * 1000)

    def _write(self, index: int, call: Call, prefix: str) -> str:
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / f"{prefix}-{self.seed}-{index}.json"
        file.write_text(call.to_json())
        return str(file)
