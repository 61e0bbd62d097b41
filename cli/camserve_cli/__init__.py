"""The command ``camserve``: package a network, serve it, explain photos with it.

``commands`` has a module for each sub-command, ``app`` lists them and reports their errors. Below
them, ``packaging`` makes archives and ``serving`` runs TorchServe on this machine; ``paths`` knows
where things are, in a clone of the repository and in an installed wheel.
"""
