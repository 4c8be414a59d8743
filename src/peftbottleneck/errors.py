"""The one exception that a user of this package should see."""


class AdapterError(ValueError):
    """Say in one sentence what to do about an adapter that cannot be built, loaded or written."""
