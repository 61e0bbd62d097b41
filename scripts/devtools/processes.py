"""The processes of a TorchServe: Java, its workers, and what those started."""

from __future__ import annotations

from contextlib import suppress

import psutil

#: Bytes.
MB = 1e6


def process_tree(process: psutil.Process) -> list[psutil.Process]:
    """A process and all its descendants, the process itself first.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    return [process, *process.children(recursive=True)]


def worker_processes(pid: int) -> list[psutil.Process]:
    """The Python processes that run the handler.

    Args:
        pid: of the Java process, or of a launcher that waits for it. Where it has ended, there are
            no workers.
    """
    workers = []
    with suppress(psutil.NoSuchProcess):
        for process in process_tree(psutil.Process(pid)):
            with suppress(psutil.Error):
                if any("model_service_worker" in argument for argument in process.cmdline()):
                    workers.append(process)
    return workers
