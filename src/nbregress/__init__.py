"""Run notebooks, each in a process of its own, and say clearly what failed.

``plan`` checks and orders what was asked for, ``isolation`` gives a notebook its own process, ``worker`` is
that process, ``failures`` finds out why a notebook failed, ``executors`` reaches a cluster, ``schedule``
follows a run, ``run_store`` is its folder, ``report`` tells of it, ``baselines`` and ``compare``
judge it, ``matrix`` repeats it under other package versions. ``recorder`` keeps a notebook's outputs in its
file, ``lint`` checks the house style, ``doctor`` says what a machine can run.
"""

import sys

# nbformat imports jsonschema, and that tries rfc3987_syntax, which compiles a grammar as it is imported: 1.5 s of
# CPU in each process, two thirds of what a small notebook's run takes. It checks internationalised web addresses;
# no field of a notebook is one. To jsonschema this is a package that is not installed, which it allows for.
sys.modules.setdefault("rfc3987_syntax", None)
