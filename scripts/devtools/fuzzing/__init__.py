"""What scripts/soak.py sends to a server, and how it checks the answers.

``generators`` makes a call from a seed and an index, of valid and damaged ``photos`` and broken
``bodies``. ``traffic`` sends calls to a ``server_target`` over several connections, ``oracle``
judges each answer, ``results`` counts the verdicts. ``process_memory`` samples the server's
processes meanwhile. ``behind_edge`` puts deploy/envoy.yaml in front of the server. ``report`` shows
the outcome.
"""
