"""A monitor policy for samples: strict enough to be one, with every part that a product must write."""

from typing import Any

from ml_platform.contracts.monitor_policy import MonitorPolicy

MONITOR_POLICY: dict[str, Any] = {
    "version": "1.0.0",
    "label_age_hours": 1,
    "min_coverage": 0.5,
    "alpha": 0.05,
    "beta": 0.05,
    "metrics": [
        {"kind": "rate", "metric": "error_rate", "signal": "error", "margin": 0.05, "at_most": 0.2},
        {"kind": "rate", "metric": "missed_rate", "signal": "missed", "margin": 0.1, "at_most": 0.5},
        {
            "kind": "quantile",
            "metric": "latency_p95",
            "signal": "latency_ms",
            "quantile": 0.95,
            "margin": 0.5,
            "at_most": 5000,
        },
    ],
    "hard_limits": [{"signal": "error", "at_most": 0.5, "window_seconds": 60, "min_count": 10}],
    "moves": {"cool_down_minutes": 10, "max_per_day": 6, "min_users": 20},
    "sign_off": {"always": False, "cost_rises_by": None},
    "drift": {
        "window_days": 28,
        "alpha": 0.05,
        "psi": 0.2,
        "ks": 0.1,
        "wasserstein": 0.2,
        "embedding": 0.1,
        "share_of_columns": 0.3,
        "min_rows": 30,
        "sample_rows": 5000,
    },
    "retrain": {
        "on_drift": True,
        "on_quality": True,
        "new_labels": None,
        "every_days": None,
        "days_before_deprecation": None,
        "deprecations": [],
        "back_off_hours": 6,
        "max_failed": 3,
    },
}

WITHOUT_OUTCOMES = MONITOR_POLICY | {"metrics": [one for one in MONITOR_POLICY["metrics"] if one["signal"] != "missed"]}
"""For products that call nothing positive, and so miss nothing."""


def monitor_policy(**changes: Any) -> MonitorPolicy:
    """The sample, with other values for some of its keys."""
    return MonitorPolicy.parse(MONITOR_POLICY | changes, where="a sample")
