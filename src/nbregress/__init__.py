"""Run notebooks, each in a process of its own, and say clearly what failed.

A run goes through ``plan``, ``schedule``, ``isolation``, ``worker``, ``outputs``, ``failures``, ``recorded``, ``run_store``;
each says what it does. The others judge a run, tell of it or repeat it.
"""

import sys

# nbformat imports jsonschema, and that tries rfc3987_syntax, which compiles a grammar as it is imported: 1.5 s of
# CPU in each process, two thirds of what a small notebook's run takes. It checks internationalised web addresses;
# no field of a notebook is one. To jsonschema this is a package that is not installed, which it allows for.
sys.modules.setdefault("rfc3987_syntax", None)
