"""The experiments behind the recorded figures; each is run as ``python -m studies.NAME``.

They run on one thread and ask no model hub, which torch and the tokenizers must know before they
are imported.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
