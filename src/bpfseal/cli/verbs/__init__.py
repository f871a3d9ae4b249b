"""One module for each verb: `SUMMARY`, `configure` (its options) and `run`."""
