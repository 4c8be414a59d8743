"""The one exception that a user of this package should see."""


class EstimateError(ValueError):
    """Say in one sentence what to do about a question that the memory formulas cannot answer."""
