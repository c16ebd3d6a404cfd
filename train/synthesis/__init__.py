"""Training speech from synthetic voices."""
