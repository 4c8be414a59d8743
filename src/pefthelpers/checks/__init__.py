"""Exercise checks: one module per notebook, each function takes an answer and returns a verdict."""
