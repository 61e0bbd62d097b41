"""What scripts/soak.py sends to a server, and how the answers are judged.

``photos`` and ``bodies`` make what is sent, ``cases`` picks one by seed and index, ``target`` sends
it, ``verdict`` judges what comes back, ``traffic`` keeps several connections busy, ``vitals``
watches the processes meanwhile, ``report`` tells the outcome.
"""
