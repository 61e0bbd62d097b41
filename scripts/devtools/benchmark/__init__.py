"""What scripts/bench.py measures with.

``suite`` has the measurements in their order. ``in_process`` compares pipelines in this process
(timed by ``timing``); ``served``, ``worker_scaling`` and ``request_profile`` load servers through a
``load_rig``, which runs the ``load_generator`` in a process of its own. ``archives`` and
``sample_photos`` make what is measured. ``stock_server`` and ``devtools.servers`` start the
servers, ``cpu_meter`` and ``worker_memory`` watch them. ``goals`` are the ratios to reach,
``report`` and ``plots`` show the results.
"""
