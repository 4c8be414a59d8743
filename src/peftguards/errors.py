"""The one exception that a user of this package should see."""


class GuardError(ValueError):
    """Say in one sentence what would go wrong silently, and what to do about it."""
