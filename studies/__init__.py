"""Programs that made what lies in data/: run them from the checkout, as in ``python -m studies.sweep``."""
