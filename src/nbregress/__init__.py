"""Run notebooks, each in a process of its own, and say clearly what failed.

``plan`` checks and orders, ``apart`` gives a notebook its own process, ``child`` is that process, ``failures``
finds out why a notebook failed, ``pools`` says where notebooks run, ``schedule`` follows a run, ``kept``
is its folder, ``report`` and ``junit`` tell of it, ``baselines`` and ``compare`` judge it, ``stacks`` and
``matrix`` repeat it under other package versions.
"""
