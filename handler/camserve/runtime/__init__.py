"""What a batch runs on: threads, CPU cores, memory, stage times, and error handling per photo.

Importing this wing does not import PyTorch; the functions that need PyTorch import it.
"""

from camserve.runtime.cores import usable_cores, worker_threads
from camserve.runtime.failures import bisect_on_failure, capture_error, traceback_summary
from camserve.runtime.memory import release_memory
from camserve.runtime.stage_timer import STAGES, StageTimer
from camserve.runtime.thread_pool import Task, ThreadPool

__all__ = [
    "STAGES",
    "StageTimer",
    "Task",
    "ThreadPool",
    "bisect_on_failure",
    "capture_error",
    "release_memory",
    "traceback_summary",
    "usable_cores",
    "worker_threads",
]
