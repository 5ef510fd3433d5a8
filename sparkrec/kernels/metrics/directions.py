"""Which way a metric is better, in the one place that all who compare values of it read."""

LOWER_IS_BETTER = frozenset({"rmse", "mae", "log_loss", "calibration_error", "unpredicted"})


def sign(metric: str) -> int:
    """1 where more of a metric, by its name or with a cutoff as `ndcg@10`, is better, -1 where less is."""
    return -1 if metric.partition("@")[0] in LOWER_IS_BETTER else 1
